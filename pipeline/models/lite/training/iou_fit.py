"""The correction of the predicted IoU (lite_network.IouHead), fitted to photographs that training kept aside.

Eleven inputs and 209 weights, so that it holds for photographs and damage that it never saw. Its examples: damaged
masks with all prompts, some of the answers as coarse masks again, and boxes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.masks.binary import Mask, decode, iou
from pipeline.masks.frames import FloatArray, Frame, resize_to_input
from pipeline.models import PromptBatch
from pipeline.models.adapter import head_inputs
from pipeline.models.lite.model import LiteModel
from pipeline.models.lite.network import CORRECTION, DIM, IouHead
from pipeline.models.lite.training.damage import damage
from pipeline.models.lite.training.data import Photo, PromptArrays, prompt_arrays, stack, unsteady_box

MIN_AREA, MOST_SHARE = 300, 0.9  # pixels of the photograph; of the photograph
MASKS_PER_PHOTO, DAMAGES_PER_MASK, AGAIN_EVERY = 12, 4, 4
EPOCHS, BATCH, RATE, WEIGHT_DECAY, SQUARED = 15, 128, 2e-3, 0.05, 4.0


class Answers(NamedTuple):
    """Candidates of N prompts: `hidden` (N, 3, F) float32, what the IoU head is given; `iou` (N, 3) with the truth."""

    hidden: FloatArray
    iou: FloatArray


def fit_correction(weights: Path, photos: Sequence[Photo], seed: int) -> dict[str, Tensor]:
    """The correction's tensors, named as in the network, for weights that have none yet. Repeats for a seed.

    Raises ValueError where no photograph has a mask to learn from.
    """
    model = LiteModel(weights)
    parts = [part for photo in photos for part in answers(model, photo, seed)]
    if not parts:
        raise ValueError("no photograph that was kept aside has a mask of a useful size")
    head = model.iou_head
    fitted = fit(head, Answers(*(np.concatenate(values) for values in zip(*parts, strict=True))), seed)
    return {f"decoder.{CORRECTION}{name}": tensor for name, tensor in fitted.state_dict().items()}


def answers(model: LiteModel, photo: Photo, seed: int) -> Iterator[Answers]:
    """What the model makes of damaged masks and of boxes on one photograph."""
    rng = np.random.default_rng([seed, *photo.name.encode()])
    frame = Frame((photo.image.shape[0], photo.image.shape[1]), model.input_side)
    masks = [decode(rle) for rle in photo.masks]
    truths = [mask for mask in masks if MIN_AREA <= mask.sum() < MOST_SHARE * mask.size][:MASKS_PER_PHOTO]
    damaged = [(truth, damage(photo.image, truth, rng)) for truth in truths for _ in range(DAMAGES_PER_MASK)]
    damaged = [(truth, coarse) for truth, coarse in damaged if coarse.any()]
    if not damaged:
        return
    embedding = model.encode([resize_to_input(photo.image, model.input_side)])

    def ask(pairs: list[tuple[Mask, Mask]]) -> tuple[Answers, list[Mask]]:
        return _ask(
            model, embedding, _all_prompts([coarse for _, coarse in pairs], frame), [t for t, _ in pairs], frame
        )

    first, own = ask(damaged)
    yield first
    again = [(truth, mask) for (truth, _), mask in zip(damaged, own, strict=True) if mask.any()][::AGAIN_EVERY]
    if again:
        yield ask(again)[0]
    boxes = np.stack([frame.box_to_prompt(unsteady_box(truth, rng)) for truth in truths])
    alone = PromptBatch(np.zeros(len(boxes), np.int64), None, None, boxes, None, None)
    yield _ask(model, embedding, alone, truths, frame)[0]


def _all_prompts(coarse: Sequence[Mask], frame: Frame) -> PromptBatch:
    given: PromptArrays = stack([prompt_arrays(mask, frame, "code", 15.0) for mask in coarse])
    return PromptBatch(
        np.zeros(len(coarse), np.int64),
        given.points_xy,
        given.point_labels,
        given.box_xyxy,
        given.mask_logits,
        given.coarse,
    )


def _ask(
    model: LiteModel, embedding: object, prompts: PromptBatch, truths: Sequence[Mask], frame: Frame
) -> tuple[Answers, list[Mask]]:
    """The answers, and each prompt's candidate that the model prefers."""
    candidates, hidden = head_inputs(model, embedding, prompts)
    found = [[(frame.logits_to_image(one) > 0).astype(np.uint8) for one in of] for of in candidates.logits]
    right = [[iou(mask, truth) for mask in of] for of, truth in zip(found, truths, strict=True)]
    best = candidates.predicted_iou.argmax(axis=1)
    return Answers(hidden, np.array(right, np.float32)), [of[i] for of, i in zip(found, best, strict=True)]


def fit(head: IouHead, seen: Answers, seed: int) -> nn.Sequential:
    """What brings sigmoid(the layers' logit + correction) near the true IoU, in mean absolute and squared error."""
    torch.manual_seed(seed)
    hidden = torch.from_numpy(seen.hidden).flatten(0, 1)
    wanted = torch.from_numpy(seen.iou).flatten()
    with torch.no_grad():
        logit = head.raw(hidden)
    inputs = torch.cat([logit, hidden[:, 2 * DIM :]], 1)
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-4
    scaled = (inputs - mean) / deviation
    correction = IouHead().correction.requires_grad_(True)
    optimizer = torch.optim.AdamW(correction.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(scaled) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(scaled)).split(BATCH):
            error = torch.sigmoid(logit[rows] + correction(scaled[rows]))[:, 0] - wanted[rows]
            optimizer.zero_grad()
            (error.abs().mean() + SQUARED * error.square().mean()).backward()
            optimizer.step()
            schedule.step()
    return _of_plain_inputs(correction.requires_grad_(False), mean, deviation)


def _of_plain_inputs(correction: nn.Sequential, mean: Tensor, deviation: Tensor) -> nn.Sequential:
    """The same function of inputs that are not scaled."""
    first = cast(nn.Linear, correction[0])
    first.weight.div_(deviation)
    first.bias.sub_(first.weight @ mean)
    return correction
