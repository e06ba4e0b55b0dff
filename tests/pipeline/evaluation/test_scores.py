"""Score measures against scipy and scikit-learn, and on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from pipeline.evaluation import scores
from pipeline.evaluation.measures import Floats

# coarse steps make ties frequent
VALUES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=12, max_size=60).map(
    lambda pairs: np.array(pairs, dtype=np.float64).T / 9
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_spearman_and_auroc_are_those_of_scipy_and_scikit_learn(values: Floats) -> None:
    score, iou = values
    if np.ptp(score) and np.ptp(iou):
        assert scores.spearman(score, iou) == pytest.approx(spearmanr(score, iou).statistic)
    bad = iou < 0.8
    if 0 < bad.sum() < len(bad):
        assert scores.auroc(score, iou) == pytest.approx(roc_auc_score(bad, -score))


@settings(max_examples=60, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_nothing_depends_on_row_order(values: Floats, random: object) -> None:
    order = np.random.default_rng(random.randint(0, 9)).permutation(values.shape[1])  # type: ignore[attr-defined]
    (score, iou), (score_2, iou_2) = values, values[:, order]
    assert scores.calibration_error(score, iou) == pytest.approx(scores.calibration_error(score_2, iou_2))
    one, other = scores.risk_coverage(score, iou), scores.risk_coverage(score_2, iou_2)
    np.testing.assert_allclose(one.risk, other.risk)
    assert one.area == pytest.approx(other.area)
    assert one.ideal <= one.area + 1e-12


def test_constant_scores_know_nothing() -> None:
    score, iou = np.full(10, 0.5), np.linspace(0, 1, 10)
    assert np.isnan(scores.spearman(score, iou))
    assert scores.auroc(score, iou) == 0.5
    assert scores.calibration_error(score, iou) == pytest.approx(0.0)  # right on average: one bin


def test_calibration_error_in_bins_of_equal_mass() -> None:
    # 20 masks, two to a bin; scores promise 0.1 too much in the five upper bins and are right below
    iou = np.linspace(0.0, 0.9, 20)
    score = iou + np.where(np.arange(20) >= 10, 0.1, 0.0)
    bins = scores.reliability(score, iou)
    assert bins.masks.tolist() == [2] * 10
    np.testing.assert_allclose(bins.score - bins.iou, [0.0] * 5 + [0.1] * 5, atol=1e-12)
    assert bins.error == pytest.approx(0.05)


def test_risk_falls_with_coverage_for_a_perfect_score() -> None:
    iou = np.array([1.0, 0.8, 0.6, 0.4])
    curve = scores.risk_coverage(iou, iou, points=4)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0.0, 0.1, 0.2, 0.3])
    assert curve.area == curve.ideal == pytest.approx(0.15)
    worst = scores.risk_coverage(-iou, iou, points=4)
    np.testing.assert_allclose(worst.risk, [0.6, 0.5, 0.4, 0.3])


def test_risk_of_tied_scores_is_their_mean() -> None:
    curve = scores.risk_coverage(np.array([0.5, 0.5]), np.array([1.0, 0.0]), points=2)
    np.testing.assert_allclose(curve.risk, [0.5, 0.5])
