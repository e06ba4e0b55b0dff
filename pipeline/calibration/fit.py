"""Fitting a calibration to masks whose true IoU is known. Needs scikit-learn; `calibration/apply.py` does without.

Images are split in two by the hash of their id. On one half are fitted: the maps (isotonic regression of the true IoU
on a base's estimates, one for either side) and the gate's margin. The other half, which nothing was fitted to, says how
far the estimates are off, and what can be certified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from pipeline.calibration.apply import (
    LOWER_FLOOR,
    Columns,
    Floats,
    Row,
    columns_of,
    distribution,
    estimate_side,
    judge,
    raw_estimate,
)
from pipeline.calibration.certificates import DEFAULT_CONFIDENCE, DEFAULT_IOUS, DEFAULT_SHARE, certify
from pipeline.errors import RefusedError
from pipeline.evaluation.scores import calibration_error
from schemas.calibration import Calibration, Map, Side, method_key
from schemas.config import Gate, Method, digest

FEWEST_MASKS = 30
KNOT_MASKS = 25  # masks behind each knot of a map, at least
MOST_KNOTS = 12
LOWER_SHARE = 0.9
MARGINS = np.round(np.arange(-0.05, 0.1001, 0.0025), 4)
HARM = 0.02
MOST_HARMED = 0.045  # share of masks; the promise is 0.05, the rest is reserve
DRIFT_SCORES = ("predicted_iou", "stability", "expected_iou", "coarse_expected_iou", "coarse_iou", "boundary_contrast")
NO_GUARANTEE = "no guarantee on your data: `relabel calibrate` fits one to a sample of them"


@dataclass(frozen=True)
class Sample:
    """N refined masks whose truth is known: their rows (score columns), true IoU of either side, image; (N,) each."""

    rows: Sequence[Row]
    coarse_iou: Floats
    refined_iou: Floats
    image: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def columns(self) -> Columns:
        """The score columns and what is derived from them."""
        return columns_of(self.rows)

    def take(self, chosen: npt.NDArray[np.bool_]) -> Sample:
        """The masks for which `chosen` (N,) holds."""
        rows = [row for row, wanted in zip(self.rows, chosen, strict=True) if wanted]
        return Sample(rows, self.coarse_iou[chosen], self.refined_iou[chosen], self.image[chosen])

    def iou(self, side: Side) -> Floats:
        """True IoU of one side."""
        return self.coarse_iou if side == "coarse" else self.refined_iou


def calibrate(
    sample: Sample,
    base: Calibration | None,
    method: Method,
    gate: Gate,
    *,
    ious: Sequence[float] = DEFAULT_IOUS,
    share: float = DEFAULT_SHARE,
    confidence: float = DEFAULT_CONFIDENCE,
) -> Calibration:
    """A calibration on top of a base's estimators (of the fixed formula without one). Raises RefusedError."""
    known = np.isfinite(raw_estimate(sample.columns, None, "refined"))
    sample = sample.take(known)
    first = first_half(sample.image)
    if min(first.sum(), (~first).sum()) < FEWEST_MASKS:
        raise RefusedError(
            f"too few masks to calibrate: {len(sample)} with a quality and a known truth, in {len(set(sample.image))} "
            f"images; needed are at least {FEWEST_MASKS} in either half of the images"
        )
    fitted = fit_maps(sample.take(first), base, method)
    return with_promises(fitted, sample.take(~first), gate, ious=ious, share=share, confidence=confidence)


def fit_maps(sample: Sample, base: Calibration | None, method: Method) -> Calibration:
    """Maps for both sides, the margin of the gate, and how the scores are distributed."""
    estimators = base.estimators if base else {}
    sides: tuple[Side, Side] = ("coarse", "refined")
    maps = {side: fit_map(raw_estimate(sample.columns, estimators.get(side), side), sample.iou(side)) for side in sides}
    fitted = Calibration(
        calibration_id="unnamed",
        note="fitted to the ground truth of a sample; it says nothing about masks of another kind",
        method_key=method_key(method),
        fitted_on={"base": base.calibration_id if base else "formula"},
        estimators=estimators,
        maps=maps,
        drift={name: distribution(sample.columns[name]) for name in DRIFT_SCORES},
    )
    gain = estimate_side(sample.columns, fitted, "refined") - estimate_side(sample.columns, fitted, "coarse")
    return fitted.model_copy(update={"margin": fit_margin(gain, sample.refined_iou - sample.coarse_iou)})


def with_promises(
    fitted: Calibration, sample: Sample, gate: Gate, *, ious: Sequence[float], share: float, confidence: float
) -> Calibration:
    """The calibration with what a sample that it was not fitted to shows, and its final id."""
    judged = judge(sample.rows, gate, fitted)
    quality = np.array([one.kept for one in judged])
    refined = np.array([one.decision.kept == "refined" for one in judged])
    iou = np.where(refined, sample.refined_iou, sample.coarse_iou)
    _, image = np.unique(sample.image, return_inverse=True)
    shown = fitted.model_copy(
        update={
            "lower_scale": fit_lower_scale(quality, iou),
            "lower_share": LOWER_SHARE,
            "confidence": confidence,
            "certificates": certify(quality, iou, image, ious=ious, share=share, confidence=confidence),
            "fitted_on": {
                **fitted.fitted_on,
                "masks": len(sample),
                "images": len(set(sample.image)),
                "calibration_error": round(calibration_error(quality, iou), 4),
            },
        }
    )
    return named(shown)


def named(calibration: Calibration, prefix: str = "calibrated") -> Calibration:
    """With an id that is the hash of its content."""
    content = calibration.model_dump(mode="json", exclude={"calibration_id"})
    return calibration.model_copy(update={"calibration_id": f"{prefix}-{digest(content)[:12]}"})


def first_half(image: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """(N,) whether a mask's image belongs to the half that is fitted to: by the hash of its id, so it never changes."""
    return np.array([hashlib.sha256(f"calibrate {name}".encode()).digest()[0] % 2 == 0 for name in image], bool)


def fit_map(raw: Floats, iou: Floats) -> Map:
    """A rising piecewise linear map: isotonic regression, read at the means of bins of equal mass, through (0, 0) and
    (1, 1), so that it neither jumps nor is flat beyond the data."""
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw, iou)
    order = np.argsort(raw, kind="stable")
    bins = np.array_split(order, int(np.clip(len(raw) // KNOT_MASKS, 2, MOST_KNOTS)))
    smooth = isotonic.predict(raw)
    score = [0.0, *(float(raw[rows].mean()) for rows in bins), 1.0]
    value = [0.0, *(float(smooth[rows].mean()) for rows in bins), 1.0]
    return Map(score=np.maximum.accumulate(score).tolist(), iou=np.maximum.accumulate(value).tolist())


def fit_margin(estimated: Floats, gain: Floats) -> float:
    """The margin that keeps most of the gain while at most MOST_HARMED of the masks lose more than HARM; (N,) each.

    Where no margin does, the one that harms fewest.
    """
    harmed = np.array([np.mean((estimated >= margin) & (gain < -HARM)) for margin in MARGINS])
    kept = np.array([np.sum(gain[estimated >= margin]) for margin in MARGINS])
    allowed = harmed <= MOST_HARMED
    best = int(np.argmax(np.where(allowed, kept, -np.inf))) if allowed.any() else int(np.argmin(harmed))
    return float(MARGINS[best])


def fit_lower_scale(quality: Floats, iou: Floats) -> float:
    """The scale s for which a share of LOWER_SHARE of the masks lie above quality - s * (1 - quality + LOWER_FLOOR).

    Split conformal: the rank is raised by one mask, so that the share holds for one more mask of the same kind.
    """
    shortfall = np.sort((quality - iou) / (1 - quality + LOWER_FLOOR))
    rank = int(np.ceil(LOWER_SHARE * (len(shortfall) + 1)))
    return float(max(0.0, shortfall[min(rank, len(shortfall)) - 1]))
