"""Quality as a calibration has it: from the score components of many masks to estimates of their IoU, and their drift.

Pure: rows of a part go in, numbers come out; no scikit-learn (that is for fitting, `calibration/fit.py`), no torch. A
calibration's estimators, maps and bins are described in `schemas/calibration.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.masks import gate as mask_gate
from pipeline.masks.gate import Decision, Quality
from schemas.calibration import Calibration, Distribution, Estimator, Map, Side, Tree
from schemas.config import Gate
from schemas.records import SCORES

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Floats]
"""Score components by name, (N,) each; NaN where a refiner does not know one."""

LOWER_FLOOR = 0.05
DRIFT_LIMIT = 0.25
"""Population stability index above which two distributions are commonly called different."""
DRIFT_FEWEST_MASKS = 200
DRIFT_BINS = 10
SMALLEST_SHARE = 1e-3  # an empty bin must not make the index infinite

Row = Mapping[str, Any]

DERIVED: dict[str, Callable[[Columns], Floats]] = {
    "log_area_ratio": lambda columns: np.abs(np.log(np.maximum(columns["area_ratio"], 1e-3))),
    "contrast_gain": lambda columns: columns["boundary_contrast"] - columns["coarse_boundary_contrast"],
    "expected_gain": lambda columns: columns["expected_iou"] - columns["coarse_expected_iou"],
}
"""Features that are made of score columns."""


def columns_of(rows: Sequence[Row]) -> dict[str, Floats]:
    """Score columns of masks that were refined, and what is derived from them."""
    found: dict[str, Floats] = {
        name: np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)
        for name, _ in SCORES
    }
    return found | {name: make(found) for name, make in DERIVED.items()}


def estimate_all(columns: Columns, calibration: Calibration | None) -> list[Quality]:
    """Estimates for every mask; by the fixed formula `quality.formula` without a calibration."""
    coarse, refined = estimate_side(columns, calibration, "coarse"), estimate_side(columns, calibration, "refined")
    return [Quality(float(a), float(b)) for a, b in zip(coarse, refined, strict=True)]


def estimate_side(columns: Columns, calibration: Calibration | None, side: Side) -> Floats:
    """(N,) calibrated estimates in [0, 1] of one side's IoU; NaN where a score that is needed is missing."""
    raw = raw_estimate(columns, calibration.estimators.get(side) if calibration else None, side)
    mapping = calibration.maps.get(side) if calibration else None
    return raw if mapping is None else apply_map(mapping, raw)


def raw_estimate(columns: Columns, estimator: Estimator | None, side: Side) -> Floats:
    """(N,) estimates before the map."""
    if estimator is None:
        coarse, refined = mask_gate.formula(columns["predicted_iou"], columns["stability"], columns["coarse_iou"])
        return np.asarray(coarse if side == "coarse" else refined, np.float64)
    features = np.stack([columns[name] for name in estimator.features], axis=1)
    total = np.full(len(features), estimator.base)
    for tree in estimator.trees:
        total += evaluate_tree(tree, features)
    return np.where(np.isfinite(features).all(axis=1), np.clip(total, 0, 1), np.nan)


def evaluate_tree(tree: Tree, features: Floats) -> Floats:
    """(N, F) -> (N,) the value of the leaf that each row falls into."""
    feature, threshold = np.array(tree.feature), np.array(tree.threshold)
    left, right, value = np.array(tree.left), np.array(tree.right), np.array(tree.value)
    node = np.zeros(len(features), np.int64)
    rows = np.arange(len(features))
    while (inner := feature[node] >= 0).any():
        # as scikit-learn: features are compared in single precision
        goes_left = features[rows, np.maximum(feature[node], 0)].astype(np.float32) <= threshold[node]
        node = np.where(inner, np.where(goes_left, left[node], right[node]), node)
    return value[node]


def apply_map(mapping: Map, raw: Floats) -> Floats:
    """Piecewise linear; NaN stays NaN."""
    return np.interp(raw, mapping.score, mapping.iou)


def lower_bound(estimate: float, calibration: Calibration | None) -> float | None:
    """`quality_lower`: the bound that a share of `lower_share` of the masks lay above; None until calibrated."""
    if calibration is None or calibration.lower_scale is None or not np.isfinite(estimate):
        return None
    return float(np.clip(estimate - calibration.lower_scale * (1 - estimate + LOWER_FLOOR), 0, 1))


def distribution(values: Floats) -> Distribution:
    """Bins of about equal mass; fewer where many values are equal."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, DRIFT_BINS + 1)[1:-1]))
    counts = bin_counts(edges, values)
    return Distribution(edges=edges.tolist(), shares=(counts / counts.sum()).tolist())


def bin_counts(edges: npt.ArrayLike, values: Floats) -> npt.NDArray[np.int64]:
    """How many (finite) values lie in each bin; bins are closed on the right, so equal values stay together."""
    edges = np.asarray(edges, np.float64)
    number = np.searchsorted(edges, values[np.isfinite(values)], side="left")
    return np.bincount(number, minlength=len(edges) + 1)


def drift_counts(columns: Columns, calibration: Calibration | None) -> dict[str, list[int]]:
    """Bin counts of every score whose distribution the calibration knows. They add up over shards."""
    known = calibration.drift if calibration else {}
    return {name: bin_counts(known[name].edges, columns[name]).tolist() for name in known}


def drifted(counts: Mapping[str, Sequence[int]], calibration: Calibration | None) -> dict[str, float]:
    """Population stability index of the scores that have drifted (above DRIFT_LIMIT), the worst first.

    sum((now - then) * ln(now / then)) over the bins. Empty where there are too few masks to tell.
    """
    indices = {}
    for name, known in (calibration.drift if calibration else {}).items():
        now = np.asarray(counts[name], np.float64)
        if now.sum() < DRIFT_FEWEST_MASKS:
            continue
        share = np.maximum(now / now.sum(), SMALLEST_SHARE)
        then = np.maximum(known.shares, SMALLEST_SHARE)
        indices[name] = float(((share - then) * np.log(share / then)).sum())
    found = {name: round(index, 3) for name, index in indices.items() if index > DRIFT_LIMIT}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


class Judgement(NamedTuple):
    """What seal writes of a refined mask beside its scores. `lower` bounds the quality of the kept mask, or is None."""

    decision: Decision
    quality: Quality
    kept: float  # estimate for the mask that was kept
    lower: float | None
    calibration_id: str


def judge(rows: Sequence[Row], gate: Gate, calibration: Calibration | None) -> list[Judgement]:
    """Estimates and decisions of masks that were refined: their rows need the score columns."""
    estimates = estimate_all(columns_of(rows), calibration) if rows else []
    margin = gate.min_quality_gain
    if margin is None:
        margin = calibration.margin if calibration else 0.0
    judged = []
    for row, estimate in zip(rows, estimates, strict=True):
        decision = mask_gate.decide(row, estimate, gate, margin, calibration is not None)
        kept = estimate.refined if decision.kept == "refined" else estimate.coarse
        name = calibration.calibration_id if calibration else mask_gate.UNCALIBRATED
        judged.append(Judgement(decision, estimate, kept, lower_bound(kept, calibration), name))
    return judged
