"""Score components of a mask, which need no ground truth.

They are computed while masks are decoded and stored raw in the parts. What is made of them when parts are sealed:
`gate.py`, and `calibration/apply.py`.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks import binary
from pipeline.masks.binary import Mask
from pipeline.masks.canvas import JUDGED_CELLS, Canvas, Patch
from pipeline.masks.frames import FloatArray

STABILITY_OFFSET = 1.0
CONTRAST_RADIUS_PX = 3
OF_THE_MODEL = (
    "predicted_iou",
    "stability",
    "expected_iou",
    "coarse_expected_iou",
    "look_iou",
    "outline_logit",
)
"""Score components that only a model with logits can give."""


def shape_scores(
    pixels: npt.NDArray[np.uint8], coarse: Mask, refined: Mask, previous: Mask | None = None
) -> dict[str, float]:
    """The score components that need no model (schemas/records.py, SCORES).

    pixels: (h, w, 3) uint8 RGB at any size; the rest as in `region_scores`.
    """
    return region_scores(coarse, refined, previous) | contrasts(pixels, coarse, refined)


def region_scores(coarse: Mask, refined: Mask, previous: Mask | None = None) -> dict[str, float]:
    """Those that need no image either.

    coarse, refined: uint8, both (H, W) of the image or (h, w) of a canvas; previous: the mask of the round before the
    last, None where there was only one.
    """
    pieces, coarse_pieces = binary.component_areas(refined), binary.count_components(coarse)
    return {
        "coarse_iou": binary.iou(refined, coarse),
        "iteration_iou": 1.0 if previous is None else binary.iou(refined, previous),
        "area_ratio": int(refined.sum(dtype=np.int64)) / max(1, int(coarse.sum(dtype=np.int64))),
        "components": len(pieces),
        "coarse_components": coarse_pieces,
        "main_share": sum(pieces[:coarse_pieces]) / max(1, sum(pieces)),
        "holes": binary.count_holes(refined),
    }


def contrasts(pixels: npt.NDArray[np.uint8], coarse: Mask, refined: Mask) -> dict[str, float]:
    """`boundary_contrast` of both masks, under the names of their columns."""
    return {
        "boundary_contrast": boundary_contrast(pixels, refined),
        "coarse_boundary_contrast": boundary_contrast(pixels, coarse),
    }


def contrasts_on(
    pixels: npt.NDArray[np.uint8], size_hw: tuple[int, int], canvas: Canvas, coarse: Mask, refined: Mask
) -> dict[str, float]:
    """As `contrasts`, of masks (h, w) on a canvas of the image (H, W) of which `pixels` are a reduction, or all."""
    scale_y, scale_x = pixels.shape[0] / size_hw[0], pixels.shape[1] / size_hw[1]
    x1, y1, x2, y2 = canvas.window
    top, bottom = int(y1 * scale_y), min(pixels.shape[0], int(np.ceil(y2 * scale_y)))
    left, right = int(x1 * scale_x), min(pixels.shape[1], int(np.ceil(x2 * scale_x)))
    step = -(-max(bottom - top, right - left) // JUDGED_CELLS)
    top, left = top // step * step, left // step * step
    height, width = max(1, (bottom - top) // step), max(1, (right - left) // step)
    part = np.ascontiguousarray(pixels[top : top + height * step, left : left + width * step])
    if step > 1:
        part = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    rows = np.floor((top + (np.arange(height) + 0.5) * step - 0.5) / scale_y)
    columns = np.floor((left + (np.arange(width) + 0.5) * step - 0.5) / scale_x)
    box = (0, 0, 0, 0)
    return contrasts(part, *(Patch(canvas, mask, box).at(rows, columns) for mask in (coarse, refined)))


def expected_iou(mask: Mask, probability: FloatArray) -> float:
    """IoU of a mask with the truth if every pixel's probability is right: sum(p in mask) / sum(max(p, mask)).

    Both (h, w). 0 for an empty mask.
    """
    inside = mask > 0
    union = float(np.where(inside, 1, probability).sum(dtype=np.float64))
    return float(probability[inside].sum(dtype=np.float64)) / union if inside.any() else 0.0


def stability(logits: FloatArray) -> float:
    """IoU of the masks cut at +1 and at -1 logits; 0 for a mask that is empty at either cut.

    As segment-anything's `calculate_stability_score`.
    """
    low = int(np.count_nonzero(logits > -STABILITY_OFFSET))
    return int(np.count_nonzero(logits > STABILITY_OFFSET)) / low if low else 0.0


def boundary_contrast(pixels: npt.NDArray[np.uint8], mask: Mask) -> float:
    """Mean colour distance between the two sides of the outline, in [0, 1]; 0 for a mask without an outline.

    At each outline pixel: the mean colours of mask and non-mask within CONTRAST_RADIUS_PX, their Euclidean distance
    over the largest possible one. The mask is brought to the size of `pixels` (h, w, 3) first.
    """
    height, width = pixels.shape[:2]
    if mask.shape != (height, width):
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0 or h == 0:
        return 0.0
    pad = 2 * CONTRAST_RADIUS_PX
    rows, columns = slice(max(0, y - pad), y + h + pad), slice(max(0, x - pad), x + w + pad)
    inside, colours = mask[rows, columns], pixels[rows, columns]
    outline = binary.boundary(inside, 1) > 0
    kernel = (2 * CONTRAST_RADIUS_PX + 1,) * 2

    def total(values: npt.NDArray[np.uint8]) -> FloatArray:
        return np.asarray(cv2.boxFilter(values, cv2.CV_32F, kernel, normalize=False), np.float32)

    inner_weight = total(inside)
    outer_weight = kernel[0] * kernel[1] - inner_weight
    # Where the window holds no background (the outline is the image's border) there is nothing to compare with.
    at = np.flatnonzero(outline & (outer_weight > 0))
    if not at.size:
        return 0.0
    inner = total(cv2.bitwise_and(colours, cv2.merge([255 * inside] * 3))).reshape(-1, 3)[at]
    outer = total(colours).reshape(-1, 3)[at] - inner
    difference = inner / inner_weight.reshape(-1, 1)[at] - outer / outer_weight.reshape(-1, 1)[at]
    return float(np.linalg.norm(difference, axis=1).mean() / (255 * np.sqrt(3)))
