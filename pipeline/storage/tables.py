"""Parquet, from stored files that are fetched in ranges: whole tables, some rows, computed columns."""

from __future__ import annotations

import io
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import JobError
from pipeline.storage.backoff import brief

READ_AHEAD_BYTES = 1 << 22


def parquet_bytes(table: pa.Table, row_group_rows: int | None = None) -> bytes:
    """`table` as a Parquet file (zstd). Deterministic for one pyarrow version. Without rows it has no row group either:
    `datasets` reads in batches of the first one's rows, and fails at 0.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        if table.num_rows:
            writer.write_table(table, row_group_size=row_group_rows)
    return bytes(sink.getvalue().to_pybytes())


@contextmanager
def undamaged(where: str) -> Iterator[None]:
    """Arrow's complaints about a file's content as one line, and that it is not there. where: the file."""
    try:
        yield
    except FileNotFoundError:
        raise JobError(f"{where} is not there, and something names it") from None
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{where} is damaged: {brief(error)}") from None


def read(file: Any, columns: list[str] | None) -> pa.Table:
    """All rows of a Parquet file."""
    return pq.ParquetFile(file).read(columns)


def read_rows(file: Any, start: int, count: int, columns: list[str] | None) -> pa.Table:
    """Rows [start, start + count); only the row groups that hold them are read."""
    parquet = pq.ParquetFile(file)
    groups, first_row = _groups_of(parquet.metadata, range(start, start + count))
    return parquet.read_row_groups(groups, columns=columns).slice(start - first_row, count)


def _groups_of(metadata: pq.FileMetaData, wanted: range) -> tuple[list[int], int]:
    """The row groups that hold some rows, and the first row of the first of them."""
    groups: list[int] = []
    first_row, row = 0, 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < wanted.stop and row + rows > wanted.start:
            first_row = row if not groups else first_row
            groups.append(group)
        row += rows
    return groups, first_row


def find_rows(file: Any, key: str, wanted: Sequence[str], columns: list[str]) -> pa.Table:
    """The rows whose `key` is one of `wanted`, which is sorted; only row groups that may hold one are read."""
    parquet = pq.ParquetFile(file)
    column = [parquet.schema.column(number).path for number in range(len(parquet.schema))].index(key)
    groups = [
        group for group in range(parquet.num_row_groups) if _may_hold(parquet.metadata.row_group(group), column, wanted)
    ]
    table = parquet.read_row_groups(groups, columns=columns)
    return table.filter(pc.is_in(table[key], pa.array(wanted, pa.string())))


def _may_hold(group: pq.RowGroupMetaData, column: int, wanted: Sequence[str]) -> bool:
    """Whether one of the values is within the limits that a row group states for a column."""
    limits = group.column(column).statistics
    if limits is None or not limits.has_min_max:
        return True
    place = bisect_left(wanted, limits.min)
    return place < len(wanted) and wanted[place] <= limits.max


def scan(
    file: BinaryIO,
    columns: dict[str, pc.Expression],
    where: pc.Expression | None,
    schema: pa.Schema | None,
    rows: range | None = None,
) -> pa.Table:
    """Columns computed by expressions, rows in order. Row groups are left out of which their statistics say that no row
    is meant. rows: only these, then without `where`.
    """
    import pyarrow.dataset as ds  # it imports pandas, which takes longer than all else that a command needs

    fragment = ds.ParquetFileFormat().make_fragment(_readable(file))
    if rows is None:
        return fragment.to_table(schema=schema, columns=columns, filter=where)
    groups, first_row = _groups_of(fragment.metadata, rows)
    table = fragment.subset(row_group_ids=groups).to_table(schema=schema, columns=columns)
    return table.slice(rows.start - first_row, len(rows))


def _readable(file: BinaryIO) -> pa.NativeFile:
    """A local file without Python in between: Arrow's threads may let go of it while the interpreter already ends, and
    a thread of theirs that then waits for Python aborts the process.
    """
    if isinstance(file, io.BufferedReader) and isinstance(file.name, str):
        return pa.OSFile(os.fsencode(file.name))  # whatever bytes a name has
    return pa.PythonFile(file, mode="r")


class Ranges(io.RawIOBase):
    """`fetch(start, length)` gives bytes of a file of `size` bytes; one window of them, of `ahead` or more, is held."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes], ahead: int = READ_AHEAD_BYTES) -> None:
        super().__init__()
        self._size, self._fetch, self._ahead = size, fetch, ahead
        self._at = self._held_at = 0
        self._held = b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        end = self._size if count is None or count < 0 else min(self._size, self._at + count)
        if not self._held_at <= self._at <= end <= self._held_at + len(self._held):
            ahead = min(self._size, max(end, self._at + self._ahead))
            self._held, self._held_at = self._fetch(self._at, ahead - self._at), self._at
        found = self._held[self._at - self._held_at : end - self._held_at]
        self._at = end
        return found
