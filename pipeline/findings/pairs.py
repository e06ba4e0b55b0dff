"""The masks of one image against each other. Pure.

Crowd regions overlap with objects by their nature and are left out. Of two masks that are alike, the one to remove is
the one of the lower quality; of equal ones that with the greater id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pipeline.findings.kinds import REMOVE, Finding, Row
from pipeline.masks import binary

DUPLICATE_IOU = 0.8
"""Above it two masks are of one object, whatever their classes: COCO-ReM's cut."""

ONE_CLASS = 0.625
"""Times that cut: above it two masks of one class are of one object, as detectors' non-maximum suppression has it."""

CROSSING, IN_THE_OTHER = 0.75, 0.95
"""Times that cut: above it two masks of two classes are of one object, if less than so much of the smaller is in the
other. Of an object that was drawn twice each drawing leaves some of the other's out; a part lies wholly in its whole.
"""

WITHIN = 0.9  # of a mask's pixels are another one's: it lies inside it
COLLIDES = 0.25  # of the smaller mask's pixels; less is two outlines that are not exact
COVERED = 0.6  # of a mask, by those inside it: it is their union rather than an object of its own
LEAST_SHARE = 0.05  # of a mask that one inside it has, to count as one of its objects

Floats = npt.NDArray[np.float64]


class Overlaps(NamedTuple):
    """Of N masks. areas (N,); iou, shared (N, N): shared is the intersection in pixels."""

    areas: Floats
    iou: Floats
    shared: Floats


def overlaps(rows: Sequence[Row]) -> Overlaps:
    """Of the `mask_rle`s of rows of one image. Raises MaskError where one cannot be read."""
    rles = []
    for row in rows:
        binary.check(row["mask_rle"])
        rles.append({"size": list(row["mask_rle"]["size"]), "counts": row["mask_rle"]["counts"].encode()})
    areas = np.asarray(coco_mask.area(rles), np.float64)
    iou = np.asarray(coco_mask.iou(rles, rles, [0] * len(rles)), np.float64).reshape(len(rles), len(rles))
    return Overlaps(areas, iou, iou * (areas[:, None] + areas[None, :]) / (1 + iou))


def findings(rows: Sequence[Row], duplicate_iou: float = DUPLICATE_IOU) -> Iterator[Finding]:
    """Of the masks of one image: rows that have a mask, and are no crowd."""
    if len(rows) < 2:
        return
    found = overlaps(rows)
    inside: dict[int, list[int]] = defaultdict(list)
    for first, second in zip(*np.nonzero(np.triu(found.iou, 1)), strict=True):
        share = found.shared[first, second] / min(found.areas[first], found.areas[second])
        same = _same_class(rows[first], rows[second])
        if found.iou[first, second] > duplicate_iou * _eased(same, float(share)):
            yield _duplicate(rows[first], rows[second], float(found.iou[first, second]))
        elif share >= WITHIN and same:
            small, large = sorted((int(first), int(second)), key=lambda index: found.areas[index])
            inside[large].append(small)
        elif COLLIDES <= share < WITHIN:
            yield _overlap(rows[first], rows[second], float(share))
    for large, smalls in inside.items():
        yield from _inside(rows, found, large, smalls)


def _eased(same_class: bool, share: float) -> float:
    """What the cut for duplicates is multiplied with; share: of the smaller mask that is in the other."""
    if same_class:
        return ONE_CLASS
    return CROSSING if share < IN_THE_OTHER else 1.0


def _duplicate(first: Row, second: Row, iou: float) -> Finding:
    kept, spare = sorted((first, second), key=lambda row: (-(row["quality"] or 0.0), row["mask_id"]))
    classes = "" if _same_class(first, second) else f"; classes {kept['category']} and {spare['category']}"
    return Finding("duplicate", spare, kept, iou, iou, f"IoU {iou:.2f}{classes}")


def _overlap(first: Row, second: Row, share: float) -> Finding:
    kept, doubtful = sorted((first, second), key=lambda row: (-(row["quality"] or 0.0), row["mask_id"]))
    certainty = share if _same_class(first, second) else share / 2  # classes may lie upon each other
    return Finding("overlap", doubtful, kept, certainty, share, f"{share:.0%} of the smaller one's pixels")


def _inside(rows: Sequence[Row], found: Overlaps, large: int, smalls: Sequence[int]) -> Iterator[Finding]:
    """Masks within one of their class: it is their union, or they are pieces of it."""
    objects = [one for one in smalls if found.areas[one] >= LEAST_SHARE * found.areas[large]]
    covered = min(1.0, float(found.shared[large, objects].sum() / found.areas[large])) if len(objects) > 1 else 0.0
    if covered >= COVERED:
        said = f"{len(objects)} masks inside it cover {covered:.0%}"
        yield Finding("several", rows[large], None, covered, covered, said, REMOVE)
        return
    for small in smalls:
        share = float(found.shared[large, small] / found.areas[small])
        said = f"{share:.0%} of it is inside"
        yield Finding("inside", rows[small], rows[large], share / 2, share, said)


def _same_class(first: Row, second: Row) -> bool:
    return bool((first["category_id"], first["category"]) == (second["category_id"], second["category"]))
