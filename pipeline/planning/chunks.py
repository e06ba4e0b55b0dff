"""The chunks of a plan in columns: millions of them are some sixty bytes each, and one is made when it is asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage import Store
from schemas import layout
from schemas.records import CHUNKS

BATCH_ROWS = 4096
ORDINAL_BITS = 40


@dataclass(frozen=True)
class Chunk:
    """The unit of work, retry and commit: rows [row_start, row_start + images) of one plan file."""

    chunk_id: str
    file: str
    row_start: int
    images: int
    masks: int


class Chunks(Sequence[Chunk]):
    """Chunks in plan order, which is that of their ids' numbers; `images` and `masks` are counts of each."""

    def __init__(self, table: pa.Table) -> None:
        """table: of schema CHUNKS, `file` as a dictionary."""
        self._table = table.combine_chunks()
        self.images, self.masks = (_numbers(self._table[name]) for name in ("images", "masks"))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Chunk]:
        for batch in self._table.to_batches(BATCH_ROWS):
            yield from (Chunk(**row) for row in batch.to_pylist())

    @overload
    def __getitem__(self, place: int) -> Chunk: ...
    @overload
    def __getitem__(self, place: slice) -> list[Chunk]: ...
    def __getitem__(self, place: int | slice) -> Chunk | list[Chunk]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return Chunk(**self._table.slice(place % len(self), 1).to_pylist()[0])

    def place_of(self, chunk_id: str) -> int | None:
        """Where a chunk stands, None for one that is not here."""
        place = bisect_left(self._keys, _key(chunk_id))
        return place if place < len(self) and self._table["chunk_id"][place].as_py() == chunk_id else None

    def first_from(self, increment: int, ordinal: int) -> int:
        """Where an increment's chunk of that number stands, or else what comes next."""
        return bisect_left(self._keys, increment << ORDINAL_BITS | ordinal)

    def without(self, superseded: Mapping[str, int]) -> Chunks:
        """All but those of which every row is superseded. superseded: numbers of rows by chunk id."""
        dead = [
            chunk_id
            for chunk_id, rows in superseded.items()
            if (place := self.place_of(chunk_id)) is not None and rows >= self.images[place]
        ]
        gone = pc.is_in(self._table["chunk_id"], pa.array(dead, pa.string()))
        return Chunks(self._table.filter(pc.invert(gone))) if dead else self

    @cached_property
    def _keys(self) -> array[int]:
        return array("q", (_key(chunk_id) for chunk_id in self._table["chunk_id"].to_pylist()))


def read_chunks(output: Store, increments: Sequence[layout.Increment]) -> Chunks:
    """The chunks of some increments, in order."""
    tables = [_read(output, increment) for increment in increments]
    return Chunks(pa.concat_tables([_columns(CHUNKS.empty_table(), {}), *tables]).unify_dictionaries())


def _read(output: Store, increment: layout.Increment) -> pa.Table:
    table = output.read_parquet(increment.chunks, CHUNKS.names)
    said = pc.unique(table["file"]).to_pylist()
    return _columns(table, {name: increment.file(layout.name_of(name)) for name in said})


def _columns(table: pa.Table, files: Mapping[str, str]) -> pa.Table:
    """The table with `file` as a dictionary of the files' own paths."""
    said = table["file"].combine_chunks().dictionary_encode()
    said = said.combine_chunks() if isinstance(said, pa.ChunkedArray) else said
    paths = pa.array([files[name] for name in said.dictionary.to_pylist()], pa.string())
    place = table.schema.get_field_index("file")
    return table.set_column(place, "file", pa.DictionaryArray.from_arrays(said.indices, paths))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    return np.asarray(column.to_numpy(), np.int32)


def _key(chunk_id: str) -> int:
    """Of the id's numbers: increments come one after the other, and each has its chunks in order."""
    increment, ordinal, _ = chunk_id.split("-")
    return int(increment) << ORDINAL_BITS | int(ordinal)
