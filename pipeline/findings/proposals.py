"""Objects that no mask covers: what a promptable model finds where there is no mask. Pure but for the model.

Segment Anything's automatic mask generation prompts with a grid of points. Here the model is asked about each region
that masks leave free, as a rough mask with its box and its innermost point; and, since what is around all objects is
one region, about windows of several sizes that slide over what is free, each answer once more by its own box: an
object is what comes back. What the model is sure of, and is not there already, is a candidate for a person; nothing
adds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks import binary
from pipeline.masks.binary import Mask, Rle
from pipeline.masks.frames import PROMPT_SIDE, FloatArray, Frame, tight_box_xyxy
from pipeline.models import MaskModel, PromptBatch, frame_for

WINDOWS = (0.5, 0.3, 0.18)
"""Sides of windows, in the longer side of the image; each moves by half of its side."""

UNCOVERED = 0.5  # of a window's pixels, for it to be looked at
GAP = 0.006  # in the longer side of the image: what is narrower between masks is their outlines, and no region
LEAST_CERTAIN = 0.5  # predicted IoU times stability times the share that is free; of windows, times how alike both are
LEAST_SHARE, LARGEST_SHARE = 0.002, 0.5  # of the image
COVERED = 0.3  # of a proposal's pixels under masks: it is none of what they miss
SAME = 0.5  # IoU of two proposals of one object
OFFSET = 1.0  # of the logits, by which stability cuts higher and lower
PROMPT_LOGIT = 8.0  # of a region as a mask prompt
MOST = 24  # answers to windows of an image that are asked again, the most certain ones
BATCH = 64


class Proposal(NamedTuple):
    """A mask that may be missing, and how certain the model is of it."""

    rle: Rle
    certainty: float


class _Answer(NamedTuple):
    """mask (side, side) bool and logits (side, side) float32, in the model's square."""

    certainty: float
    mask: npt.NDArray[np.bool_]
    logits: FloatArray


class _Square(NamedTuple):
    """What of the model's square is image, and what of that masks cover: (side, side) bool."""

    inside: npt.NDArray[np.bool_]
    covered: npt.NDArray[np.bool_]


def proposals(model: MaskModel, embedding: Any, size_hw: tuple[int, int], masks: Sequence[Mask]) -> list[Proposal]:
    """Of image 0 of an embedding, the most certain first. masks: all that the image has, (H, W) each, crowds too."""
    frame, side = frame_for(model, size_hw), model.mask_side
    taken = np.zeros(size_hw, np.uint8)
    for mask in masks:
        taken |= mask
    square = _Square(frame.field_to_mask(np.ones(size_hw), side) > 0.5, frame.field_to_mask(taken, side) > 0.5)
    of_regions = _asked(model, embedding, _of_regions(frame, side, free_regions(taken)), square)
    of_windows = _asked(model, embedding, _of_boxes(frame.box_to_prompt(windows(size_hw, taken))), square)
    again = _asked_again(model, embedding, _best(of_windows)[:MOST], square)
    kept = _best([*of_regions, *again])
    return [Proposal(binary.encode(frame.logits_to_image(one.logits) > 0), round(one.certainty, 4)) for one in kept]


def windows(size_hw: tuple[int, int], taken: Mask) -> FloatArray:
    """(N, 4) boxes (x1, y1, x2, y2) in pixels, inclusive, of which masks cover no more than a part."""
    height, width = size_hw
    total = np.pad(taken, ((1, 0), (1, 0))).astype(np.int64).cumsum(0).cumsum(1)
    found = []
    for share in WINDOWS:
        side = max(8, round(share * max(size_hw)))
        for top in range(0, max(1, height - side // 2), max(1, side // 2)):
            for left in range(0, max(1, width - side // 2), max(1, side // 2)):
                bottom, right = min(height, top + side), min(width, left + side)
                under = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
                if under <= (1 - UNCOVERED) * (bottom - top) * (right - left):
                    found.append((left, top, right - 1, bottom - 1))
    return np.array(found, np.float32).reshape(-1, 4)


def free_regions(taken: Mask) -> list[Mask]:
    """(H, W) {0, 1} -> connected regions without a mask that are of an object's size."""
    radius = max(1, round(GAP * max(taken.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    free = cv2.morphologyEx(1 - taken, cv2.MORPH_OPEN, disc)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
    areas = statistics[:, cv2.CC_STAT_AREA] / taken.size
    return [(labels == one).astype(np.uint8) for one in range(1, count) if LEAST_SHARE <= areas[one] <= LARGEST_SHARE]


def _of_boxes(boxes: FloatArray) -> PromptBatch:
    """(N, 4) of the prompt frame."""
    return PromptBatch(np.zeros(len(boxes), np.int64), None, None, boxes, None, None)


def _of_regions(frame: Frame, side: int, regions: Sequence[Mask]) -> PromptBatch:
    """Each as a mask, with its box and the point that is farthest from its outline."""
    if not regions:
        return _of_boxes(np.zeros((0, 4), np.float32))
    fields = np.stack([frame.field_to_mask(region, side) for region in regions])
    points = frame.points_to_prompt([[_innermost(region)] for region in regions])
    boxes = frame.box_to_prompt([tight_box_xyxy(region) or (0, 0, 0, 0) for region in regions])
    logits = np.where(fields > 0.5, PROMPT_LOGIT, -PROMPT_LOGIT).astype(np.float32)
    numbers = np.zeros(len(regions), np.int64)
    return PromptBatch(numbers, points, np.ones((len(regions), 1), np.int64), boxes, logits, fields)


def _innermost(region: Mask) -> tuple[int, int]:
    """(x, y) in pixels."""
    away = cv2.distanceTransform(np.pad(region, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(away.argmax()), away.shape)
    return int(x), int(y)


def _asked(model: MaskModel, embedding: Any, prompts: PromptBatch, square: _Square) -> Iterator[_Answer]:
    """The best answer to each prompt, where it is of an object's size, and little of it is under masks."""
    pixels = np.count_nonzero(square.inside)
    for start in range(0, len(prompts), BATCH):
        candidates = model.predict(embedding, prompts.take(np.arange(start, min(len(prompts), start + BATCH))))
        best = candidates.predicted_iou.argmax(axis=1)
        for logits, sure in zip(
            candidates.logits[np.arange(len(best)), best], candidates.predicted_iou.max(axis=1), strict=True
        ):
            mask = (logits > 0) & square.inside
            area, under = np.count_nonzero(mask), np.count_nonzero(mask & square.covered)
            if LEAST_SHARE * pixels <= area <= LARGEST_SHARE * pixels and under <= COVERED * area:
                certainty = float(sure) * binary.iou(logits > OFFSET, logits > -OFFSET) * (1 - under / area)
                yield _Answer(certainty, mask, logits)


def _asked_again(model: MaskModel, embedding: Any, found: Sequence[_Answer], square: _Square) -> Iterator[_Answer]:
    """Answers to the boxes of answers; as much less certain as they differ from the one that is most like them."""
    scale = PROMPT_SIDE / square.inside.shape[0]
    boxes = [tight_box_xyxy(one.mask.astype(np.uint8)) or (0, 0, 0, 0) for one in found]
    prompts = np.array([[x1, y1, x2 + 1, y2 + 1] for x1, y1, x2, y2 in boxes], np.float32).reshape(-1, 4) * scale
    for answer in _asked(model, embedding, _of_boxes(prompts), square):
        alike = max(binary.iou(one.mask, answer.mask) for one in found)
        yield answer._replace(certainty=answer.certainty * alike)


def _best(answers: Iterator[_Answer] | Sequence[_Answer]) -> list[_Answer]:
    """The certain ones, the most certain first; of those of one object the first."""
    kept: list[_Answer] = []
    for one in sorted(answers, key=lambda one: -one.certainty):
        if one.certainty >= LEAST_CERTAIN and all(binary.iou(one.mask, other.mask) < SAME for other in kept):
            kept.append(one)
    return kept
