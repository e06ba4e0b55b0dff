"""Parquet files, as Hugging Face datasets write them: a row an image, or a row a mask.

    image      a column of bytes or {bytes, path} (`image`, ...): read in place, its URI is `file.parquet#000000000012`;
               else a column of paths below the image root (`image_uri`, `file_name`, ...), or the paths of {bytes,
               path} where no bytes are stored
    masks      a column as `cells.py` understands it (`objects`, `annotations`, `masks`, `mask`, `segmentation`, ...),
               or, where there is none, one of boxes (`bbox`, `boxes`, ...); paths of mask images are relative to the
               folder of the Parquet files
    category   beside a column that is one mask: `category_id`, `category`, `label`; beside a list, a value each, in
               columns of these names or `labels`, `categories`, ...
    segments   beside an image of segment ids: `segments_info`, as panoptic datasets have it
Options, where the columns have other names: `parquet:image=photo,masks=labels`; `boxes=corners` or `boxes=sides`.
Names of class labels come from the features that Hugging Face writes into the schema. `--masks` is a file or a folder;
`--images` the same folder where the images are inside.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.decoding import label_image
from pipeline.errors import MaskError, RefusedError
from pipeline.sources import box_forms, containers, segments
from pipeline.sources.cell_fields import (
    BOXES,
    CATEGORIES,
    CATEGORY_IDS,
    FILES,
    GEOMETRIES,
    IDS,
    LISTS,
    MASKS,
    OF_A_CATEGORY,
    OF_A_MASK,
    LeftFields,
    beside_of,
    chosen,
    is_empty,
    lists_of,
    may_be_masks,
    of_all,
)
from pipeline.sources.cell_geometries import as_rings, image_in_text, is_png
from pipeline.sources.cells import Cells
from pipeline.sources.containers import Piece
from pipeline.sources.fields import as_id, as_name, as_size
from pipeline.sources.grids import SizeOf
from pipeline.sources.mask_files import MaskFiles, image_size
from pipeline.sources.parquet_images import BATCH_ROWS, ImageSizes, all_null, images_beside
from pipeline.sources.segments import with_segments
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store, brief
from pipeline.storage.containers import PARQUET, URI_COLUMNS, image_column, member_uri
from pipeline.storage.paths import safe_relative

MASK_COLUMNS = (*MASKS, "label_map", "annotation")
BESIDE = frozenset((".json", ".jsonl", ".yaml", ".yml", ".md", ".arrow", ".lock"))
ID_COLUMNS = ("source_image_id", "image_id", "id")
SIDES = ("height", "width")
LABELS_COUNT = "a category beside an image of several values, which are the categories: not used"
CATEGORY_COUNTS = "a category beside an image of several values, which are objects of it"
OF_ROWS = (*IDS, *CATEGORY_IDS, *CATEGORIES, "iscrowd")


def scan_piece(given: SourceInput, piece: Piece) -> Iterator[PlannedImage]:
    """Every row of a file. Raises RefusedError for one without the columns that are needed.

    A damaged file among others is named and left, from the row on where it is.
    """
    store = containers.root(given, PARQUET)
    try:
        with store.open(piece.path) as file:
            yield from _scan_file(pq.ParquetFile(file), piece.path, given, piece.problem)
        given.coverage.take(piece.path)
    except (pa.ArrowException, OSError) as error:
        if containers.is_alone(given, PARQUET):
            raise RefusedError(
                f"{store.uri}/{piece.path} is not a Parquet file, or is damaged: {brief(error)}"
            ) from None
        given.coverage.leave(piece.path, "damaged", brief(error))


def parse(options: Mapping[str, str]) -> None:
    """Raises RefusedError for options that are none."""
    if not options.keys() <= {"image", "masks", box_forms.OPTION}:
        raise RefusedError(
            f"source parquet takes image=COLUMN, masks=COLUMN and boxes=corners|sides, not {dict(options)}"
        )
    box_forms.parse(options)


@dataclass(frozen=True)
class _Columns:
    """What is read of a file. own: the image column, None where images are named by `uri`. masks: the columns that may
    hold masks, of which each row has them in one. names: of category ids, by column of masks.
    """

    own: str | None
    uri: str | None
    masks: list[str]
    beside: list[str]
    names: dict[str, dict[int, str]]
    uri_field: str | None = None  # of the struct `uri`, where it is one

    def read(self) -> list[str]:
        uri = f"{self.uri}.{self.uri_field}" if self.uri_field else self.uri
        return [*self.masks, *self.beside, *([uri] if uri else [])]

    def path(self, row: Mapping[str, Any]) -> str:
        """The image's path, "" for none."""
        value = row.get(self.uri or "")
        return as_name(value.get(self.uri_field) if isinstance(value, Mapping) else value)


def _scan_file(
    parquet: pq.ParquetFile, container: str, given: SourceInput, problem: str | None
) -> Iterator[PlannedImage]:
    columns = _with_paths(_columns(parquet.schema_arrow, container, given.options), parquet)
    files = MaskFiles(Store(files_root(given.masks_uri), given.access))
    left, sizes = LeftFields(given.coverage, container), ImageSizes(parquet, columns.own)
    number = -1
    rows = partial(_rows, parquet, columns, sizes, given)
    form_of = box_forms.of_file(rows, container, given.options, given.coverage)
    for number, (row, size_of) in enumerate(rows()):
        where = f"{container}, row {number}"
        tell = partial(given.coverage.remark, where)
        cells = Cells(files=files, tell=tell, size_of=size_of, left=left, where=where, form_of=form_of)
        planned = _planned(row, number, container, columns, problem, cells)
        if not planned.masks:
            given.coverage.remark(where, "a row without a mask")
        digest = files.take_digest()
        yield replace(planned, digest_extra=digest) if digest else planned
    left.tell()
    for name in [] if "masks" in given.options else images_beside(parquet, {columns.own or "", *columns.read()}):
        reason = f"images that may be masks; --source parquet:masks={name} reads these"
        given.coverage.leave(f"{container}, field {name}", reason, kind="field")
    given.coverage.take_many(f"{container}, row", number + 1, "row")


def _rows(
    parquet: pq.ParquetFile, columns: _Columns, sizes: ImageSizes, given: SourceInput
) -> Iterator[tuple[dict[str, Any], SizeOf]]:
    """Every row, and who knows the (H, W) of its image."""
    batches = parquet.iter_batches(BATCH_ROWS, columns=columns.read())
    for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
        yield row, cache(partial(_size_of, row, number, columns, sizes, given))


def _columns(schema: pa.Schema, container: str, options: Mapping[str, str]) -> _Columns:
    own = options.get("image") if options.get("image") in schema.names else image_column(schema)
    if own is not None and not _is_bytes(schema.field(own).type):
        own = None
    named: tuple[str, ...] = (options.get("image", ""), *URI_COLUMNS)
    uri = None if own else next((name for name in named if name in schema.names), None)
    stated = options.get("masks", "")
    named = (stated,) if stated in schema.names and stated not in (own, uri) else MASK_COLUMNS
    known = [name for name in schema.names if name not in (own, uri)]
    masks = [name for name in named if name in known] or [name for name in BOXES if name in known][:1]
    if not masks or (own or uri) is None:
        what = "images" if masks else "masks"
        raise RefusedError(
            f"{container} has no column of {what} that is known; name it: --source parquet:image=COLUMN,masks=COLUMN. "
            f"It has {', '.join(schema.names)}"
        )
    beside = [name for name in dict.fromkeys((*ID_COLUMNS, *OF_ROWS, *SIDES, *OF_A_MASK)) if name in schema.names]
    lists = [name for name in beside if name in (*ID_COLUMNS, *OF_ROWS, *SIDES) or _may_be_list(schema, name)]
    lists += ["bbox_mode"] if "bbox_mode" in schema.names and masks[0] in BOXES else []
    lists += [segments.FIELD] if segments.FIELD in schema.names else []
    names = {name: _class_names(schema, name, masks) for name in (*masks, segments.FIELD)}
    return _Columns(own, uri, masks, [name for name in lists if name not in (own, uri, *masks)], names)


def _may_be_list(schema: pa.Schema, name: str) -> bool:
    """Whether a column may have a value a mask: lists, or text of such."""
    kind = schema.field(name).type
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_string)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return not (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _with_paths(columns: _Columns, parquet: pq.ParquetFile) -> _Columns:
    """The columns, with the paths of {bytes, path} for images where no row stores bytes."""
    if columns.own is None or not pa.types.is_struct(kind := parquet.schema_arrow.field(columns.own).type):
        return columns
    has_path = any(kind.field(index).name == "path" for index in range(kind.num_fields))
    if not has_path or not all_null(parquet, f"{columns.own}.bytes"):
        return columns
    return replace(columns, own=None, uri=columns.own, uri_field="path")


def _size_of(
    row: Mapping[str, Any], number: int, columns: _Columns, sizes: ImageSizes, given: SourceInput
) -> tuple[int, int] | None:
    declared = as_size(*(row.get(side) for side in SIDES))
    return declared or (sizes.of(number) if columns.own else image_size(columns.path(row), given))


def files_root(masks_uri: str) -> str:
    """The folder that paths of mask images are relative to."""
    return masks_uri.rpartition("/")[0] or "." if masks_uri.endswith(PARQUET) else masks_uri


def _planned(
    row: dict[str, Any], number: int, container: str, columns: _Columns, problem: str | None, cells: Cells
) -> PlannedImage:
    image_id = next((as_id(row[name]) for name in ID_COLUMNS if row.get(name) is not None), str(number))
    uri = member_uri(container, number) if columns.own else columns.path(row)
    if not columns.own:
        problem = None if safe_relative(uri) else "image_outside_root"
    return PlannedImage(
        image_uri=uri or f"unnamed-image-{image_id}",
        source_image_id=image_id,
        declared_hw=as_size(*(row.get(side) for side in SIDES)),
        masks=_masks(row, columns, image_id, cells),
        problem=problem,
        member={"container": container, "offset": number, "length": 0, "column": columns.own} if columns.own else None,
        detail=f"row {number} of {container} names no image" if not uri else "",
    )


def _masks(row: dict[str, Any], columns: _Columns, image_id: str, cells: Cells) -> list[PlannedMask]:
    found = _in_row(row, columns, image_id, cells)
    if any(may_be_masks(name, row.get(name)) for name in columns.masks if name in LISTS):
        return found  # segments are of an image of ids
    return with_segments(found, row.get(segments.FIELD), columns.names.get(segments.FIELD, {}), cells.tell)


def _in_row(row: dict[str, Any], columns: _Columns, image_id: str, cells: Cells) -> list[PlannedMask]:
    """A cell that is one mask has its category and id in the columns beside it; of several, they have lists."""
    best, unused = chosen(row, columns.masks)
    column = best or next((name for name in columns.masks if not is_empty(row.get(name))), columns.masks[0])
    others = (name for name in unused if name not in FILES or column not in GEOMETRIES)
    cells.unused(others, column, "--source parquet:masks=")
    cells = replace(cells, names=columns.names[column])
    cell, has_labels = as_rings(row[column], column in GEOMETRIES), _has_labels(row[column])
    beside = {name: row[name] for name in columns.beside if row[name] is not None}
    if column in BOXES:
        return cells.masks_in({**beside, column: cell}, image_id)
    alone = column not in LISTS and cell is not None and not isinstance(cell, list)
    has_category = any(name in beside for name in OF_A_CATEGORY)
    if alone and has_labels and has_category and segments.FIELD not in beside:
        has_labels = not isinstance(cell, Mapping)  # as results of earlier versions have it
        cells.tell(LABELS_COUNT if has_labels else CATEGORY_COUNTS)
    if alone and not has_labels and has_category:
        of_row = {name: value for name, value in beside.items() if name in (*OF_ROWS, *SIDES)}
        return cells.masks_in({**of_row, "segmentation": cell}, image_id)
    said = of_all(beside_of(beside))
    return cells.masks_in(cell, image_id, lists_of(said) if has_labels else said)


def _has_labels(cell: Any) -> bool:
    """Whether a cell is an image of several values, which are its categories; those of soft edges are none."""
    data = cell.get("bytes") if isinstance(cell, Mapping) and is_png(cell) else cell
    data = image_in_text(data) if isinstance(data, str) else data
    try:
        image = label_image.read(data, greys=True) if isinstance(data, bytes) else None
    except MaskError:
        return False
    return image is not None and image.cut is None and len(image.values) > 1


def _class_names(schema: pa.Schema, column: str, masks: Collection[str]) -> dict[int, str]:
    """Names of the first ClassLabel among the features of a column of masks, or of those beside it that say classes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        beside = {name: feature for name, feature in features.items() if name not in masks and name in OF_A_MASK}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    for feature in (features.get(column), beside):
        names = _label_names(feature, 0)
        if names is not None:
            return dict(enumerate(names))
    return {}


def _label_names(feature: Any, depth: int) -> list[str] | None:
    if depth > 6:
        return None
    if isinstance(feature, dict):
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
            return [str(name) for name in feature["names"]]
        feature = list(feature.values())
    for part in feature if isinstance(feature, list) else ():
        found = _label_names(part, depth + 1)
        if found is not None:
            return found
    return None
