"""Several views of one object, and their fusion: the whole image, a crop around the object, their mirror images; and
several answers to one view, which vote.

A crop shows the model the object at its full resolution (as BPR and CascadePSP do for boundaries); a mirror image is
the same evidence seen by other weights. Where views agree their mean is better than each, and how far they agree tells
how good it is. Pure functions; asking the model is `samrefiner.py`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.masks.binary import Mask, box_around, iou
from pipeline.masks.canvas import JUDGED_CELLS, Canvas, Window, canvas_of, sampled, support
from pipeline.masks.frames import FloatArray, Frame
from pipeline.masks.scores import expected_iou, stability

AROUND_RATIO = 0.1  # of the longer side of both masks' box
OUTLINE_PX = 3  # of the model's input
SMALLEST_MARGIN_PX = 8
NO_CLOSER_SHARE = 0.9
"""A crop whose long side is a larger share of the image's would show nothing closer, and is not taken."""

PUSHED_SHARE = 0.1  # of the side that a box is pushed along
PUSHED_MOST = 1 / 64  # of the image's longer side: 10 of COCO's 640 pixels
PUSHED_SEED = 2024

Scores = dict[str, float]


class View(NamedTuple):
    """The model's answer to one view. `logits` (mask_side, mask_side) float32 in the square of `frame`, which shows
    `window` of the image, mirrored or not. trial_iou: where trials voted for them, how far they agreed (`voted`)."""

    window: Window
    frame: Frame
    mirrored: bool
    logits: FloatArray
    predicted_iou: float
    trial_iou: float | None = None


class Judged(NamedTuple):
    """A refined mask, and what images and logits say of it and of the coarse one (schemas/records.py, SCORES)."""

    refined: Mask
    scores: Scores


def object_window(
    box_xyxy: tuple[int, int, int, int], size_hw: tuple[int, int], ratio: float, below: float = 0.0
) -> Window | None:
    """A mask's tight box (inclusive, in an image (H, W)), its sides `ratio` times as long, cut at the image border.

    None where the crop would show the object hardly larger than the whole image does, and where the box's longer side
    is not below that share of the image's (0: any is).
    """
    (x1, y1, x2, y2), (height, width) = box_xyxy, size_hw
    if below and max(x2 - x1 + 1, y2 - y1 + 1) >= below * max(height, width):
        return None
    margin_x = max(SMALLEST_MARGIN_PX, round((x2 - x1 + 1) * (ratio - 1) / 2))
    margin_y = max(SMALLEST_MARGIN_PX, round((y2 - y1 + 1) * (ratio - 1) / 2))
    left, top = max(0, x1 - margin_x), max(0, y1 - margin_y)
    right, bottom = min(width, x2 + 1 + margin_x), min(height, y2 + 1 + margin_y)
    if max(right - left, bottom - top) > NO_CLOSER_SHARE * max(height, width):
        return None
    return left, top, right, bottom


def pushed_boxes(box_xyxy: tuple[int, int, int, int], size_hw: tuple[int, int], trials: int) -> FloatArray:
    """Boxes around a tight box (inclusive), each side pushed outward at random: (trials, 4) float32 image pixels.

    A side moves by the absolute value of a normal deviate, whose standard deviation is the smaller of PUSHED_SHARE of
    the box and PUSHED_MOST of the image (as in COCO-ReM), but not past the border of an image (H, W). The same box has
    the same ones, and of many trials the first are those of few.
    """
    draws = np.random.RandomState([PUSHED_SEED, *box_xyxy])  # numpy keeps this generator's stream as it is
    sides = np.array([box_xyxy[2] - box_xyxy[0] + 1, box_xyxy[3] - box_xyxy[1] + 1])
    spread = np.minimum(PUSHED_SHARE * sides, PUSHED_MOST * max(size_hw))
    outward = np.abs(draws.standard_normal((trials, 4))) * np.concatenate([-spread, spread])
    last = np.tile(np.array(size_hw[::-1]) - 1, 2)
    return np.asarray(np.clip(box_xyxy + outward, 0, last), np.float32)


def judged_on(
    windows: Sequence[Window], size_hw: tuple[int, int], margin_ratio: float = 0.0, margin_px: int = 0
) -> Canvas:
    """The canvas on which a refined mask is made and scored: all of `windows`, and what is around them.

    windows: of whatever is compared, at least one. The margin is the wider of AROUND_RATIO of the longer side, and
    `margin_ratio` of it and `margin_px` together.
    """
    x1, y1 = (min(window[side] for window in windows) for side in (0, 1))
    x2, y2 = (max(window[side] for window in windows) for side in (2, 3))
    longer = max(x2 - x1, y2 - y1)
    margin = 1 + int(max(AROUND_RATIO * longer, margin_ratio * longer + margin_px))
    return canvas_of((x1 - margin, y1 - margin, x2 + margin, y2 + margin), size_hw, JUDGED_CELLS)


def seen_window(view: View, above: float) -> Window | None:
    """The window of the image outside of which a view's logits are nowhere above a value; None: nowhere."""
    found = support(view.logits, view.frame, above)
    if found is None:
        return None
    x1, y1, x2, y2 = found
    left, top, right, _ = view.window
    x1, x2 = (right - left - x2, right - left - x1) if view.mirrored else (x1, x2)
    return left + x1, top + y1, left + x2, top + y2


def cut(values: npt.NDArray[np.uint8], window: Window) -> npt.NDArray[np.uint8]:
    """The window of (H, W) or (H, W, 3) `values`."""
    x1, y1, x2, y2 = window
    return np.ascontiguousarray(values[y1:y2, x1:x2])


def crop_pixels(
    pixels: npt.NDArray[np.uint8], window: Window, size_hw: tuple[int, int], input_hw: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """A window of an image (H, W), as its pixels (h, w, 3) have it: theirs where they are the image's own; of a
    reduction (`input_hw`, 3), since a window's sides are no whole pixels there."""
    if pixels.shape[:2] == size_hw:
        return cut(pixels, window)
    x_scale, y_scale = pixels.shape[1] / size_hw[1], pixels.shape[0] / size_hw[0]
    x1, y1, x2, y2 = window[0] * x_scale, window[1] * y_scale, window[2] * x_scale, window[3] * y_scale
    left, top = int(x1), int(y1)
    part = Image.fromarray(cut(pixels, (left, top, math.ceil(x2), math.ceil(y2))))
    box = (x1 - left, y1 - top, min(x2 - left, part.width), min(y2 - top, part.height))
    return np.asarray(part.resize(input_hw[::-1], Image.Resampling.BILINEAR, box), np.uint8)


def mirrored(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, 3) `values`, left and right exchanged."""
    return np.ascontiguousarray(values[:, ::-1])


def voted(answers: FloatArray) -> tuple[FloatArray, float]:
    """What several answers to one view come to, and how far they agree: the mean IoU of its mask with theirs.

    answers: (T, mask_side, mask_side) float32 logits. Their median, (mask_side, mask_side) float32, is above 0 where
    most of them are: it stands for the majority of their masks, and can be fused with other views.
    """
    median = np.asarray(np.median(answers, axis=0), np.float32)
    vote = (median > 0).astype(np.uint8)
    return median, float(np.mean([iou(vote, (answer > 0).astype(np.uint8)) for answer in answers]))


def fuse(views: Sequence[View], canvas: Canvas) -> tuple[FloatArray, list[Mask]]:
    """Mean logits of the views that see a cell, (h, w) float32 of the canvas, and each view's own mask, (h, w) uint8.

    The first view sees the whole image.
    """
    size_hw = canvas.height, canvas.width
    total, count = np.zeros(size_hw, np.float32), np.zeros(size_hw, np.float32)
    own: list[Mask] = []
    for view in views:
        mask = np.zeros(size_hw, np.uint8)
        own.append(mask)
        rows, columns = canvas.cells(view.window)
        if not mask[rows, columns].size:
            continue  # a window between the centres of two cells
        field = _field(view, canvas.part(rows, columns))
        total[rows, columns] += field
        count[rows, columns] += 1
        mask[rows, columns] = field > 0
    return np.asarray(total / np.maximum(count, 1), np.float32), own


def _field(view: View, canvas: Canvas) -> FloatArray:
    """A view's logits on a canvas that lies in its window."""
    left, top, right, _ = view.window
    x = right - canvas.x - canvas.width * canvas.cell if view.mirrored else canvas.x - left
    field = sampled(view.logits, view.frame, canvas._replace(x=x, y=canvas.y - top))
    return field[:, ::-1] if view.mirrored else field


def evidence(
    views: Sequence[View], own: Sequence[Mask], fused: FloatArray, canvas: Canvas, coarse: Mask, refined: Mask
) -> Scores:
    """What the model's answers say about the refined and the coarse mask, both (h, w) uint8 (schemas/records.py).

    views, own, fused: as given to and returned by `fuse`. Probabilities are taken around the two masks only, so
    that a wide background of small chances does not count.
    """
    either = coarse | refined
    around = box_around(either, margin_px=round(AROUND_RATIO * max(cv2.boundingRect(either)[2:])))
    probability = np.asarray(1 / (1 + np.exp(-np.clip(fused[around], -30, 30))), np.float32)
    of_trials = {} if views[0].trial_iou is None else {"trial_iou": views[0].trial_iou}
    return of_trials | {
        "predicted_iou": float(np.mean([np.clip(view.predicted_iou, 0, 1) for view in views])),
        "stability": float(np.mean([stability(view.logits) for view in views])),
        "expected_iou": expected_iou(refined[around], probability),
        "coarse_expected_iou": expected_iou(coarse[around], probability),
        "look_iou": _agreement(refined, own, views, canvas),
        "outline_logit": _outline_logit(fused[around], refined[around], outline_cells(views[0].frame, canvas.cell)),
    }


def outline_cells(frame: Frame, cell: int) -> int:
    """OUTLINE_PX of the model's input in cells of so many image pixels, at least 1."""
    return max(1, round(frame.to_image_px(OUTLINE_PX) / cell))


def _outline_logit(fused: FloatArray, refined: Mask, radius: int) -> float:
    """Mean distance of the logits from 0 within `radius` of a mask's outline: high where the edge is sharp."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    band = (cv2.dilate(refined, kernel) - cv2.erode(refined, kernel)) > 0
    return float(np.abs(fused[band]).mean()) if band.any() else 0.0


def _agreement(mask: Mask, own: Sequence[Mask], views: Sequence[View], canvas: Canvas) -> float:
    """Mean IoU of a mask with each view's own, compared where that view sees; 1 for a single view."""
    if len(own) < 2:
        return 1.0
    seen = [canvas.cells(view.window) for view in views]
    return float(np.mean([iou(mask[cells], other[cells]) for cells, other in zip(seen, own, strict=True)]))
