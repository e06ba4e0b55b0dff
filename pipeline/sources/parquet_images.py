"""What the images in a column of a Parquet file say of themselves: whether there are any, and their sizes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.decoding import raster

BATCH_ROWS = 64
_OF_MASKS = re.compile(r"mask|seg|label|annot|instance|semantic|panoptic|trimap|truth|(^|_)gt($|_)", re.IGNORECASE)


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
    """Columns that are not known, hold images, and may be masks by their names."""
    found = [field for field in parquet.schema_arrow if field.name not in known and _OF_MASKS.search(field.name)]
    return [field.name for field in found if (path := _images_in(field)) and not all_null(parquet, path)]


def _images_in(field: pa.Field) -> str:
    """The path of a column's images, "" where it has none."""
    kind, path = field.type, field.name
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, path = kind.value_type, f"{path}.list.element"
    if pa.types.is_struct(kind) and {kind.field(place).name for place in range(kind.num_fields)} == {"bytes", "path"}:
        kind, path = kind.field("bytes").type, f"{path}.bytes"
    return path if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else ""
