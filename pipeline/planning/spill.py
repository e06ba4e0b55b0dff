"""Plan rows on their way to disk, by hash range of the image id, so that planning holds one range at a time.

There are as many ranges as the rows need: one that has more than a bucket may hold is spilled again, into finer ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from pipeline.storage.disk_table import DiskTable
from schemas.attempts import HASHES, RANGES
from schemas.layout import HashRange

BUCKET_ROWS = 16_384
ROW_CHARACTERS = 4096  # a row whose masks have more counts as several

Row = dict[str, Any]


ALL = HashRange(0, RANGES - 1)


class Bucket(NamedTuple):
    """The rows of a hash range: one finest range after another, each in the order it was filled."""

    place: HashRange
    rows: list[Row]


def hash_of(image_id: str) -> int:
    """0 .. HASHES - 1.

    Images that lie together in a container stay together, ten thousand rows of a Parquet file at a time: the last four
    characters of their name in it do not count.
    """
    container, mark, name = image_id.rpartition("#")
    together = container + mark + name[:-4] if mark else image_id
    return int.from_bytes(hashlib.sha256(together.encode()).digest()[:4], "big")


def hash_range(image_id: str, ranges: int = RANGES) -> int:
    """0 .. ranges - 1, by the hash of the id."""
    return hash_of(image_id) * ranges // HASHES


class Spill:
    """Rows by hash range of their image id: in memory while they are few, on disk beyond.

    within: what the ids hash into, in the ranges that it counts.
    """

    def __init__(self, folder: Path, within: HashRange = ALL) -> None:
        self.rows = 0
        self._folder, self._within = folder, within
        self._table = DiskTable(folder)
        self._weights = [0] * (within.high - within.low + 1)

    def add(self, row: Row) -> None:
        """Take a row of the plan; its `masks` are not yet numbered."""
        number = hash_range(row["image_id"], self._within.ranges) - self._within.low
        self._table.add(number, row)
        self._weights[number] += 1 + sum(len(mask["geometry"]) for mask in row["masks"]) // ROW_CHARACTERS
        self.rows += 1

    def buckets(self, widest: int = RANGES) -> Iterator[Bucket]:
        """Every range is in one of them; of one bucket are at most `widest`."""
        first, ranges = self._within.low, self._within.ranges
        for low, high, weight in runs(self._weights, widest):
            if ranges == RANGES and (parts := parts_of(weight)) > 1:
                yield from self._split(low, high, parts)
            else:
                yield Bucket(HashRange(first + low, first + high, ranges), self._table.read(low, high))

    def _split(self, low: int, high: int, parts: int) -> Iterator[Bucket]:
        """Ranges, each divided in `parts`."""
        with TemporaryDirectory(dir=self._folder) as folder:
            finer = HashRange(low * parts, (high + 1) * parts - 1, RANGES * parts)
            spill = Spill(Path(folder), finer)
            for row in self._table.each(low, high):
                spill.add(row)
            yield from spill.buckets()


def runs(weights: Sequence[int], widest: int = RANGES) -> Iterator[tuple[int, int, int]]:
    """Consecutive ranges that together hold about BUCKET_ROWS: the first, the last, their rows. weights: each one's."""
    low, rows = 0, 0
    for number, weight in enumerate(weights):
        if number > low and ((rows and rows + weight > BUCKET_ROWS) or number - low >= widest):
            yield low, number - 1, rows
            low, rows = number, 0
        rows += weight
    yield low, len(weights) - 1, rows


def parts_of(rows: int) -> int:
    """How many ranges one of so many rows is divided into; 1 where it stays as it is."""
    return 1 << (rows // BUCKET_ROWS).bit_length() if rows > 2 * BUCKET_ROWS else 1
