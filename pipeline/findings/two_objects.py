"""Whether a mask holds two objects: a promptable model is asked about its halves and about the whole. Pure but for the
model.

Two objects that touch have no gap that would tell of them. So the model is shown a point in each half and the half's
box, with a point of the other half as background, and once both points and the whole box. Where it is sure of two
answers that are the halves, and less of one that is the whole, there are two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.findings.proposals import innermost
from pipeline.masks import binary
from pipeline.masks.binary import Mask
from pipeline.masks.frames import Frame, tight_box_xyxy
from pipeline.models import MaskModel, PromptBatch, frame_for

SMALLEST_PX, SMALLEST_HALF_PX = 200, 50
MOST_PX = 4000  # by which halves are told
ROUNDS, ATTEMPTS = 20, 3
MASKS = 16  # asked about at once

Halves = tuple[Mask, Mask]
Floats = npt.NDArray[np.float64]


def splits(model: MaskModel, embedding: Any, size_hw: tuple[int, int], masks: Sequence[Mask]) -> list[float | None]:
    """Of image 0 of an embedding: for each mask, (H, W) {0, 1}, how much better two answers fit it than one, -1 .. 1;
    None for one that is too small to say.
    """
    frame, told = frame_for(model, size_hw), list[float | None]([None] * len(masks))
    asked = [(number, pair) for number, mask in enumerate(masks) if (pair := halves(mask)) is not None]
    for start in range(0, len(asked), MASKS):
        some = asked[start : start + MASKS]
        pairs = [pair for _, pair in some]
        for (number, _), better in zip(some, _better(model, embedding, frame, pairs), strict=True):
            told[number] = float(better)
    return told


def halves(mask: Mask) -> Halves | None:
    """The pixels nearer to one of two centres than to the other: of its two largest pieces, where the second is of like
    size, else by 2-means. None where it, or a half, is too small.
    """
    if np.count_nonzero(mask) < SMALLEST_PX:
        return None
    ys, xs = np.nonzero(mask)
    pixels = np.stack([ys, xs], axis=1).astype(np.float32)
    near, far = _of_pieces(mask) or _of_pixels(pixels)
    is_first = np.hypot(*(pixels - near).T) < np.hypot(*(pixels - far).T)
    first = np.zeros_like(mask)
    first[ys[is_first], xs[is_first]] = 1
    if min(np.count_nonzero(is_first), np.count_nonzero(~is_first)) < SMALLEST_HALF_PX:
        return None
    return first, mask - first


def _of_pieces(mask: Mask) -> tuple[Floats, Floats] | None:
    """Centres (y, x) of the two largest pieces."""
    _, _, statistics, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    if len(areas) < 2 or areas[order[1]] < areas[order[0]] / 4:
        return None
    first, second = (centres[1 + place][::-1] for place in order[:2])
    return first, second


def _of_pixels(pixels: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Centres (y, x) of two clusters. The same for the same pixels."""
    some = pixels[:: -(-len(pixels) // MOST_PX)]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, ROUNDS, 0.5)
    _, _, centres = cv2.kmeans(some, 2, None, stop, ATTEMPTS, cv2.KMEANS_PP_CENTERS)
    return centres[0], centres[1]


def _better(model: MaskModel, embedding: Any, frame: Frame, pairs: Sequence[Halves]) -> Floats:
    """(N,) how sure the model is of two answers, as far as they are the halves, less the same of one and the whole."""
    wholes = [first + second for first, second in pairs]
    answers, sure = _answers(model, embedding, frame, pairs, wholes)
    parts = [(first, second, whole) for (first, second), whole in zip(pairs, wholes, strict=True)]
    side = model.mask_side
    fits = np.array(
        [
            [binary.iou(frame.field_to_mask(part.astype(np.float32), side) > 0.5, answer > 0) for part, answer in three]
            for three in (zip(part, answer, strict=True) for part, answer in zip(parts, answers, strict=True))
        ]
    )
    two = sure[:, :2].min(axis=1) * fits[:, :2].min(axis=1)
    return np.asarray(two - sure[:, 2] * fits[:, 2])


def _answers(
    model: MaskModel, embedding: Any, frame: Frame, pairs: Sequence[Halves], wholes: Sequence[Mask]
) -> tuple[npt.NDArray[np.float32], Floats]:
    """For each pair the logits (3, side, side) of first half, second half and whole, and (3,) predicted IoU."""
    points, boxes = [], []
    for (first, second), whole in zip(pairs, wholes, strict=True):
        one, other = innermost(first), innermost(second)
        points += [[one, other], [other, one], [one, other]]
        boxes += [tight_box_xyxy(part) or (0, 0, 0, 0) for part in (first, second, whole)]
    labels = np.array([[1, 0], [1, 0], [1, 1]] * len(pairs), np.int64)
    numbers = np.zeros(len(boxes), np.int64)
    prompts = PromptBatch(numbers, frame.points_to_prompt(points), labels, frame.box_to_prompt(boxes), None, None)
    candidates = model.predict(embedding, prompts)
    best = candidates.predicted_iou.argmax(axis=1)
    logits = candidates.logits[np.arange(len(best)), best]
    sure = candidates.predicted_iou.max(axis=1)
    return logits.reshape(len(pairs), 3, *logits.shape[1:]), sure.reshape(len(pairs), 3).astype(float)
