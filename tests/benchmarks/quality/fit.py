"""Everything that is fitted for `lite`: estimators of quality, the gate's margin, calibrations.

Estimators are fitted to the train and the seen rows, where photographs were exchanged among them: how scores go with
IoU is much the same on photographs that the model was fitted to, and there are six times as many. Maps and margin are
fitted to dev-A, whose truth is exact. Boosted trees are small and heavily smoothed: what they learn has to hold for
damage that they never saw.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from pipeline.calibration.apply import Floats, distribution, estimate_side, raw_estimate
from pipeline.calibration.fit import DRIFT_SCORES, MARGINS, NO_GUARANTEE, Sample, fit_map, named, with_promises
from schemas.calibration import Calibration, Estimator, Side, Tree, method_key
from schemas.config import Gate, Method
from tests.benchmarks.quality.collect import Row

TRUE_KEPT = 0.986  # IoU of masks that came in right, on average; the promise is 0.985, the rest is reserve
SIDES: tuple[Side, Side] = ("coarse", "refined")
FEATURES = [
    "predicted_iou",
    "stability",
    "expected_iou",
    "coarse_expected_iou",
    "look_iou",
    "outline_logit",
    "colour_iou",
    "coarse_colour_iou",
    "coarse_iou",
    "log_area_ratio",
    "boundary_contrast",
    "coarse_boundary_contrast",
    "contrast_gain",
    "expected_gain",
]
"""Evidence from image and scores. Nothing of the outline's style: no counts of pieces or holes."""


def as_sample(rows: Sequence[Row]) -> Sample:
    """Measured rows as what calibrations are fitted to."""
    return Sample(
        [row["scores"] for row in rows],
        np.array([row["true_coarse"] for row in rows]),
        np.array([row["true_refined"] for row in rows]),
        np.array([row["image"] for row in rows]),
    )


def without(rows: Sequence[Row], kinds: Collection[str]) -> list[Row]:
    """The rows that none of the kinds of damage touched."""
    return [row for row in rows if not set(kinds) & set(row["kinds"])]


def fit_estimators(rows: Sequence[Row]) -> dict[Side, Estimator]:
    """Boosted trees for either side, on the features that these rows have."""
    sample = as_sample(rows)
    known = {name: sample.columns[name] for name in FEATURES}
    features = [name for name, values in known.items() if np.isfinite(values).all() and np.ptp(values) > 0]
    table = np.stack([sample.columns[name] for name in features], axis=1).astype(np.float32)
    fitted = {}
    for side in SIDES:
        trees = GradientBoostingRegressor(
            n_estimators=300,
            learning_rate=0.03,
            max_depth=3,
            min_samples_leaf=max(5, len(rows) // 50),
            subsample=0.6,
            max_features=0.3,
            random_state=0,
        )
        fitted[side] = as_estimator(trees.fit(table, sample.iou(side)), features)
    return fitted


def fit_calibration(
    train: Sequence[Row], seen: Sequence[Row], dev_a: Sequence[Row], method: Method, name: str = "lite"
) -> Calibration:
    """Estimators from the train and the seen rows; maps, margin and bounds from dev-A."""
    estimators = fit_estimators([*train, *seen])
    sample = as_sample(dev_a)
    maps = {
        side: fit_map(raw_estimate(sample.columns, estimator, side), sample.iou(side))
        for side, estimator in estimators.items()
    }
    fitted = Calibration(
        calibration_id="unnamed",
        note=f"fitted to photographs that are not yours: {NO_GUARANTEE}",
        method_key=method_key(method),
        fitted_on={"train_masks": len(train), "seen_masks": len(seen), "dev_a_masks": len(dev_a)},
        estimators=estimators,
        maps=maps,
        drift={score: distribution(sample.columns[score]) for score in DRIFT_SCORES},
    )
    return with_margin(fitted, dev_a, name)


def with_margin(fitted: Calibration, dev_a: Sequence[Row], name: str) -> Calibration:
    """A calibration with its margin and its bounds from dev-A, and a new id; estimators and maps stay."""
    sample = as_sample(dev_a)
    gain = estimate_side(sample.columns, fitted, "refined") - estimate_side(sample.columns, fitted, "coarse")
    fitted = fitted.model_copy(update={"margin": trusting_margin(gain, dev_a)})
    promised = with_promises(fitted, sample, Gate(), ious=(), share=0.9, confidence=0.9)
    return named(promised.model_copy(update={"certificates": [], "confidence": None}), name)


def trusting_margin(estimated: Floats, rows: Sequence[Row]) -> float:
    """The least margin at which masks that were right stay so: the model is trusted as far as that allows.

    estimated: (N,) gain of each row. A margin that only harms few of the damaged masks would throw away most of what
    there is to gain on masks that are good already, a detector's for one.
    """
    true = np.array([row["kinds"] == ["true"] for row in rows])
    if not true.any():
        raise ValueError("the margin is read from true masks, and there are none")
    refined = np.array([row["true_refined"] for row in rows])[true]
    kept = [np.where(estimated[true] >= margin, refined, 1.0).mean() for margin in MARGINS]
    good = np.flatnonzero(np.array(kept) >= TRUE_KEPT)
    return float(MARGINS[good[0]]) if good.size else float(MARGINS[-1])


def as_estimator(fitted: Any, features: list[str]) -> Estimator:
    """A fitted GradientBoostingRegressor (squared error) as trees that JSON can hold."""
    trees = []
    for [one] in fitted.estimators_:
        tree = one.tree_
        leaf = tree.children_left < 0
        trees.append(
            Tree(
                feature=np.where(leaf, -1, tree.feature).tolist(),
                threshold=np.where(leaf, 0, tree.threshold).round(5).tolist(),
                left=np.where(leaf, 0, tree.children_left).tolist(),
                right=np.where(leaf, 0, tree.children_right).tolist(),
                value=(fitted.learning_rate * tree.value[:, 0, 0] * leaf).round(5).tolist(),
            )
        )
    return Estimator(features=features, base=float(fitted.init_.constant_.ravel()[0]), trees=trees)
