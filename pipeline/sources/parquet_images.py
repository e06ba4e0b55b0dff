"""What the images in a column of a Parquet file say of themselves: whether there are any, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from pipeline.decoding import raster

BATCH_ROWS = 64


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
