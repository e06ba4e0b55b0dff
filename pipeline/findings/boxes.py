"""Boxes as an annotation file states them, against the masks that it states: COCO's and LVIS's `bbox`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import RefusedError
from pipeline.findings.kinds import Finding, Row
from pipeline.masks import binary
from pipeline.sources import json_stream
from pipeline.sources.fields import as_float, as_id, as_list
from pipeline.storage import Access
from pipeline.storage.disk_table import temporary_database

AGREES = 0.75
"""IoU of box and mask's box from which on the two are taken for the same: outlines are rounded to pixels."""

_TABLE = "CREATE TABLE boxes (image TEXT, mask TEXT, x REAL, y REAL, w REAL, h REAL, PRIMARY KEY (image, mask))"


class Boxes:
    """Boxes by the ids that the file has for image and annotation."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def findings(self, row: Row) -> Iterator[Finding]:
        """A box that is not that of the mask that came in."""
        key = row["source_image_id"], row["source_mask_id"]
        box = self._database.execute("SELECT x, y, w, h FROM boxes WHERE image = ? AND mask = ?", key).fetchone()
        if box is None or not row["coarse_rle"] or not binary.area(row["coarse_rle"]):
            return
        own = binary.bbox_xywh(row["coarse_rle"])
        iou = box_iou(box, own)
        if iou < AGREES:
            said = (
                "box " + ", ".join(f"{side:.0f}" for side in box) + "; its mask's " + ", ".join(f"{s:.0f}" for s in own)
            )
            yield Finding("box", row, None, 1 - iou, iou, said)


@contextmanager
def boxes_of(uri: str, access: Access) -> Iterator[Boxes]:
    """The boxes of a COCO or LVIS JSON file, on disk. Raises RefusedError where it has none."""
    with temporary_database(_TABLE) as database:
        entries = (entry for key, entry in json_stream.entries(uri, access) if key == "annotations")
        rows = (row for entry in entries if isinstance(entry, dict) and (row := _row(entry)))
        database.execute("BEGIN")
        found = database.executemany("INSERT OR REPLACE INTO boxes VALUES (?, ?, ?, ?, ?, ?)", rows).rowcount
        database.execute("COMMIT")
        if found < 1:
            raise RefusedError(f"--boxes {uri}: none of its annotations has a `bbox`")
        yield Boxes(database)


def _row(entry: dict[str, object]) -> tuple[str, str, float, float, float, float] | None:
    sides = [as_float(side) for side in as_list(entry.get("bbox"))]
    if len(sides) != 4 or None in sides:
        return None
    x, y, width, height = (float(side or 0.0) for side in sides)
    return as_id(entry.get("image_id")), as_id(entry.get("id")), x, y, width, height


def box_iou(first: tuple[float, ...] | list[float], second: tuple[float, ...] | list[float]) -> float:
    """Of two boxes (x, y, width, height)."""
    sides = [
        max(0.0, min(first[axis] + first[axis + 2], second[axis] + second[axis + 2]) - max(first[axis], second[axis]))
        for axis in (0, 1)
    ]
    shared = sides[0] * sides[1]
    union = first[2] * first[3] + second[2] * second[3] - shared
    return shared / union if union > 0 else 0.0
