"""Does a score know the IoU? Everything here takes a score (N,) and the true IoU (N,), both in [0, 1].

Ties are treated as ties: masks with one score share a rank, a bin and a risk, so no figure depends on row order.

The bootstrap computes these for every resample, where the overhead of `scipy.stats.spearmanr` and scikit-learn's
`roc_auc_score` would outweigh the work; the tests compare with both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.measures import Floats, Integers

GOOD_IOU = 0.8  # AUROC: can the score tell the masks below this from the others?
BINS = 10


def average_ranks(values: Floats) -> Floats:
    """(N,) ranks from 1 to N; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(score: Floats, iou: Floats) -> float:
    """Rank correlation in [-1, 1]; NaN when either is constant."""
    first, second = average_ranks(score), average_ranks(iou)
    if len(score) < 2 or not (np.ptp(first) and np.ptp(second)):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def auroc(score: Floats, iou: Floats, good_iou: float = GOOD_IOU) -> float:
    """Chance that a mask with IoU < `good_iou` scores below a good one, ties counting half; NaN without both."""
    bad = iou < good_iou
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    if not n_bad or not n_good:
        return float("nan")
    ranks_of_good = average_ranks(score)[~bad].sum()
    return float((ranks_of_good - n_good * (n_good + 1) / 2) / (n_bad * n_good))


@dataclass(frozen=True)
class Reliability:
    """Bins of equal mass by score, lowest first; arrays (bins,). Fewer than BINS where ties fill several."""

    score: Floats
    iou: Floats
    masks: Integers

    @property
    def error(self) -> float:
        """Expected calibration error: mean |mean score - mean IoU| of a bin, weighted by its masks."""
        return float(np.average(np.abs(self.score - self.iou), weights=self.masks))


def reliability(score: Floats, iou: Floats, bins: int = BINS) -> Reliability:
    """Mean score and mean IoU in `bins` bins of equal mass; masks of equal score are in one bin."""
    number = np.floor((average_ranks(score) - 0.5) / len(score) * bins).astype(np.int64)
    count = np.bincount(number, minlength=bins)
    filled = count > 0

    def mean(values: Floats) -> Floats:
        return np.bincount(number, weights=values, minlength=bins)[filled] / count[filled]

    return Reliability(mean(score), mean(iou), count[filled].astype(np.int64))


def calibration_error(score: Floats, iou: Floats) -> float:
    """Expected calibration error in 10 bins of equal mass. Small samples raise it: even a perfect score has some."""
    return reliability(score, iou).error


@dataclass(frozen=True)
class RiskCoverage:
    """Keep the best-scored masks: how bad are they on average? Arrays (points,), coverage rising to 1.

    coverage   share of masks that are kept
    risk       mean 1 - IoU of those
    area       mean risk over all coverages (N of them); lower is better
    ideal      the same for a score that sorts by the true IoU: what cannot be beaten
    """

    coverage: Floats
    risk: Floats
    area: float
    ideal: float


def risk_coverage(score: Floats, iou: Floats, points: int = 20) -> RiskCoverage:
    """The curve, read at `points` evenly spaced coverages."""
    risk = _running_risk(score, iou)
    kept = np.ceil(np.arange(1, points + 1) / points * len(score)).astype(np.int64)
    ideal = _running_risk(iou, iou)
    return RiskCoverage(kept / len(score), risk[kept - 1], float(risk.mean()), float(ideal.mean()))


def _running_risk(score: Floats, iou: Floats) -> Floats:
    """(N,) mean 1 - IoU of the n best-scored masks, n = 1 ... N; masks of equal score each count as their mean."""
    _, group = np.unique(-score, return_inverse=True)  # groups in falling order of score
    count = np.bincount(group)
    mean_risk = np.bincount(group, weights=1 - iou) / count
    running: Floats = np.cumsum(np.repeat(mean_risk, count)) / np.arange(1, len(score) + 1)
    return running
