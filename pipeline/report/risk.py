"""Risk and coverage: keep the surest masks only, and how bad are those on average?

By ground truth where it is given, else by people's verdicts on randomly chosen masks where there are enough, else by
the result's own quality estimates, which is what one expects, not what was measured. The curve says which it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.dataset.result import Result
from pipeline.errors import RefusedError
from pipeline.evaluation import inputs, pairing
from pipeline.evaluation.measures import measure
from pipeline.evaluation.scores import risk_coverage
from pipeline.report.survey import BINS
from pipeline.storage import Access

POINTS = 20
ENOUGH_VERDICTS = 20


class Curve(NamedTuple):
    """coverage and risk: (points,) shares, coverage rising to 1. `basis`: where the risk comes from, for people."""

    coverage: npt.NDArray[np.float64]
    risk: npt.NDArray[np.float64]
    basis: str
    risk_name: str


class Truth(NamedTuple):
    """What ground truth says: mean IoU of what came in and of the masks kept, and the curve."""

    masks: int
    coarse_iou: float
    mask_iou: float
    curve: Curve | None


def by_truth(result: Result, ground_truth: str, access: Access) -> Truth:
    """Raises RefusedError when the truth shares no mask with the result."""
    truths = inputs.read_truth(ground_truth, access)
    ids = {truth.annotation_id for truth in truths}
    pairs = pairing.pair(truths, inputs.read_predictions(result.store.uri, ids, access)).pairs if ids else []
    if not pairs:
        raise RefusedError(f"{ground_truth} has no mask whose id is a source_mask_id of {result.store.uri}")
    measures = measure(pairs)
    iou = measures.sides["mask"].iou
    quality = np.array([pair.prediction.scores.get("quality", np.nan) for pair in pairs])
    known = np.isfinite(quality)
    curve = None
    if known.any():
        points = risk_coverage(quality[known], iou[known], POINTS)
        basis = f"measured on {int(known.sum()):,} masks with ground truth"
        curve = Curve(points.coverage, points.risk, basis, "mean 1 − IoU")
    coarse = measures.sides.get("coarse")
    return Truth(len(pairs), float(coarse.iou.mean()) if coarse else float("nan"), float(iou.mean()), curve)


def by_verdicts(judged: list[dict[str, Any]]) -> Curve | None:
    """From judged masks ({quality, wrong, random}); None where fewer than ENOUGH_VERDICTS of them were drawn at random.

    wrong: the person rejected the mask, or found the other of the two better than the one that was kept.
    """
    drawn = [row for row in judged if row["random"] and row["quality"] is not None]
    if len(drawn) < ENOUGH_VERDICTS:
        return None
    quality = np.array([row["quality"] for row in drawn], np.float64)
    wrong = np.array([row["wrong"] for row in drawn], np.float64)
    points = risk_coverage(quality, 1 - wrong, POINTS)
    basis = f"by {len(drawn)} verdicts on randomly chosen masks"
    return Curve(points.coverage, points.risk, basis, "share judged wrong")


def by_estimate(histogram: npt.NDArray[np.int64], calibration_id: str | None) -> Curve | None:
    """From (BINS,) counts of quality; None where no mask has one."""
    total = int(histogram.sum())
    if not total:
        return None
    counts = histogram[::-1].astype(np.float64)
    middles = (np.arange(BINS)[::-1] + 0.5) / BINS
    kept, lost = np.cumsum(counts), np.cumsum(counts * (1 - middles))
    coverage = np.arange(1, POINTS + 1) / POINTS
    at = np.searchsorted(kept, coverage * total - 1e-9)
    basis = f"expected from the result’s own quality estimate ({calibration_id}), not measured"
    return Curve(coverage, lost[at] / kept[at], basis, "mean 1 − quality")
