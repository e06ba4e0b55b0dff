"""All findings of a result, image by image, and the table that is kept of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import findings as stored
from pipeline.dataset.by_image import groups, read_group
from pipeline.dataset.result import Result, open_result
from pipeline.errors import MaskError, RefusedError
from pipeline.findings import pairs, shapes
from pipeline.findings.boxes import Boxes, boxes_of
from pipeline.findings.kinds import KINDS, Finding, Row
from pipeline.storage import Access
from schemas.records import FINDINGS

COLUMNS = [
    *("mask_id", "image_id", "image_uri", "source_mask_id", "source_image_id", "category_id", "category", "crowd"),
    *("coarse_rle", "refined_rle", "mask_rle", "decision", "quality", "predicted_iou"),
]
BATCH_ROWS = 4096
ORDER = [("kind", "ascending"), ("certainty", "descending"), ("finding_id", "ascending")]


@dataclass(frozen=True)
class Asked:
    """What is looked for. kinds: names of KINDS, none for all; boxes: a COCO file whose boxes are compared."""

    kinds: tuple[str, ...] = ()
    duplicate_iou: float = pairs.DUPLICATE_IOU
    boxes: str | None = None


@dataclass
class Looked:
    """What a pass found. table: FINDINGS by kind, the most certain first; path: where it is kept; images, masks: looked
    at; unread: masks that could not be read.
    """

    table: pa.Table
    path: str = ""
    images: int = 0
    masks: int = 0
    unread: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def find(output: str, asked: Asked, access: Access, on_images: Callable[[int], None] = lambda _count: None) -> Looked:
    """Look at every mask of the current result, and keep what is found beside it. on_images: is told how many so far.

    Raises RefusedError for a kind that there is not, and where there is no result.
    """
    unknown = [name for name in asked.kinds if name not in KINDS]
    if unknown:
        raise RefusedError(f"--kind {unknown[0]}: there are {', '.join(KINDS)}")
    if "box" in asked.kinds and asked.boxes is None:
        raise RefusedError("--kind box needs the file that states them: --boxes COCO.json")
    result = open_result(output, access)
    looked, tables = Looked(FINDINGS.empty_table()), []
    with boxes_of(asked.boxes, access) if asked.boxes else nullcontext() as boxes:
        rows: list[Row] = []
        for found in _found(result, asked, boxes, looked, on_images):
            rows.append(found.row())
            if len(rows) >= BATCH_ROWS:
                tables.append(pa.Table.from_pylist(rows, FINDINGS))
                rows = []
        tables.append(pa.Table.from_pylist(rows, FINDINGS))
    looked.table = with_verdicts(pa.concat_tables(tables), stored.verdicts(result.store)).sort_by(ORDER)
    looked.counts.update(looked.table["kind"].to_pylist())
    looked.path = stored.keep(result, looked.table)
    return looked


def with_verdicts(table: pa.Table, verdicts: dict[str, str]) -> pa.Table:
    """The findings with what people said of them."""
    said = pa.array([verdicts.get(one) for one in table["finding_id"].to_pylist()], pa.string())
    return table.set_column(table.column_names.index("verdict"), FINDINGS.field("verdict"), said)


def open_findings(table: pa.Table) -> pa.Table:
    """Those that nobody has judged."""
    return table.filter(pc.is_null(table["verdict"]))


def _found(
    result: Result, asked: Asked, boxes: Boxes | None, looked: Looked, on_images: Callable[[int], None]
) -> Iterator[Finding]:
    for group in groups(result):
        for _, _, masks in read_group(result, group, COLUMNS):
            looked.images += 1
            looked.masks += len(masks)
            best: dict[str, Finding] = {}  # of several reasons for one finding the most certain
            for found in _of_image(masks, asked, boxes, looked):
                name = found.row()["finding_id"]
                if name not in best or found.certainty > best[name].certainty:
                    best[name] = found
            yield from (found for found in best.values() if not asked.kinds or found.kind in asked.kinds)
            on_images(looked.images)


def _of_image(masks: Sequence[Row], asked: Asked, boxes: Boxes | None, looked: Looked) -> Iterator[Finding]:
    rows = [row for row in masks if row["mask_rle"] and not row["crowd"]]
    try:
        yield from pairs.findings(rows, asked.duplicate_iou)
        for row in rows:
            yield from shapes.findings(row)
            if boxes is not None:
                yield from boxes.findings(row)
    except MaskError:
        looked.unread += len(rows)
