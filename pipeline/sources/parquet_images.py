"""What the images in a column of a Parquet file say of themselves: whether there are any, and their sizes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.decoding import label_image, raster
from pipeline.errors import MaskError

BATCH_ROWS = 64
_OF_MASKS = re.compile(r"mask|seg|label|annot|instance|semantic|panoptic|trimap|truth|(^|_)gt($|_)", re.IGNORECASE)
_OF_SURFACES = re.compile(r"depth|disparity|normal", re.IGNORECASE)


def all_null(parquet: pq.ParquetFile, path: str) -> bool:
    """Whether the statistics of a column say that it holds nothing."""
    chunks = [
        chunk
        for group in range(parquet.num_row_groups)
        for chunk in map(parquet.metadata.row_group(group).column, range(parquet.metadata.num_columns))
        if chunk.path_in_schema == path
    ]
    known = [chunk.statistics for chunk in chunks]
    return bool(chunks) and all(one is not None and one.has_null_count and not one.num_values for one in known)


class ImageSizes:
    """(H, W) of the images in a column, read a row group at a time where a row asks."""

    def __init__(self, parquet: pq.ParquetFile, column: str | None) -> None:
        self._parquet, self._column = parquet, column
        self._rows, self._sizes = range(0), list[tuple[int, int] | None]()

    def of(self, number: int) -> tuple[int, int] | None:
        """Of a row of the file; None where it holds no image."""
        if number not in self._rows:
            self._read(number)
        return self._sizes[number - self._rows.start]

    def _read(self, number: int) -> None:
        group = end = 0
        while end + self._parquet.metadata.row_group(group).num_rows <= number:
            end += self._parquet.metadata.row_group(group).num_rows
            group += 1
        batches = self._parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=[self._column])
        cells = (cell for batch in batches for cell in batch.column(0).to_pylist())
        self._sizes = [_size_in(cell) for cell in cells]
        self._rows = range(end, end + len(self._sizes))


def _size_in(cell: Any) -> tuple[int, int] | None:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return raster.size_hw(data) if isinstance(data, bytes) else None


def images_beside(parquet: pq.ParquetFile, known: Collection[str]) -> list[str]:
    """Columns that are not known, hold images, and may be masks by their names and by their first image."""
    named = [one for one in parquet.schema_arrow if _OF_MASKS.search(one.name) and not _OF_SURFACES.search(one.name)]
    named = [field for field in named if field.name not in known]
    found = [field.name for field in named if (path := _images_in(field)) and not all_null(parquet, path)]
    return [name for name in found if _may_be_mask(_first_in(parquet, name))]


def _first_in(parquet: pq.ParquetFile, column: str) -> bytes | None:
    for batch in parquet.iter_batches(BATCH_ROWS, columns=[column]):
        for cell in batch.column(0).to_pylist():
            for one in cell if isinstance(cell, list) else [cell]:
                if data := one.get("bytes") if isinstance(one, Mapping) else one:
                    return bytes(data)
    return None


def _may_be_mask(data: bytes | None) -> bool:
    """Whether an image is no photograph, as many a `masked_image` is; a damaged one may be a mask."""
    if data is None:
        return False
    try:
        label_image.read(data, greys=True)
    except MaskError:
        return raster.size_hw(data) is None
    return True


def _images_in(field: pa.Field) -> str:
    """The path of a column's images, "" where it has none."""
    kind, path = field.type, field.name
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, path = kind.value_type, f"{path}.list.element"
    if pa.types.is_struct(kind) and {kind.field(place).name for place in range(kind.num_fields)} == {"bytes", "path"}:
        kind, path = kind.field("bytes").type, f"{path}.bytes"
    return path if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else ""
