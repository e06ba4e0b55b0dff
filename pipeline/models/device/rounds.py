"""Prompt, decode, choose the best candidate, prompt again from it: for N masks at once, until they are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.masks.canvas import PROMPTED_CELLS, Patch
from pipeline.masks.frames import Frame
from pipeline.models.device.canvas import FAR, Canvases, Edges, Frames
from pipeline.models.device.prompts import Shown, prompts_of
from pipeline.models.device.transfer import Fetched, PromptTensors, prompt_tensors, sent
from pipeline.models.device.verdict import NAMES, Coarse, Looks, Pictures, judged
from pipeline.models.protocol import Asked, Found

Decode = Callable[[PromptTensors], tuple[Tensor, Tensor]]
"""Prompts -> logits (N, C, s, s) and predicted IoU (N, C), float32, without waiting for the device."""


class Rounds(NamedTuple):
    """After some rounds, of N masks: the last answer that is counted, the one before, and how many were counted.

    A mask that vanished is not prompted again: its answer stays.
    """

    logits: Tensor  # (N, s, s)
    predicted_iou: Tensor  # (N,)
    previous: Tensor  # (N, s, s)
    counted: Tensor  # (N,) int64
    sound: Tensor  # (N,) bool: all that the model returned is finite


@torch.inference_mode()
def look(decode: Decode, decode_mirrored: Decode | None, squares: Tensor, asked: Asked) -> Pending:
    """All rounds of a decoder batch, the mirror image if there is one, and its verdict. See protocol.MaskModel.look.

    squares: (B, S, S, 3) uint8, the encoder batch's images.
    """
    device = squares.device
    first, frames = prompt_tensors(asked.prompts, device), _frames(asked.frames, device)
    reads_coarse = first.coarse is not None
    shown = Shown(asked.points, asked.box, asked.mask, reads_coarse, asked.form, asked.gamma, asked.strength)
    rounds = _first(*decode(first))
    for _ in range(asked.iterations - 1):
        rounds = _next(rounds, *decode(prompts_of(rounds.logits, frames, first.image_index, shown)))
    logits, predicted, sound = [rounds.logits], [rounds.predicted_iou], rounds.sound
    if decode_mirrored is not None and asked.mirrored is not None:
        there = prompt_tensors(asked.mirrored, device)
        if asked.iterations > 1:
            later = prompts_of(rounds.previous, frames, first.image_index, shown, mirrored=True)
            there = _chosen(rounds.counted > 1, later, there)
        answer = _first(*decode_mirrored(there))
        logits.append(answer.logits)
        predicted.append(answer.predicted_iou)
        sound = sound & answer.sound
    looks = Looks(torch.stack(logits), torch.stack(predicted), None)
    found = {"logits": looks.logits, "predicted_iou": looks.predicted_iou, "sound": sound}
    if asked.iterations > 1:
        found |= {"previous": rounds.previous, "counted": rounds.counted}
        looks = looks._replace(previous=(rounds.previous, rounds.counted > 1))
    if asked.judged:
        pictures = Pictures(squares, first.image_index)
        margin_px = sent(np.array(asked.margin_px, np.float64), device)
        found["scores"] = judged(looks, _coarse(asked.coarse, device), pictures, frames, margin_px)
    return Pending(Fetched(found))


class Pending:
    """Answers that are being computed. `found` waits for them, in whatever thread."""

    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched

    def found(self) -> Found:
        """See protocol.Found."""
        return self._found

    @cached_property
    def _found(self) -> Found:
        values = self._fetched.values()
        scores = values.get("scores")
        return Found(
            values["logits"],
            values["predicted_iou"],
            bool(values["sound"].all()),
            values.get("previous"),
            values.get("counted"),
            None if scores is None else [dict(zip(NAMES, map(float, row), strict=True)) for row in scores],
        )


def _first(logits: Tensor, predicted_iou: Tensor) -> Rounds:
    sound = logits.isfinite().flatten(1).all(1) & predicted_iou.isfinite().all(1)
    best = predicted_iou.argmax(1)
    chosen = logits.gather(1, best[:, None, None, None].expand(-1, 1, *logits.shape[2:]))[:, 0]
    predicted = predicted_iou.gather(1, best[:, None])[:, 0]
    return Rounds(chosen, predicted, chosen, torch.ones_like(best), sound)


def _next(before: Rounds, logits: Tensor, predicted_iou: Tensor) -> Rounds:
    now = _first(logits, predicted_iou)
    alive = (before.logits > 0).flatten(1).any(1)
    return Rounds(
        torch.where(alive[:, None, None], now.logits, before.logits),
        torch.where(alive, now.predicted_iou, before.predicted_iou),
        torch.where(alive[:, None, None], before.logits, before.previous),
        before.counted + alive,
        before.sound & now.sound,
    )


def _chosen(which: Tensor, one: PromptTensors, other: PromptTensors) -> PromptTensors:
    """`one` where `which` (N,) is true, else `other`."""

    def of(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.where(which.view(-1, *[1] * (a.ndim - 1)), a, b)

    return PromptTensors(one.image_index, *(of(a, b) for a, b in zip(one[1:], other[1:], strict=True)))


def _frames(frames: Sequence[Frame], device: torch.device) -> Frames:
    both = np.array([[frame.size_hw, frame.input_hw] for frame in frames], np.float64)
    size, within = sent(both.transpose(1, 0, 2), device).unbind(0)
    return Frames(size, within, frames[0].input_side)


def _coarse(patches: Sequence[Patch], device: torch.device) -> Coarse:
    """Masks go over in bits, on canvases of PROMPTED_CELLS a side."""
    masks = np.zeros((len(patches), PROMPTED_CELLS, PROMPTED_CELLS), bool)
    for row, patch in enumerate(patches):
        masks[row, : patch.canvas.height, : patch.canvas.width] = patch.mask
    bits = sent(np.packbits(masks, axis=2), device)
    weights = sent(np.array([128, 64, 32, 16, 8, 4, 2, 1], np.uint8), device)
    numbers = sent(np.array([_numbers(patch) for patch in patches], np.float64), device)
    corner, count, first, last = numbers[:, :8].unflatten(1, (4, 2)).unbind(1)
    unpacked = ((bits[..., None] & weights) != 0).flatten(2)
    return Coarse(unpacked, Canvases(corner, count, numbers[:, 8], PROMPTED_CELLS), Edges(first, last))


def _numbers(patch: Patch) -> list[int]:
    """Corner, cells, first and last pixel (y before x), pixels of a cell."""
    canvas = patch.canvas
    x1, y1, x2, y2 = canvas.window
    edges = [y1, x1, y2, x2] if patch.mask.size else [FAR, FAR, -FAR, -FAR]
    return [canvas.y, canvas.x, canvas.height, canvas.width, *edges, canvas.cell]
