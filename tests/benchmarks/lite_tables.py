"""Rows of `lite_quality.py` -> the markdown tables of RESULTS.md."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.lite_dev import DEV_KINDS, UNSEEN

if TYPE_CHECKING:
    from tests.benchmarks.lite_quality import Row

SOURCES = ("COCO_MVal", "PennFudan")
RESAMPLES = 2000
IOU_BINS = (0.0, 0.6, 0.7, 0.8, 0.9, 1.01)
SIZES = {"small (< 32²)": (0, 32**2), "medium": (32**2, 96**2), "large (≥ 96²)": (96**2, 1 << 40)}

Floats = npt.NDArray[np.float64]


def tables(rows: list[Row], seconds: dict[str, float]) -> str:
    """Everything as markdown."""
    parts = [kinds_table(rows), controls_table(rows), crop_table(rows)]
    seen = [row for row in rows if row.kind in DEV_KINDS]
    iou_bins = {f"{a:.1f}–{min(b, 1.0):.1f}": (a, b) for a, b in pairwise(IOU_BINS)}
    parts.append(bins_table("coarse IoU", iou_bins, seen, lambda row: row.coarse_iou))
    parts.append(bins_table("object", SIZES, seen, lambda row: row.area))
    parts.append(prediction_table(rows))
    parts.append("\n".join(f"- {name}: {value:.3f}" for name, value in seconds.items()))
    return "\n\n".join(parts)


def kinds_table(rows: list[Row]) -> str:
    """Per kind: IoU and boundary IoU, coarse -> refined, by source and mean, gain with its interval, error removed."""
    lines = [
        "| kind | COCO IoU | Penn-Fudan IoU | mean IoU | gain [95 %] | COCO boundary | Penn-Fudan boundary "
        "| mean boundary | gain [95 %] | error removed |",
        "| --- " * 10 + "|",
    ]
    removed = []
    for kind in (*DEV_KINDS, *UNSEEN, "true", "box"):
        mine = [row for row in rows if row.kind == kind]
        if not mine:
            continue
        cells, gains = [], []
        for coarse, refined in (("coarse_iou", "refined_iou"), ("coarse_boundary", "refined_boundary")):
            before, after = by_source(mine, coarse), by_source(mine, refined)
            cells += [f"{a:.3f} → {b:.3f}" for a, b in zip(before, after, strict=True)]
            low, high = interval(mine, coarse, refined)
            cells.append(f"{after[2] - before[2]:+.3f} [{low:+.3f}, {high:+.3f}]")
            gains.append(1 - (1 - after[2]) / max(1 - before[2], 1e-9))
        if kind in DEV_KINDS:
            removed.append(gains[0])
        share = f"{gains[0]:.1%}" if kind not in {"true", "box"} else ""
        lines.append(f"| {kind} | " + " | ".join(cells) + f" | {share} |")
    lines.append(f"\nError removed, averaged over the five kinds: **{np.mean(removed):.1%}**")
    return "\n".join(lines)


def controls_table(rows: list[Row]) -> str:
    """Gain with the photograph, with grey, with another photograph (mean of the sources, all five kinds)."""
    lines = ["| seen | IoU | gain | share of the real gain |", "| --- " * 4 + "|"]
    real = None
    for name in ("photo", "grey", "other"):
        mine = [row for row in rows if row.kind.startswith(f"{name}:")]
        if not mine:
            continue
        before, after = by_source(mine, "coarse_iou")[2], by_source(mine, "refined_iou")[2]
        real = after - before if real is None else real
        lines.append(f"| {name} | {before:.3f} → {after:.3f} | {after - before:+.3f} | {(after - before) / real:.0%} |")
    return "\n".join(lines)


def crop_table(rows: list[Row]) -> str:
    """One plain pass, and a second pass on a crop, on the same masks."""
    lines = ["| kind | coarse | plain pass | and a crop pass | boundary: coarse | plain | crop |", "| --- " * 7 + "|"]
    removed: list[tuple[float, float]] = []
    for kind in DEV_KINDS:
        plain = [row for row in rows if row.kind == f"photo:{kind}"]
        crop = [row for row in rows if row.kind == f"crop:{kind}"]
        if not plain:
            continue
        coarse, first, second = (
            by_source(plain, "coarse_iou")[2],
            by_source(plain, "refined_iou")[2],
            by_source(crop, "refined_iou")[2],
        )
        edges = (
            by_source(plain, "coarse_boundary")[2],
            by_source(plain, "refined_boundary")[2],
            by_source(crop, "refined_boundary")[2],
        )
        removed.append((1 - (1 - first) / (1 - coarse), 1 - (1 - second) / (1 - coarse)))
        lines.append(f"| {kind} | " + " | ".join(f"{value:.3f}" for value in (coarse, first, second, *edges)) + " |")
    if removed:
        first, second = np.mean(removed, axis=0)
        lines.append(f"\nError removed on these masks: plain {first:.1%}, with the crop pass {second:.1%}")
    return "\n".join(lines)


def bins_table(title: str, bins: dict[str, tuple[float, float]], rows: list[Row], value: Any) -> str:
    """All five kinds together, by bins of `value`, sources pooled."""
    lines = [f"| {title} | masks | IoU | boundary IoU | masks that gained |", "| --- " * 5 + "|"]
    for name, (low, high) in bins.items():
        mine = [row for row in rows if low <= value(row) < high]
        if not mine:
            continue
        mean = {c: float(np.mean([getattr(row, c) for row in mine])) for c in mine[0]._fields[4:8]}
        gained = np.mean([row.refined_iou > row.coarse_iou for row in mine])
        lines.append(
            f"| {name} | {len(mine)} | {mean['coarse_iou']:.3f} → {mean['refined_iou']:.3f} "
            f"| {mean['coarse_boundary']:.3f} → {mean['refined_boundary']:.3f} | {gained:.0%} |"
        )
    return "\n".join(lines)


def prediction_table(rows: list[Row]) -> str:
    """Spearman correlation and mean absolute error of predicted against true IoU, within kinds."""
    lines = ["| kind | Spearman | mean absolute error | mean predicted | mean true |", "| --- " * 5 + "|"]
    correlations = []
    for kind in (*DEV_KINDS, *UNSEEN, "box"):
        mine = [row for row in rows if row.kind == kind]
        if not mine:
            continue
        predicted, true = np.array([(row.predicted_iou, row.refined_iou) for row in mine]).T
        correlation = spearman(predicted, true)
        if kind in DEV_KINDS:
            correlations.append(correlation)
        error = np.abs(predicted - true).mean()
        lines.append(f"| {kind} | {correlation:.3f} | {error:.3f} | {predicted.mean():.3f} | {true.mean():.3f} |")
    lines.append(f"\nSpearman, averaged over the five kinds: **{np.mean(correlations):.3f}**")
    return "\n".join(lines)


def by_source(rows: list[Row], column: str) -> tuple[float, float, float]:
    """Mean of a column on COCO, on Penn-Fudan, and the mean of the two."""
    first, second = (
        float(np.mean([getattr(row, column) for row in rows if row.source == source] or [np.nan])) for source in SOURCES
    )
    return first, second, (first + second) / 2


def interval(rows: list[Row], coarse: str, refined: str) -> tuple[float, float]:
    """95 % bootstrap interval of the paired gain (mean of the sources), images resampled within each source."""
    rng, draws = np.random.default_rng(0), np.zeros(RESAMPLES)
    for source in SOURCES:
        gains: dict[str, list[float]] = {}
        for row in rows:
            if row.source == source:
                gains.setdefault(row.image, []).append(getattr(row, refined) - getattr(row, coarse))
        sums = np.array([sum(values) for values in gains.values()])
        counts = np.array([len(values) for values in gains.values()])
        picks = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
        draws += sums[picks].sum(axis=1) / counts[picks].sum(axis=1) / len(SOURCES)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation; ties share their mean rank."""
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)
