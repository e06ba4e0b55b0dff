"""Run lengths in a CSV file, as Kaggle's competitions have them: an image's id, and starts and lengths of runs from 1.

    ImageId,EncodedPixels[,ClassId][,Height,Width]     Airbus, Severstal, iMaterialist, Data Science Bowl 2018
    ImageId_ClassId or Image_Label,EncodedPixels       the class after the last _ of the id: Severstal, Clouds
    id,rle_mask / id,rle / id,encoding                 TGS salt, HuBMAP
    id,annotation,width,height,cell_type               Sartorius: by rows
    id,class,segmentation; img,rle_mask                UW-Madison, Carvana: by rows
Pixels are counted down the columns, but in the last three across the rows. Options of this source:
    order=columns|rows     for tables of other columns
A row without runs ("", "-", "-1") is an image without a mask. A mask's source id is its line. Runs that are relative to
each other (SIIM) are not read. Other columns are carried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.errors import RefusedError
from pipeline.sources import annotated, tables
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.fields import as_int, as_label, extra_of
from pipeline.sources.tables import Row
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, SourceInput

JOINED = ("imageid_classid", "image_label")
IMAGES = (*JOINED, "imageid", "image_id", "image", "img", "filename", "file_name", "record_id", "id")
RUNS = ("encodedpixels", "encoded_pixels", "rle_mask", "mask_rle", "rle", "encoding", "annotation", "segmentation")
CLASSES = ("classid", "class_id", "category_id", "class", "label", "category", "cell_type")
BY_ROWS = (("annotation", "cell_type"), ("segmentation", "class"), ("img", "rle_mask"))
EMPTY = ("", "-", "-1", "nan", "NaN", "None")


class Columns(NamedTuple):
    """The columns that count; label is None where there is none."""

    image: str
    runs: str
    label: str | None
    order: str


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every row."""
    order = parse(given.options)
    store, path = tables.only(given)
    columns = columns_of(tables.head(store, path))
    if columns is None:
        raise RefusedError(
            f"{given.masks_uri} has no column of images ({', '.join(IMAGES)}) and of runs ({', '.join(RUNS)})"
        )
    columns = columns._replace(order=order or columns.order)
    rows = tables.rows(store, path, given.coverage)
    given.coverage.take(path)
    yield from annotated.plan(given, (_row(number, row, path, columns, given) for number, row in rows))


def parse(options: Mapping[str, str]) -> str | None:
    """The order of pixels, where it is stated. Raises RefusedError."""
    order = options.get("order")
    if not options.keys() <= {"order"} or order not in (None, "columns", "rows"):
        raise RefusedError(f"source rle-csv takes order=columns|rows, not {dict(options)}")
    return order


def columns_of(names: Sequence[str]) -> Columns | None:
    """Which columns hold what; None where it is no such table."""
    image, runs = tables.column(names, IMAGES), tables.column(names, RUNS)
    if image is None or runs is None:
        return None
    lower = {name.lower() for name in names}
    by_rows = any(lower >= set(known) for known in BY_ROWS)
    return Columns(image, runs, tables.column(names, CLASSES), "rows" if by_rows else "columns")


def _row(number: int, row: Row, path: str, columns: Columns, given: SourceInput) -> Annotated:
    name, label = row[columns.image], row[columns.label] if columns.label else ""
    if columns.image.lower() in JOINED and not columns.label:
        name, _, label = name.rpartition("_")
    where = f"{path}, line {number}"
    given.coverage.take(where, "line")
    height, width = (row.get(tables.column(list(row), (side,)) or "") for side in ("height", "width"))
    return Annotated(
        stated=name,
        source_id=name or where,
        height=height,
        width=width,
        shapes=[] if row[columns.runs] in EMPTY else [_shape(number, label, row, columns)],
        names=_names(name),
        where=where,
    )


def _shape(number: int, label: str, row: Row, columns: Columns) -> Shape:
    used = {columns.image, columns.runs, columns.label, "Height", "Width", "height", "width"}
    extra = extra_of({key: value for key, value in row.items() if value and key not in used}, ())
    text = json.dumps({"pairs": row[columns.runs], "order": columns.order})
    found = as_int(label)
    return Shape(f"line {number}", as_label(label) if found is None else "", text, extra=extra, number=found)


def _names(name: str) -> Iterator[str]:
    """The id, with any suffix; and as the Data Science Bowl has it, a folder an image."""
    yield name
    for suffix in sorted(IMAGE_SUFFIXES):
        yield from (f"{name}{suffix}", f"{name}{suffix.upper()}", f"{name}/images/{name}{suffix}")
