"""The training loop of `lite`: two phases over one schedule, resumable from its checkpoint on any device.

    0 - 87.5 %     crops of side 256
    87.5 - 100 %   crops of side 512, as in use (they cost twice as much)
    at the end     the correction of the predicted IoU, on images that the rest never saw, for the averaged weights

The schedule runs over steps, or over minutes of work where the length of the run matters more than repeating it bit
for bit. With steps, a resumed run equals an uninterrupted one on the same device.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.fused import keep_freed_memory
from pipeline.models.lite.network import IouHead, LiteNetwork, load_weights
from pipeline.models.lite.training import parallel
from pipeline.models.lite.training.checkpoint import WEIGHTS_NAME, export, load_checkpoint, save_checkpoint
from pipeline.models.lite.training.config import Event, TrainConfig
from pipeline.models.lite.training.data import load_all
from pipeline.models.lite.training.feeding import batches
from pipeline.models.lite.training.imagenet import load_imagenet
from pipeline.models.lite.training.iou_fit import fit_correction
from pipeline.models.lite.training.loss import losses
from pipeline.models.lite.training.pace import Pace
from pipeline.models.lite.training.prompting import Batch, draw_subset, own_output, prompt_tensors
from pipeline.models.lite.training.validation import validate

WARM_UP_STEPS = 200
FLOOR = 0.02  # of the learning rate, at the end of the cosine
GRADIENT_NORM = 1.0


@dataclass
class State:
    """Everything that a checkpoint holds."""

    network: LiteNetwork
    averaged: LiteNetwork
    optimizer: torch.optim.AdamW
    step: int = 0
    worked_s: float = 0.0
    clock: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Seconds of work over all sessions of this run."""
        return self.worked_s + time.monotonic() - self.clock


def train(config: TrainConfig, report: Callable[[Event], None]) -> Path:
    """Train, or go on from the checkpoint in `config.output`; returns the weights file."""
    with parallel.together(config.processes, _train_silently, config):
        return _train(config, report)


def _train_silently(config: TrainConfig) -> None:
    _train(config, lambda _: None)


def _train(config: TrainConfig, report: Callable[[Event], None]) -> Path:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    keep_freed_memory()
    state = initial_state(config)
    load_checkpoint(config.output, state)
    leads = parallel.rank() == 0
    checks = load_all(config.data, {"val"}, config.photo_limit, config.cache) if leads else []
    source = batches(config, state.step, lambda: progress(config, state))
    pace = Pace(config)
    saved_s, validated = state.seconds(), math.floor(progress(config, state) * config.validations)
    while (at := parallel.agree(progress(config, state))) < 1:
        state.clock += pace.pause()
        measured = train_step(config, state, pace.timed(source), at)
        if leads and state.seconds() - saved_s > config.checkpoint_s:
            save_checkpoint(config.output, state)
            saved_s = state.seconds()
        due = min(math.floor(at * config.validations), config.validations - 1)
        if leads and due > validated:
            validated = due
            report(replace(event(state, at, measured, pace), validation=validate(state.averaged, checks, config.seed)))
        elif state.step % config.report_every == 0:
            report(event(state, at, measured, pace))
    if leads:
        save_checkpoint(config.output, state)
        if config.fits_iou:
            finish(config, state.averaged)
        last = validate(state.averaged, checks, config.seed) if config.validations else None
        report(Event(state.step, 1.0, 512, 0, 0, 0, state.seconds(), validation=last))
    return config.output / WEIGHTS_NAME


def finish(config: TrainConfig, network: LiteNetwork) -> None:
    """Write the weights, with the IoU's correction fitted to them."""
    network.decoder.iou_head.correction.load_state_dict(IouHead().correction.state_dict())
    weights = export(network, config.output)
    kept_aside = load_all(config.data, {"iou"}, config.photo_limit, config.cache)
    network.load_state_dict({**network.state_dict(), **fit_correction(weights, kept_aside, config.seed)})
    export(network, config.output)


def initial_state(config: TrainConfig) -> State:
    """Step 0: the given weights; else ImageNet's backbone, the rest random from the seed."""
    network = LiteNetwork()
    if config.init is not None:
        load_weights(network, config.init.read_bytes())
    elif config.imagenet:
        load_imagenet(network.encoder.backbone)
    network.to(config.device).to(memory_format=torch.channels_last)
    backbone = [p for p in network.encoder.backbone.parameters() if p.requires_grad]
    inside = {id(p) for p in network.encoder.backbone.parameters()}
    head = [p for p in network.parameters() if p.requires_grad and id(p) not in inside]
    optimizer = torch.optim.AdamW(
        [{"params": head, "rate": config.head_rate}, {"params": backbone, "rate": config.backbone_rate}],
        lr=config.head_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    return State(network, copy.deepcopy(network).requires_grad_(False), optimizer)


def progress(config: TrainConfig, state: State) -> float:
    """Share of the schedule that is done, 0-1."""
    if config.steps is not None:
        return min(1.0, state.step / config.steps)
    return min(1.0, state.seconds() / (60 * (config.minutes or 1)))


def learning_rate(rate: float, at: float, step: int) -> float:
    """Linear warm-up, then a cosine."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * at)
    return rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (FLOOR + (1 - FLOOR) * cosine)


class Measured(NamedTuple):
    """Of one step; scalars that may still be on their way on the device."""

    side: int
    mask_loss: Tensor
    iou_loss: Tensor
    best_iou: Tensor


def train_step(config: TrainConfig, state: State, batch: Batch, at: float) -> Measured:
    """One step of optimisation on one batch."""
    rng = np.random.default_rng([config.seed, state.step, 1])
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(group["rate"], at, state.step)
    network, device = state.network, batch.images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        features = network.encoder(batch.images)
        subset = draw_subset(rng)
        if subset.second_iteration:
            generator = torch.Generator(device).manual_seed(int(rng.integers(1 << 62)) + parallel.rank())
            batch = own_output(network, features, batch, generator)
        logits, predicted_iou = network.decoder(features, prompt_tensors(batch, subset))
    result = losses(logits, predicted_iou, batch.truth, subset.mask)
    state.optimizer.zero_grad(set_to_none=True)
    (result.mask + result.iou).backward()
    parallel.average_gradients(list(network.parameters()))
    nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
    state.optimizer.step()
    state.step += 1
    update_average(state, config.average)
    best = result.true_iou.max(dim=1).values.mean()
    return Measured(batch.side, result.mask.detach(), result.iou.detach(), best)


def event(state: State, at: float, measured: Measured, pace: Pace) -> Event:
    """What the step showed. Waits for the device."""
    mask_loss, iou_loss, best_iou = torch.stack(measured[1:]).tolist()
    return Event(state.step, at, measured.side, mask_loss, iou_loss, best_iou, state.seconds(), *pace.rates())


@torch.no_grad()
def update_average(state: State, average: float) -> None:
    """Exponential moving average, shorter while the run is young."""
    keep = min(average, (1 + state.step) / (10 + state.step))
    torch._foreach_lerp_(list(state.averaged.parameters()), list(state.network.parameters()), 1 - keep)
