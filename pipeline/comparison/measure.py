"""One mask on either side -> how the two differ; and the sums of that. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pipeline.masks import binary
from pipeline.masks.binary import Rle

SAME, CHANGED, ADDED, REMOVED = "same", "changed", "added", "removed"
STATES = (SAME, CHANGED, ADDED, REMOVED)
BINS = 20
SIZES = {"small": 32**2, "medium": 96**2}
"""COCO's: areas in pixels below which a mask is small, and below which it is medium."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What became of one mask. iou, area_ratio: None unless both sides have the mask, at one size of the image."""

    state: str
    before: Row | None
    after: Row | None
    iou: float | None = None
    area_ratio: float | None = None

    @property
    def row(self) -> Row:
        """The mask as it is now; as it was where it is gone."""
        return self.after or self.before or {}

    @property
    def both(self) -> tuple[Row, Row] | None:
        return (self.before, self.after) if self.before and self.after else None


@dataclass
class Tally:
    """Masks of one group. ious: (BINS,) over [0, 1], those of 1 in the last; measured: masks that have an IoU."""

    states: Counter[str] = field(default_factory=Counter)
    measured: int = 0
    iou_sum: float = 0.0
    area_change_sum: float = 0.0
    ious: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, change: Change) -> None:
        """Count one mask."""
        self.states[change.state] += 1
        if change.iou is not None and change.area_ratio is not None:
            self.measured += 1
            self.iou_sum += change.iou
            self.area_change_sum += change.area_ratio - 1
            self.ious[min(BINS - 1, int(change.iou * BINS))] += 1

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; means are None of nothing."""
        known = self.measured or None
        return {
            **{state: self.states[state] for state in STATES},
            "mean_iou": known and self.iou_sum / known,
            "mean_area_change": known and self.area_change_sum / known,
            "iou_histogram": self.ious.tolist(),
        }


def changes(before: Sequence[Row] | None, after: Sequence[Row] | None) -> Iterator[Change]:
    """The masks of one image by their ids. Rows without a mask (failed ones) are none: see `failed`."""
    first, second = ({row["mask_id"]: row for row in rows or () if row["rle"]} for rows in (before, after))
    for mask_id, row in first.items():
        yield _compared(row, second[mask_id]) if mask_id in second else Change(REMOVED, row, None)
    for mask_id, row in second.items():
        if mask_id not in first:
            yield Change(ADDED, None, row)


def failed(rows: Sequence[Row] | None) -> int:
    """Rows that have no mask."""
    return sum(not row["rle"] for row in rows or ())


def _compared(before: Row, after: Row) -> Change:
    same_mask = before["rle"] == after["rle"]
    state = SAME if same_mask and not relabelled(before, after) and not recrowded(before, after) else CHANGED
    if same_mask:
        return Change(state, before, after, 1.0, 1.0)
    if list(before["rle"]["size"]) != list(after["rle"]["size"]):
        return Change(state, before, after)
    areas = binary.area(before["rle"]), binary.area(after["rle"])
    ratio = areas[1] / areas[0] if areas[0] else None
    return Change(state, before, after, rle_iou(before["rle"], after["rle"]) if ratio is not None else None, ratio)


def relabelled(before: Row, after: Row) -> bool:
    """Whether the class is another."""
    return bool((before["category_id"], before["category"]) != (after["category_id"], after["category"]))


def recrowded(before: Row, after: Row) -> bool:
    """Whether one is a crowd region, and the other an object."""
    return bool(before["crowd"]) != bool(after["crowd"])


def rle_iou(first: Rle, second: Rle) -> float:
    """IoU of two masks of one size. Raises MaskError where one of them cannot be read."""
    for rle in (first, second):
        binary.check(rle)
    pair = [{"size": list(rle["size"]), "counts": rle["counts"].encode()} for rle in (first, second)]
    return float(coco_mask.iou(pair[:1], pair[1:], [0])[0, 0])


def size_of(row: Row) -> str:
    """small, medium or large."""
    area = binary.area(row["rle"])
    return next((name for name, limit in SIZES.items() if area < limit), "large")
