"""The kinds of labels that are compared: which masks are learned from, which label of each, and with which weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.value.objects import Floats, Lesson

COARSE, REFINED, WEIGHTED, FILTERED, TRUE = "coarse", "refined", "weighted", "filtered", "true"

TITLES = {
    COARSE: "coarse",
    REFINED: "refined",
    WEIGHTED: "refined, weighted by quality",
    FILTERED: "refined, the best by quality",
    TRUE: "true",
}

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """power: of quality, as weight; keep: the share of masks, the best by quality, that the filter leaves."""

    power: float = 8.0
    keep: float = 0.75


@dataclass(frozen=True)
class Kind:
    """Labels to learn from. rows: (n,) of the lessons; labels: (n, side, side) float32; weights: (n,) of mean 1."""

    name: str
    rows: Rows
    labels: Floats
    weights: Floats


def kinds(lessons: Sequence[Lesson], settings: Settings) -> list[Kind]:
    """Every kind; the true labels only where each mask has one."""
    quality = np.array([one.quality for one in lessons])
    everything, even = np.arange(len(lessons)), np.ones(len(lessons))
    best = np.sort(np.argsort(-quality, kind="stable")[: max(1, round(settings.keep * len(lessons)))])
    found = [
        _kind(COARSE, "coarse", lessons, everything, even),
        _kind(REFINED, "refined", lessons, everything, even),
        _kind(WEIGHTED, "refined", lessons, everything, np.maximum(quality, 1e-3) ** settings.power),
        _kind(FILTERED, "refined", lessons, best, even[best]),
    ]
    if all("true" in one.labels for one in lessons):
        found.append(_kind(TRUE, "true", lessons, everything, even))
    return found


def _kind(name: str, label: str, lessons: Sequence[Lesson], rows: Rows, weights: npt.NDArray[np.float64]) -> Kind:
    labels = np.stack([lessons[row].labels[label] for row in rows])
    return Kind(name, rows, labels, np.asarray(weights / weights.mean(), np.float32))
