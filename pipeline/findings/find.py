"""All findings of a result, image by image, and the table that is kept of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import findings as stored
from pipeline.dataset.by_image import groups, read_group
from pipeline.dataset.result import Result, open_result
from pipeline.dataset.samples import Photos
from pipeline.errors import MaskError, RefusedError
from pipeline.findings import by_model, pairs, shapes
from pipeline.findings.boxes import Boxes, boxes_of
from pipeline.findings.kinds import KINDS, WITH_MODEL, Finding, Row
from pipeline.models import MaskModel
from pipeline.storage import Access
from pipeline.storage.disk_table import scratch_folder
from schemas.records import FINDINGS

COLUMNS = [
    *("mask_id", "image_id", "image_uri", "source_mask_id", "source_image_id", "category_id", "category", "crowd"),
    *("coarse_rle", "refined_rle", "mask_rle", "decision", "quality", "predicted_iou"),
]
BATCH_ROWS = 4096
OnImages = Callable[[int, int], None]
ORDER = [("kind", "ascending"), ("certainty", "descending"), ("finding_id", "ascending")]


@dataclass(frozen=True)
class Asked:
    """What is looked for. kinds: names of KINDS, none for all; boxes: a COCO file whose boxes are compared; model: that
    looks for objects and classes, None for none; images: where the images are, if not where the run found them.
    """

    kinds: tuple[str, ...] = ()
    duplicate_iou: float = pairs.DUPLICATE_IOU
    boxes: str | None = None
    model: MaskModel | None = None
    images: str | None = None

    def wants(self, kind: str) -> bool:
        """Whether findings of a kind are kept."""
        return not self.kinds or kind in self.kinds


@dataclass
class Looked:
    """What a pass found. table: FINDINGS by kind, the most certain first; path: where it is kept; images, masks: looked
    at; unread: masks that could not be read; unseen: images that the model could not be shown.
    """

    table: pa.Table
    path: str = ""
    images: int = 0
    masks: int = 0
    unread: int = 0
    unseen: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def find(output: str, asked: Asked, access: Access, on_images: OnImages = lambda _done, _of: None) -> Looked:
    """Look at every mask of the current result, and keep what is found beside it. on_images: is told how many images
    were looked at, and of how many.

    Raises RefusedError for a kind that there is not, and where there is no result.
    """
    _check(asked)
    result = open_result(output, access)
    looked, tables = Looked(FINDINGS.empty_table()), []
    with (
        boxes_of(asked.boxes, access) if asked.boxes else nullcontext() as boxes,
        scratch_folder("findings") as folder,
    ):
        rows: list[Row] = []
        shown, pieces, several = _shown(result, asked, folder), shapes.Pieces(), set[str]()
        for found in _found(result, asked, boxes, shown, looked, on_images, pieces):
            rows.append(found.row())
            if found.kind == "several":
                several.add(rows[-1]["finding_id"])
            if len(rows) >= BATCH_ROWS:
                tables.append(pa.Table.from_pylist(rows, FINDINGS))
                rows = []
        if asked.wants("several"):
            rows += [row for row in pieces.rows() if row["finding_id"] not in several]
        tables.append(pa.Table.from_pylist(rows, FINDINGS))
    looked.unseen = shown.unseen if shown else 0
    looked.table = with_verdicts(pa.concat_tables(tables), stored.verdicts(result.store)).sort_by(ORDER)
    looked.counts.update(looked.table["kind"].to_pylist())
    looked.path = stored.keep(result, looked.table)
    return looked


def _check(asked: Asked) -> None:
    unknown = [name for name in asked.kinds if name not in KINDS]
    if unknown:
        raise RefusedError(f"--kind {unknown[0]}: there are {', '.join(KINDS)}")
    if "box" in asked.kinds and asked.boxes is None:
        raise RefusedError("--kind box needs the file that states them: --boxes COCO.json")
    if asked.model is None and (missing := [name for name in WITH_MODEL if name in asked.kinds]):
        raise RefusedError(f"--kind {missing[0]} needs a model that looks for it: --with-model NAME")


def _shown(result: Result, asked: Asked, folder: Path) -> by_model.ModelView | None:
    """The model that is shown the images, if one is."""
    if asked.model is None or not any(map(asked.wants, WITH_MODEL)):
        return None
    photos = Photos.of(result, asked.images)
    return by_model.ModelView(asked.model, photos, folder, *(asked.wants(kind) for kind in WITH_MODEL))


def with_verdicts(table: pa.Table, verdicts: dict[str, str]) -> pa.Table:
    """The findings with what people said of them."""
    said = pa.array([verdicts.get(one) for one in table["finding_id"].to_pylist()], pa.string())
    return table.set_column(table.column_names.index("verdict"), FINDINGS.field("verdict"), said)


def open_findings(table: pa.Table) -> pa.Table:
    """Those that nobody has judged."""
    return table.filter(pc.is_null(table["verdict"]))


def _found(
    result: Result,
    asked: Asked,
    boxes: Boxes | None,
    shown: by_model.ModelView | None,
    looked: Looked,
    on_images: OnImages,
    pieces: shapes.Pieces,
) -> Iterator[Finding]:
    total = sum(result.manifest.counts.images.values())
    for group in groups(result):
        for _, image, masks in read_group(result, group, COLUMNS):
            looked.images += 1
            looked.masks += len(masks)
            best: dict[str, Finding] = {}  # of several reasons for one finding the most certain
            for found in _of_image(masks, asked, boxes, looked, pieces):
                name = found.row()["finding_id"]
                if name not in best or found.certainty > best[name].certainty:
                    best[name] = found
            yield from (found for found in best.values() if asked.wants(found.kind))
            if shown is not None and image["status"] == "ok":
                yield from shown.findings(image, masks)
            on_images(looked.images, total)
    if shown is not None:
        yield from (found for found in shown.misfits() if asked.wants(found.kind))


def _of_image(
    masks: Sequence[Row], asked: Asked, boxes: Boxes | None, looked: Looked, pieces: shapes.Pieces
) -> Iterator[Finding]:
    rows = [row for row in masks if row["mask_rle"] and not row["crowd"]]
    try:
        yield from pairs.findings(rows, asked.duplicate_iou)
        for row in rows:
            yield from shapes.findings(row)
            pieces.look(row)
            if boxes is not None:
                yield from boxes.findings(row)
    except MaskError:
        looked.unread += len(rows)
