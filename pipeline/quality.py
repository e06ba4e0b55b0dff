"""What can be told about a mask without knowing the truth: score components, quality, and the gate.

Score components are computed while the masks are decoded and stored raw in the parts. `estimate` and `decide` run
when parts are sealed, so new thresholds need no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline import masks
from pipeline.geometry import FloatArray
from pipeline.masks import Mask
from schemas.config import Gate

STABILITY_OFFSET = 1.0
CONTRAST_RADIUS_PX = 3
UNCALIBRATED = "uncalibrated-1"
"""calibration_id of the formula in `estimate`, which no ground truth was fitted to."""

Scores = Mapping[str, Any]
"""Score components by name; None or NaN where a refiner does not know one."""


class Quality(NamedTuple):
    """Estimates in [0, 1] of the IoU with the truth."""

    coarse: float
    refined: float


class Decision(NamedTuple):
    """`decision` is refined or kept_coarse; `reason` a key of errors.REASONS."""

    decision: str
    reason: str


def score(
    pixels: npt.NDArray[np.uint8],
    coarse: Mask,
    refined: Mask,
    previous: Mask,
    logits: FloatArray,
    predicted_iou: float,
) -> dict[str, float]:
    """Score components of one refined mask (schemas/records.py, SCORES).

    pixels: (h, w, 3) uint8 RGB at any size; coarse, refined, previous: (H, W) uint8 in original pixels; logits: the
    chosen candidate's, (mask_side, mask_side) float32; empty where the model never ran.
    """
    pieces, coarse_pieces = masks.component_areas(refined), masks.component_areas(coarse)
    return {
        "predicted_iou": float(np.clip(predicted_iou, 0, 1)),
        "stability": stability(logits),
        "coarse_iou": masks.iou(refined, coarse),
        "iteration_iou": masks.iou(refined, previous) if previous is not coarse else 1.0,
        "area_ratio": int(refined.sum(dtype=np.int64)) / max(1, int(coarse.sum(dtype=np.int64))),
        "boundary_contrast": boundary_contrast(pixels, refined),
        "coarse_boundary_contrast": boundary_contrast(pixels, coarse),
        "components": len(pieces),
        "coarse_components": len(coarse_pieces),
        "main_share": sum(pieces[: len(coarse_pieces)]) / max(1, sum(pieces)),
        "holes": masks.count_holes(refined),
    }


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
    inside = mask[rows, columns].astype(np.float32)
    colours = pixels[rows, columns].astype(np.float32)
    outline = masks.boundary(mask[rows, columns], 1) > 0
    kernel = (2 * CONTRAST_RADIUS_PX + 1,) * 2

    def mean(weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        total = cv2.boxFilter(weight, -1, kernel, normalize=False)
        return cv2.boxFilter(colours * weight[..., None], -1, kernel, normalize=False), total

    inner, inner_weight = mean(inside)
    outer, outer_weight = mean(1 - inside)
    # Where the window holds no background (the outline is the image's border) there is nothing to compare with.
    outline &= outer_weight > 0.5
    if not outline.any():
        return 0.0
    difference = inner[outline] / inner_weight[outline][:, None] - outer[outline] / outer_weight[outline][:, None]
    return float(np.linalg.norm(difference, axis=1).mean() / (255 * np.sqrt(3)))


def estimate(scores: Scores) -> Quality:
    """Uncalibrated quality: a documented combination, monotone in what the model says.

    refined: predicted IoU, lowered by up to a tenth where the logits are unstable.
    coarse:  if the refined mask is right with that quality, the coarse one can be no better than its IoU with it.
    Both are NaN where the refiner does not predict an IoU.
    """
    if scores["predicted_iou"] is None or math.isnan(scores["predicted_iou"]):
        return Quality(coarse=math.nan, refined=math.nan)
    refined = scores["predicted_iou"] * (0.9 + 0.1 * scores["stability"])
    return Quality(coarse=float(refined * scores["coarse_iou"]), refined=float(refined))


def decide(scores: Scores, quality: Quality, gate: Gate) -> Decision:
    """Whether the refined mask replaces the coarse one, and why."""
    if scores["area_ratio"] == 0:
        return Decision("kept_coarse", "refined_empty")
    if scores["coarse_iou"] == 1.0:
        return Decision("refined", "unchanged")
    if not gate.enabled:
        return Decision("refined", "improved")
    ratio = max(scores["area_ratio"], 1 / scores["area_ratio"])
    if scores["coarse_iou"] < gate.min_coarse_iou or ratio > gate.max_area_ratio:
        return Decision("kept_coarse", "refined_ran_away")
    if scores["main_share"] < gate.min_main_share:
        return Decision("kept_coarse", "refined_shattered")
    if quality.refined - quality.coarse < gate.min_quality_gain:
        return Decision("kept_coarse", "refined_less_certain")
    return Decision("refined", "improved")
