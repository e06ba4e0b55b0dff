"""The training loop of `lite`: two phases over one schedule, resumable from its checkpoint.

    0 - 68 %     crops of side 256
    68 - 100 %   crops of side 512, as in use
    at the end   the correction of the predicted IoU, on images that the rest never saw, for the averaged weights

The schedule runs over steps, or over minutes of work where the length of the run matters more than repeating it bit
for bit. With steps, a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as StepOrder

from pipeline.models.lite.network import IouHead, LiteNetwork, load_weights
from pipeline.models.lite.training import parallel
from pipeline.models.lite.training.checkpoint import WEIGHTS_NAME, export, load_checkpoint, save_checkpoint
from pipeline.models.lite.training.data import Example, Sampler, load_photos
from pipeline.models.lite.training.imagenet import load_imagenet
from pipeline.models.lite.training.iou_fit import fit_correction
from pipeline.models.lite.training.loss import losses
from pipeline.models.lite.training.prompting import draw_subset, image_tensor, own_output, prompt_tensors
from pipeline.models.lite.training.validation import Validation, validate

LARGE_SIDE_FROM = 0.68
WARM_UP_STEPS = 200
FLOOR = 0.02  # of the learning rate, at the end of the cosine
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """One run. Exactly one of `steps` and `minutes` is given."""

    data: Path
    output: Path
    steps: int | None = None
    minutes: float | None = None
    images: int = 4  # crops in a step at side 256
    masks: int = 4  # prompts for each crop
    head_rate: float = 1e-3
    backbone_rate: float = 1e-4
    weight_decay: float = 0.02
    average: float = 0.998
    seed: int = 0
    processes: int = 1  # that share the crops of a step
    threads: int = 1  # of each process
    workers: int = 1  # of each process, that make examples
    bf16: bool = field(default_factory=torch.cpu._is_avx512_bf16_supported)  # emulated elsewhere: twice as slow as fp32
    init: Path | None = None  # weights to start from (`export`'s format); ImageNet's backbone when None
    imagenet: bool = True
    checkpoint_s: float = 120
    validations: int = 8
    photo_limit: int | None = None


@dataclass(frozen=True)
class Event:
    """What a caller may show: after every step, and `validation` where one was made."""

    step: int
    progress: float
    side: int
    mask_loss: float
    iou_loss: float
    best_iou: float
    seconds: float
    validation: Validation | None = None


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
    state = initial_state(config)
    load_checkpoint(config.output, state)
    leads = parallel.rank() == 0
    checks = load_photos(config.data, {"val"}, config.photo_limit) if leads else []
    source = examples(config, state)
    saved_s, validated = state.seconds(), math.floor(progress(config, state) * config.validations)
    while (at := parallel.agree(progress(config, state))) < 1:
        event = train_step(config, state, next(source), at)
        due = min(math.floor(at * config.validations), config.validations - 1)
        if leads and due > validated:
            validated = due
            event = replace(event, validation=validate(state.averaged, checks, config.seed))
            export(state.averaged, config.output)
        if leads and state.seconds() - saved_s > config.checkpoint_s:
            save_checkpoint(config.output, state)
            saved_s = state.seconds()
        report(event)
    if leads:
        save_checkpoint(config.output, state)
        finish(config, state.averaged)
        report(Event(state.step, 1.0, 512, 0, 0, 0, state.seconds(), validate(state.averaged, checks, config.seed)))
    return config.output / WEIGHTS_NAME


def finish(config: TrainConfig, network: LiteNetwork) -> None:
    """Write the weights, with the IoU's correction fitted to them."""
    network.decoder.iou_head.correction.load_state_dict(IouHead().correction.state_dict())
    weights = export(network, config.output)
    kept_aside = load_photos(config.data, {"iou"}, config.photo_limit)
    network.load_state_dict({**network.state_dict(), **fit_correction(weights, kept_aside, config.seed)})
    export(network, config.output)


def initial_state(config: TrainConfig) -> State:
    """Step 0: the given weights; else ImageNet's backbone, the rest random from the seed."""
    network = LiteNetwork()
    if config.init is not None:
        load_weights(network, config.init.read_bytes())
    elif config.imagenet:
        load_imagenet(network.encoder.backbone)
    network.to(memory_format=torch.channels_last)
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


def train_step(config: TrainConfig, state: State, example: Example, at: float) -> Event:
    """One step of optimisation on one example."""
    rng = np.random.default_rng([config.seed, state.step, 1])
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(group["rate"], at, state.step)
    network = state.network
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
        features = network.encoder(image_tensor(example))
        subset = draw_subset(rng)
        if subset.second_iteration:
            example = own_output(network, features, example, np.random.default_rng([state.step, parallel.rank()]))
        logits, predicted_iou = network.decoder(features, prompt_tensors(example, subset))
    result = losses(logits, predicted_iou, torch.from_numpy(example.truth), subset.mask)
    state.optimizer.zero_grad(set_to_none=True)
    (result.mask + result.iou).backward()
    parallel.average_gradients(list(network.parameters()))
    nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
    state.optimizer.step()
    state.step += 1
    update_average(state, config.average)
    best = result.true_iou.max(dim=1).values.mean()
    return Event(
        step=state.step,
        progress=at,
        side=example.images.shape[1],
        mask_loss=result.mask.item(),
        iou_loss=result.iou.item(),
        best_iou=best.item(),
        seconds=state.seconds(),
    )


@torch.no_grad()
def update_average(state: State, average: float) -> None:
    """Exponential moving average, shorter while the run is young."""
    keep = min(average, (1 + state.step) / (10 + state.step))
    torch._foreach_lerp_(list(state.averaged.parameters()), list(state.network.parameters()), 1 - keep)


def examples(config: TrainConfig, state: State) -> Iterator[Example]:
    """This process's share of the examples from the state's step on, without end, made ahead by worker processes."""
    first = state.step

    class Order(StepOrder[tuple[int, float]]):
        def __iter__(self) -> Iterator[tuple[int, float]]:
            for step in itertools.count(first):
                at = step / config.steps if config.steps else progress(config, state)
                yield step * config.processes + parallel.rank(), at

    images = config.images // config.processes
    fit = Sampler(load_photos(config.data, {"fit"}, config.photo_limit), images, config.masks, config.seed)
    loader = DataLoader(
        Examples(fit),
        batch_size=None,
        sampler=Order(),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=_one_thread,
        collate_fn=_as_it_is,
    )
    yield from loader


class Examples(Dataset[Example]):
    """(number of the example, progress) -> Example."""

    def __init__(self, fit: Sampler) -> None:
        self.fit = fit

    def __getitem__(self, index: Any) -> Example:
        number, at = index
        return self.fit.example(number, 512 if at >= LARGE_SIDE_FROM else 256)


def _as_it_is(example: Any) -> Any:
    return example


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
