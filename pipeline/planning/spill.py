"""Plan rows on their way to disk, by hash range of the image id, so that planning holds one range at a time.

There are as many ranges as the rows need: one that has more than a bucket may hold is spilled again, into finer ones.
Rows stay the JSON that they came as until a range is compared with the plan, wherever that is done.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.storage.disk_table import BETWEEN, DiskTable, as_json, scratch_folder
from schemas.attempts import HASHES, RANGES
from schemas.layout import HashRange

BUCKET_ROWS = 16_384
ROW_CHARACTERS = 4096  # a row whose masks have more counts as several
ROWS, CHARACTERS = 8192, 1 << 22
"""That are handed on at once."""
SENT_CHARACTERS = 1 << 26
"""Of a bucket that is divided where it is compared; one of more is divided before."""
FILES_AT_ONCE = 1 << 17
"""That a bucket may have listed to be sent with them."""

Row = dict[str, Any]


ALL = HashRange(0, RANGES - 1)


class Rows(NamedTuple):
    """Rows by hash range: their JSON as `DiskTable.add_line` takes it, and their weights. images: how many rows;
    containers: the files that some of their images are in. What a listing says of files is not in the JSON.
    """

    lines: dict[int, list[str]]
    weights: dict[int, int]
    containers: set[str]
    images: int

    def blocks(self) -> Rows:
        """The same, with the lines of a range as one."""
        return self._replace(lines={place: [BETWEEN.join(lines)] for place, lines in self.lines.items()})


class Filling:
    """Rows as they are added."""

    def __init__(self) -> None:
        self.images = self.characters = 0
        self._lines: dict[int, list[str]] = defaultdict(list)
        self._weights: dict[int, int] = defaultdict(int)
        self._containers: set[str] = set()

    def add(self, row: Row, file: str) -> None:
        """Take a row of the plan, its `masks` not yet numbered. file: that its image is, or is in."""
        line, number = as_json(row), hash_of(row["image_id"])
        weight = 1 + sum(len(mask["geometry"]) for mask in row["masks"]) // ROW_CHARACTERS
        place = number * RANGES // HASHES
        own = "null" if file == row["image_uri"] else as_json(file)
        self._lines[place].append(f"[{number},{weight},{line},{own}]")
        self._weights[place] += weight
        if row["member"]:
            self._containers.add(file)
        self.images += 1
        self.characters += len(line)

    def rows(self) -> Rows:
        """All that was added."""
        return Rows(dict(self._lines), dict(self._weights), self._containers, self.images)


class Bucket(NamedTuple):
    """The rows of a hash range and the files that were listed in it, in pieces that `values_of` takes: one finest range
    after another, each in the order it was filled. are_all: whether these are all files that were listed; else those
    of the rows. parts: how many buckets of finer ranges it has to be `divided` into, at least.
    """

    place: HashRange
    blocks: list[str]
    files: list[str]
    are_all: bool = True
    parts: int = 1


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


class Ranged:
    """Lines of JSON by hash range: in memory while they are few, on disk beyond. Each begins with its hash.

    within: what the hashes are in, in the ranges that it counts. weights, characters: of each range.
    """

    def __init__(self, folder: Path, within: HashRange = ALL) -> None:
        folder.mkdir(exist_ok=True)
        ranges = within.high - within.low + 1
        self.within, self.weights, self.characters = within, [0] * ranges, [0] * ranges
        self._table = DiskTable(folder)

    def add(self, place: int, weight: int, block: str) -> None:
        """A line, or some as a block. place: the range's number."""
        number = place - self.within.low
        self._table.add_line(number, block)
        self.weights[number] += weight
        self.characters[number] += len(block)

    def add_finer(self, blocks: Iterable[str], weigh: Callable[[str], int]) -> None:
        """Blocks of wider ranges, line by line. weigh: of a line."""
        for block in blocks:
            for line in block.split(BETWEEN):
                self.add(int(line[1 : line.index(",")]) * self.within.ranges // HASHES, weigh(line), line)

    def blocks(self, place: HashRange) -> Iterator[str]:
        """In pieces that `values_of` takes. place: in the ranges that it counts."""
        return self._table.blocks(place.low - self.within.low, place.high - self.within.low)

    def sum(self, of_ranges: Sequence[int], place: HashRange) -> int:
        """Of weights or characters, in some of its ranges."""
        return sum(of_ranges[place.low - self.within.low : place.high - self.within.low + 1])


Narrow = Callable[[Sequence[str], Ranged, HashRange], list[str]]
"""Blocks of rows, files, a range -> blocks of those files in the range that the rows are of."""


class Spill:
    """Rows by hash range of their image id."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self.containers: set[str] = set()
        self._rows = Ranged(folder / "rows")

    def take(self, rows: Rows) -> None:
        """In the order in which they come."""
        for place, lines in rows.lines.items():
            self._rows.add(place, rows.weights[place], BETWEEN.join(lines))
        self.containers |= rows.containers
        self.rows += rows.images

    def buckets(self, files: Ranged, narrow: Narrow, widest: int = RANGES) -> Iterator[Bucket]:
        """Every range is in one of them; of one bucket are at most `widest`. files: that were listed. narrow: where
        those of a bucket are too many for one.
        """
        return _buckets(self._rows, files, narrow, widest)


def divided(bucket: Bucket, narrow: Narrow) -> Iterator[Bucket]:
    """A bucket, or those of finer ranges that it is divided into."""
    if bucket.parts == 1:
        yield bucket
    else:
        yield from _finer(bucket.place, bucket.parts, bucket.blocks, bucket.files, narrow)


def _buckets(rows: Ranged, files: Ranged, narrow: Narrow, widest: int = RANGES) -> Iterator[Bucket]:
    first, ranges = rows.within.low, rows.within.ranges
    for low, high, weight in runs(rows.weights, widest):
        place = HashRange(first + low, first + high, ranges)
        parts = parts_of(weight) if ranges == RANGES else 1
        if parts > 1 and rows.sum(rows.characters, place) + files.sum(files.characters, place) > SENT_CHARACTERS:
            yield from _finer(place, parts, rows.blocks(place), files.blocks(place), narrow)
        elif parts > 1:
            yield Bucket(place, list(rows.blocks(place)), list(files.blocks(place)), parts=parts)
        else:
            blocks, few = list(rows.blocks(place)), files.sum(files.weights, place) <= FILES_AT_ONCE
            yield Bucket(place, blocks, list(files.blocks(place)) if few else narrow(blocks, files, place), few)


def _finer(place: HashRange, parts: int, rows: Iterable[str], files: Iterable[str], narrow: Narrow) -> Iterator[Bucket]:
    """The buckets of ranges each of which is divided in `parts`. rows, files: blocks of them."""
    within = HashRange(place.low * parts, (place.high + 1) * parts - 1, place.ranges * parts)
    with scratch_folder("ranges") as folder:
        finer_rows, finer_files = Ranged(folder / "rows", within), Ranged(folder / "files", within)
        finer_rows.add_finer(rows, _weight_of)
        finer_files.add_finer(files, _one)
        yield from _buckets(finer_rows, finer_files, narrow)


def _weight_of(line: str) -> int:
    """Of a row, as it stands in its line."""
    return int(line.split(",", 2)[1])


def _one(_line: str) -> int:
    return 1


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
