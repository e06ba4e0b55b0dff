"""One mask alone: whether it holds several objects, or a part of one. Pure.

Occlusion cuts objects into pieces and joins others, so none of this is proof: a person decides. Some classes come in
pieces (walls, clothes): what is common among the masks of a class is no fault of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.findings.kinds import LOOK, Finding, Row
from pipeline.masks import binary
from pipeline.masks.binary import Mask

LEAST_PIECE = 0.25  # of the largest piece's area: smaller ones are specks, not objects
FAR = 0.15  # gap of two pieces, in square roots of their area: closer ones are one object behind a pole
SMALLEST_PX = 200  # masks below it say nothing
LONGEST_SIDE_PX = 160  # shapes are told at this size
MODEL_KEEPS = 0.9  # of the smaller mask is in the larger one: one is part of the other
MODEL_GROWS = 1.7  # the model's mask against the one that came in
UNSURE = ("kept_coarse", "review")
COMMON = 0.1  # of a class's masks are in pieces: then pieces say nothing
PRIOR = 5  # masks of any class that a class's own are counted with


def findings(row: Row) -> Iterator[Finding]:
    """Of a row that has a mask and is no crowd; without pieces."""
    yield from _by_model(row)


class Pieces:
    """Masks in pieces of like size that are apart, held until all masks were seen."""

    def __init__(self) -> None:
        self._seen: Counter[str | None] = Counter()
        self._found: list[Row] = []

    def look(self, row: Row) -> None:
        """At a row that has a mask and is no crowd."""
        mask = _shrunk(binary.decode(row["mask_rle"]))
        if np.count_nonzero(mask) < SMALLEST_PX:
            return
        self._seen[row["category"]] += 1
        if (pieces := _pieces(mask)) is not None:
            said, certainty = pieces
            self._found.append(Finding("several", row, None, certainty, certainty, said).row())

    def rows(self) -> Iterator[Row]:
        """As FINDINGS has them, of classes whose masks seldom are in pieces; the less often, the more certain."""
        broken = Counter(row["category"] for row in self._found)
        overall = broken.total() / max(1, self._seen.total())
        for row in self._found:
            count, seen = broken[row["category"]], self._seen[row["category"]]
            share = (count - 1 + PRIOR * overall) / (seen - 1 + PRIOR)  # of the others
            if share < COMMON:
                yield {**row, "certainty": round(row["certainty"] * (1 - share / COMMON), 4)}


def _pieces(mask: Mask) -> tuple[str, float] | None:
    """Why a mask's shape is that of several objects, and how certain that is."""
    count, labels, areas = _components(mask)
    if count < 2:
        return None
    gap = _gap(labels == 1, labels == 2) / float(np.sqrt(areas[0]))
    if gap < FAR:
        return None
    said = f"{count} pieces of like size, {gap:.1f} times their size apart"
    return said, round(min(1.0, gap) * float(areas[1] / areas[0]), 4)


def _by_model(row: Row) -> Iterator[Finding]:
    """Masks that the model would make much larger, or of which it takes a part; where it was not followed."""
    coarse, refined = row["coarse_rle"], row["refined_rle"]
    if row["decision"] not in UNSURE or not coarse or not refined or coarse["size"] != refined["size"]:
        return
    areas = binary.area(coarse), binary.area(refined)
    if not min(areas):
        return
    shared = np.count_nonzero(binary.decode(coarse) & binary.decode(refined)) / min(areas)
    ratio, sure = areas[1] / areas[0], float(row["predicted_iou"] or 0.0)
    if shared < MODEL_KEEPS:
        return
    if ratio > MODEL_GROWS:
        yield Finding("half", row, None, sure * (1 - 1 / ratio), ratio, f"the model's mask is {ratio:.1f} x as large")
    elif ratio < 1 / MODEL_GROWS:
        said = f"the model takes {ratio:.0%} of it for the object"
        yield Finding("several", row, None, sure * (1 - ratio) / 2, ratio, said, LOOK)


def _shrunk(mask: Mask) -> Mask:
    """The mask's box, no larger than LONGEST_SIDE_PX."""
    cut = mask[binary.box_around(mask, 0)]
    scale = LONGEST_SIDE_PX / max(1, *cut.shape)
    if scale >= 1 or not cut.size:
        return cut
    size = max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))
    return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA) > 0, np.uint8)


def _components(mask: Mask) -> tuple[int, npt.NDArray[Any], npt.NDArray[np.int64]]:
    """(how many are no specks, labels with the largest as 1 and the next as 2, areas from the largest on)."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(np.asarray(mask, np.uint8), connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA].astype(np.int64)
    order = np.argsort(-areas, kind="stable")
    ranked = np.zeros(len(areas) + 1, np.int64)
    ranked[order + 1] = np.arange(len(areas)) + 1
    areas = areas[order]
    return int(np.count_nonzero(areas >= LEAST_PIECE * areas[:1].sum())) if areas.size else 0, ranked[labels], areas


def _gap(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Shortest distance between two pieces, in pixels."""
    away = cv2.distanceTransform((~first).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(away[second].min())
