"""What came back of an image against the masks that it has: what was replaced, added, removed, kept. Pure.

A mask is the one whose id it has. Where a person cut one in pieces or copied it, and several have its id, the one that
is most alike is it, and the others are new.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.corrections.returned import Came, ImageBack, carried
from pipeline.dataset.overlays import ADDED, KEPT, REMOVED, REPLACED
from pipeline.masks import binary
from pipeline.sources import mask_id

Row = dict[str, Any]
Category = tuple[int, str]


@dataclass
class Labels:
    """Names of classes in an export, both ways. of_category: category -> its label; own: label -> category.

    A label that the result does not have gets an id above all others.
    """

    of_category: Mapping[Category, str]
    own: dict[str, Category]

    def category(self, label: str) -> Category:
        """The category that a label means."""
        if label not in self.own:
            self.own[label] = max((number for number, _ in self.own.values()), default=0) + 1, label
        return self.own[label]


def changes(
    back: ImageBack, rows: Sequence[Row], sent: ImageBack | None, labels: Labels, name: str, *, seen: bool
) -> list[Row]:
    """Rows of OVERLAY for one image. rows: its masks in the result, with `hidden`: whether exports leave it out.

    sent: the image in the export that people worked on, None where that was all of `rows` that is not hidden. seen:
    whether the image was looked at even if nothing in it was changed.
    """
    was = None if sent is None else {came.source_id: came for came in sent.masks}
    by_id = {row["mask_id"]: row for row in rows}
    claims: dict[str, list[Came]] = defaultdict(list)
    for came in back.masks:
        known = (own for own in (came.source_id, _id_of_new(came, back.image_id, 0)) if own in by_id)
        claims[next(known, "")].append(came)
    new = claims.pop("", [])
    found: list[Row] = []
    kept: list[Row] = []
    for own_id, several in claims.items():
        row = by_id[own_id]
        best, *others = sorted(several, key=lambda came: -_likeness(came, row))
        new += others
        if not _differs(best, row, labels):
            kept.append(_change(best, row, labels))
        elif was is None or best != was.get(own_id):  # else somebody else has changed it since
            found.append(_change(best, row, labels))
    there = {own_id for own_id, row in by_id.items() if (not row["hidden"] if was is None else own_id in was)}
    found += [_removed(row) for own_id, row in by_id.items() if own_id in there - {*claims, *back.broken}]
    found += list(_added(new, back.image_id, labels, name))
    return found + [{**row, "action": KEPT} for row in kept] if found or seen else []


def _likeness(came: Came, row: Row) -> float:
    return binary.iou(binary.decode(came.rle), binary.decode(row["mask_rle"]))


def _differs(came: Came, row: Row, labels: Labels) -> bool:
    same_label = came.label == labels.of_category[_category(row)]
    return not (same_label and came.crowd == bool(row["crowd"]) and came.rle == row["mask_rle"])


def _change(came: Came, row: Row, labels: Labels) -> Row:
    own = _category(row)
    category_id, category = own if came.label == labels.of_category[own] else labels.category(came.label)
    return {
        "action": REPLACED,
        "image_id": row["image_id"],
        "mask_id": row["mask_id"],
        "source_mask_id": row["source_mask_id"],
        "category_id": category_id,
        "category": category,
        "crowd": came.crowd,
        "rle": came.rle,
        "extra": None,
    }


def _removed(row: Row) -> Row:
    names = ("image_id", "mask_id", "source_mask_id", "category_id", "category", "crowd")
    return {**{name: row[name] for name in names}, "action": REMOVED, "rle": None, "extra": None}


def _added(new: Sequence[Came], image_id: str, labels: Labels, name: str) -> Iterator[Row]:
    times: dict[str, int] = defaultdict(int)
    for came in new:
        own_id = _id_of_new(came, image_id, 0)
        category_id, category = labels.category(came.label)
        yield {
            "action": ADDED,
            "image_id": image_id,
            "mask_id": _id_of_new(came, image_id, times[own_id]),
            "source_mask_id": f"{name}/{came.source_id}",
            "category_id": category_id,
            "category": category,
            "crowd": came.crowd,
            "rle": came.rle,
            "extra": json.dumps(extra, separators=(",", ":")) if (extra := carried(came.extra)) else None,
        }
        times[own_id] += 1


def _id_of_new(came: Came, image_id: str, occurrence: int) -> str:
    """The id of an added mask: of what it is, so that the same one brought twice is one."""
    return mask_id(image_id, f"added {came.label} {came.rle['counts']}", occurrence)


def _category(row: Row) -> Category:
    return row["category_id"], row["category"] or ""
