"""Figures over measured rows: means of the two sources, paired intervals, what a gate did, what a score knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibration.apply import judge
from pipeline.evaluation.scores import calibration_error, spearman
from schemas.calibration import Calibration
from schemas.config import Gate
from tests.benchmarks.quality.collect import Row

Floats = npt.NDArray[np.float64]
SOURCES = ("COCO_MVal", "PennFudan")
RESAMPLES = 2000
HARM = 0.02


@dataclass(frozen=True)
class Table:
    """N masks as columns. `area`: of the true mask in pixels; `kept_*` is what the gate chose, with its `quality`;
    boundary IoUs beside IoUs."""

    mask_id: npt.NDArray[np.str_]
    image: npt.NDArray[np.str_]
    source: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    area: Floats
    coarse: Floats
    refined: Floats
    coarse_boundary: Floats
    refined_boundary: Floats
    kept: Floats
    kept_boundary: Floats
    took: npt.NDArray[np.bool_]
    quality: Floats
    predicted_iou: Floats

    def take(self, rows: npt.NDArray[np.bool_]) -> Table:
        """The masks at `rows`."""
        return Table(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def of(self, kind: str) -> Table:
        """The masks of one kind."""
        return self.take(self.kind == kind)


def table(rows: Sequence[Row], calibration: Calibration | None, gate: Gate | None = None) -> Table:
    """Rows with what a calibration's estimates and gate make of them. Without a gate every mask is refined."""
    judged = judge([row["scores"] for row in rows], gate or Gate(enabled=False), calibration)
    took = np.array([one.decision.kept == "refined" for one in judged], bool)

    def column(name: str) -> Floats:
        return np.array([row[name] for row in rows], np.float64)

    coarse, refined, edge, refined_edge = (
        column(name) for name in ("true_coarse", "true_refined", "boundary_coarse", "boundary_refined")
    )
    predicted = [row["scores"]["predicted_iou"] for row in rows]
    return Table(
        mask_id=np.array([row["mask_id"] for row in rows]),
        image=np.array([row["image"] for row in rows]),
        source=np.array([row["source"] for row in rows]),
        kind=np.array([row["kinds"][0] for row in rows]),
        area=column("area"),
        coarse=coarse,
        refined=refined,
        coarse_boundary=edge,
        refined_boundary=refined_edge,
        kept=np.where(took, refined, coarse),
        kept_boundary=np.where(took, refined_edge, edge),
        took=took,
        quality=np.array([one.kept for one in judged]),
        predicted_iou=np.array([np.nan if value is None else value for value in predicted], np.float64),
    )


def by_source(masks: Table, values: Floats) -> tuple[float, ...]:
    """Mean over COCO, over Penn-Fudan, and the mean of the two."""
    means = [float(values[masks.source == source].mean()) for source in SOURCES]
    return (*means, float(np.mean(means)))


def mean(masks: Table, values: Floats) -> float:
    """Mean of the two sources' means."""
    return by_source(masks, values)[-1]


def interval(masks: Table, values: Floats) -> tuple[float, float]:
    """95 % bootstrap interval of `mean`: images are drawn again within their source."""
    rng, draws = np.random.default_rng(0), np.zeros(RESAMPLES)
    for source in SOURCES:
        chosen = masks.source == source
        _, index = np.unique(masks.image[chosen], return_inverse=True)
        sums, counts = np.bincount(index, weights=values[chosen]), np.bincount(index)
        picks = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
        draws += sums[picks].sum(axis=1) / counts[picks].sum(axis=1) / len(SOURCES)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def points(value: float) -> str:
    """A difference in points."""
    return f"{100 * value:+.1f}"


def with_interval(masks: Table, values: Floats) -> str:
    """Mean difference in points with its interval."""
    low, high = interval(masks, values)
    return f"{points(mean(masks, values))} [{points(low)}, {points(high)}]"


def kept_share(masks: Table) -> float:
    """How much of the ungated mean gain in IoU the gate keeps; NaN where there is no gain."""
    return _share(masks, masks.coarse, masks.refined, masks.kept)


def kept_boundary_share(masks: Table) -> float:
    """The same in boundary IoU."""
    return _share(masks, masks.coarse_boundary, masks.refined_boundary, masks.kept_boundary)


def _share(masks: Table, coarse: Floats, refined: Floats, kept: Floats) -> float:
    ungated = mean(masks, refined - coarse)
    return mean(masks, kept - coarse) / ungated if ungated > 0 else float("nan")


def harmed(masks: Table) -> float:
    """Share of masks, sources pooled, that what was kept made worse by more than two points."""
    return float(np.mean(masks.kept < masks.coarse - HARM))


def rank_correlation(masks: Table, score: Floats) -> float:
    """Spearman of a score with the kept mask's IoU, within each source, averaged."""
    found = [spearman(score[masks.source == s], masks.kept[masks.source == s]) for s in SOURCES]
    return float(np.nanmean(found))


def error_with_interval(masks: Table, score: Floats) -> str:
    """Expected calibration error of the pooled masks, with a 95 % bootstrap interval by image."""
    rng = np.random.default_rng(0)
    images, index = np.unique(masks.image, return_inverse=True)
    members = [np.flatnonzero(index == number) for number in range(len(images))]
    draws = []
    for _ in range(300):
        rows = np.concatenate([members[number] for number in rng.integers(len(images), size=len(images))])
        draws.append(calibration_error(score[rows], masks.kept[rows]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{calibration_error(score, masks.kept):.3f} [{low:.3f}, {high:.3f}]"
