"""Plan rows on their way to disk, by hash range of the image id, so that planning holds one range at a time.

There are as many ranges as the rows need: one that has more than a bucket may hold is spilled again, into finer ones.
Rows stay the JSON that they came as until a range is compared with the plan, wherever that is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from pipeline.storage.disk_table import DiskTable, as_json, values_of
from schemas.attempts import HASHES, RANGES
from schemas.layout import HashRange

BUCKET_ROWS = 16_384
ROW_CHARACTERS = 4096  # a row whose masks have more counts as several
ROWS, CHARACTERS = 512, 1 << 22
"""That are handed on at once."""

Row = dict[str, Any]


ALL = HashRange(0, RANGES - 1)


class Rows(NamedTuple):
    """Rows in columns: each row's JSON, the hash of its image id, its weight, and the file that its image is or is in.
    What a listing says of that file is not in the JSON.
    """

    lines: list[str]
    hashes: list[int]
    weights: list[int]
    files: list[str]

    @classmethod
    def none(cls) -> Rows:
        """To be added to."""
        return cls([], [], [], [])

    def add(self, row: Row, file: str) -> int:
        """Take a row of the plan, its `masks` not yet numbered; returns the length of its JSON."""
        line = as_json(row)
        self.lines.append(line)
        self.hashes.append(hash_of(row["image_id"]))
        self.weights.append(1 + sum(len(mask["geometry"]) for mask in row["masks"]) // ROW_CHARACTERS)
        self.files.append(file)
        return len(line)


class Bucket(NamedTuple):
    """The rows of a hash range, in pieces that `rows` takes: one finest range after another, each in the order it was
    filled.
    """

    place: HashRange
    blocks: list[str]

    def rows(self) -> list[Row]:
        """Each with the etag and size of its file."""
        return [{**row, "etag": etag, "size_bytes": size} for _, _, row, etag, size in values_of(self.blocks)]


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

    def take(self, rows: Rows, told: Callable[[str], tuple[str | None, int | None]]) -> None:
        """told: a file's path -> its etag and size, as rows have them."""
        for line, number, weight, file in zip(*rows, strict=True):
            etag, size = told(file)
            self._add(number, weight, f"[{number},{weight},{line},{as_json(etag)},{as_json(size)}]")

    def buckets(self, widest: int = RANGES) -> Iterator[Bucket]:
        """Every range is in one of them; of one bucket are at most `widest`."""
        first, ranges = self._within.low, self._within.ranges
        for low, high, weight in runs(self._weights, widest):
            if ranges == RANGES and (parts := parts_of(weight)) > 1:
                yield from self._split(low, high, parts)
            else:
                yield Bucket(HashRange(first + low, first + high, ranges), list(self._table.blocks(low, high)))

    def _add(self, number: int, weight: int, line: str) -> None:
        place = number * self._within.ranges // HASHES - self._within.low
        self._table.add_line(place, line)
        self._weights[place] += weight
        self.rows += 1

    def _split(self, low: int, high: int, parts: int) -> Iterator[Bucket]:
        """Ranges, each divided in `parts`."""
        with TemporaryDirectory(dir=self._folder) as folder:
            finer = HashRange(low * parts, (high + 1) * parts - 1, RANGES * parts)
            spill = Spill(Path(folder), finer)
            for line in self._table.lines(low, high):
                number, weight, _ = line[1:].split(",", 2)
                spill._add(int(number), int(weight), line)
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
