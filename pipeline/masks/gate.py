"""Estimates where nothing was calibrated, and the gate: which of two masks to train on, and why.

They run when parts are sealed, so new thresholds need no model. Calibrated estimates: `calibration/apply.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from schemas.config import Gate

UNCALIBRATED = "uncalibrated-1"
"""calibration_id of `formula`, which no ground truth was fitted to."""

Scores = Mapping[str, Any]
"""Score components by name; None or NaN where a refiner does not know one."""


STABLE = 0.5
"""Of `stability` and the agreement of rounds, looks and trials, where nothing was calibrated: below it the model's own
answers do not hold together, and what it says of its mask is no ground to take it. SAM itself drops proposals below
0.95."""


class Quality(NamedTuple):
    """Estimates in [0, 1] of the IoU with the truth."""

    coarse: float
    refined: float


class Decision(NamedTuple):
    """`decision` is refined, kept_coarse or review; `reason` a key of errors.REASONS; `kept` the side to train on."""

    decision: str
    reason: str
    kept: Literal["coarse", "refined"]


def formula(predicted_iou: Any, stability: Any, coarse_iou: Any) -> tuple[Any, Any]:
    """Uncalibrated quality of coarse and refined, of floats or of arrays: monotone in what the model says.

    refined: predicted IoU, lowered by up to a tenth where the logits are unstable.
    coarse:  if the refined mask is right with that quality, the coarse one can be no better than its IoU with it.
    """
    refined = predicted_iou * (0.9 + 0.1 * stability)
    return refined * coarse_iou, refined


def decide(scores: Scores, quality: Quality, gate: Gate, margin: float, calibrated: bool = True) -> Decision:
    """Whether the refined mask replaces the coarse one, and why.

    margin: by how much the refined mask's estimate must exceed the coarse one's. Where even the better of the two is
    estimated below `gate.review_below`, it is kept for now and a person should look. Estimates that are not known (NaN)
    decide nothing. calibrated: whether the estimates were fitted to a truth. Where not, an answer that does not hold
    together keeps the coarse mask, and so does a review: a model may be sure of noise.
    """
    if scores["area_ratio"] == 0:
        return Decision("kept_coarse", "refined_empty", "coarse")
    if scores["coarse_iou"] == 1.0:
        return Decision("refined", "unchanged", "refined")
    if not gate.enabled:
        return Decision("refined", "improved", "refined")
    ratio = max(scores["area_ratio"], 1 / scores["area_ratio"])
    if scores["coarse_iou"] < gate.min_coarse_iou or ratio > gate.max_area_ratio:
        return Decision("kept_coarse", "refined_ran_away", "coarse")
    if scores["main_share"] < gate.min_main_share:
        return Decision("kept_coarse", "refined_shattered", "coarse")
    if not calibrated and _falls_apart(scores):
        return Decision("kept_coarse", "refined_unstable", "coarse")
    return _compare(quality, gate, margin, calibrated)


def _falls_apart(scores: Scores) -> bool:
    """Whether small changes of threshold, round, view or box make another mask; what is not known does not count."""
    found = (scores.get(name) for name in ("stability", "iteration_iou", "look_iou", "trial_iou"))
    return any(value is not None and value < STABLE for value in found)


def _compare(quality: Quality, gate: Gate, margin: float, calibrated: bool) -> Decision:
    if quality.refined - quality.coarse < margin:
        found = Decision("kept_coarse", "refined_less_certain", "coarse")
    else:
        found = Decision("refined", "improved", "refined")
    if getattr(quality, found.kept) < gate.review_below:
        return Decision("review", "both_uncertain", found.kept if calibrated else "coarse")
    return found


def tenth(quality: float) -> str:
    """The upper end of the tenth of [0, 1] that a quality lies in: "0.1", ..., "1.0"; 0 goes with the first.

    Taken of the float32 that the shards hold, so that sealing and reading agree.
    """
    return f"{max(1, math.ceil(round(10 * float(np.float32(quality)), 5))) / 10:.1f}"
