"""Chunks in columns: the same in every order of asking, found by id, and small."""

import pyarrow as pa
import pytest

from pipeline.planning.chunks import Chunk, Chunks
from schemas import layout
from schemas.records import CHUNKS


def made(counts: dict[int, int]) -> list[Chunk]:
    """counts: chunks of each increment."""
    return [
        Chunk(layout.chunk_id(number, ordinal, f"{ordinal:012x}"), f"plan/{number}/bucket", ordinal, 1 + ordinal % 3, 2)
        for number, count in counts.items()
        for ordinal in range(count)
    ]


def as_columns(chunks: list[Chunk]) -> Chunks:
    table = pa.Table.from_pylist([vars(chunk) for chunk in chunks], CHUNKS)
    return Chunks(table.set_column(1, "file", table["file"].combine_chunks().dictionary_encode()))


def test_they_are_what_they_were_made_of() -> None:
    chunks = made({0: 5000, 1: 3, 12_345: 2})
    found = as_columns(chunks)
    assert list(found) == chunks
    assert [found[place] for place in (0, 4999, 5004, -1)] == [chunks[place] for place in (0, 4999, 5004, -1)]
    assert found[4998:5002] == chunks[4998:5002]
    assert (found.images.sum(), found.masks.sum()) == (sum(chunk.images for chunk in chunks), 2 * len(chunks))
    with pytest.raises(IndexError):
        found[5005]


def test_a_chunk_is_found_by_its_id() -> None:
    chunks = made({0: 30, 7: 20})
    found = as_columns(chunks)
    assert [found.place_of(chunk.chunk_id) for chunk in chunks] == list(range(50))
    others = ("0000-0000003-ffffffffffff", "0003-0000001-000000000001", "0099-0000000-000000000000")
    assert [found.place_of(chunk_id) for chunk_id in others] == [None, None, None]
    assert as_columns([]).place_of(others[0]) is None


def test_those_that_were_wholly_replaced_are_left_out() -> None:
    chunks = made({0: 6})
    found = as_columns(chunks).without({chunks[1].chunk_id: 2, chunks[2].chunk_id: 2, "0009-0000000-000000000000": 5})
    assert list(found) == [chunks[0], *chunks[2:]]  # the third has three images
    assert found.place_of(chunks[1].chunk_id) is None
    assert found.place_of(chunks[5].chunk_id) == 4
