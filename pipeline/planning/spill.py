"""Plan rows on their way to disk, by hash range of the image id, so that planning holds one range at a time.

There are as many ranges as the rows need: one that has more than a bucket may hold is spilled again, into finer ones.
Rows stay the JSON that they came as until a range is compared with the plan, wherever that is done. Where tasks do it,
rows go from task to task by the store instead (`shuffle.py`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeline.storage.disk_table import BETWEEN, DiskTable, as_json, scratch_folder
from schemas.attempts import HASHES, RANGES
from schemas.layout import HashRange
from schemas.secrets import redacted

BUCKET_ROWS = 16_384
ROW_CHARACTERS = 4096  # a row whose masks have more counts as several
ROWS, CHARACTERS = 8192, 1 << 22
"""That are handed on at once."""
FILES_AT_ONCE = 1 << 17
"""That a bucket may hold beside its rows."""

Row = dict[str, Any]


ALL = HashRange(0, RANGES - 1)


class Lines(NamedTuple):
    """Rows of the plan, or files of a listing, by hash range: JSON as `DiskTable.add_line` takes it, and its weights.

    entries: how many images, or entries of a listing, these were found among. containers: the files that some of the
    images are in. What a listing says of files is not in the JSON of rows.
    """

    lines: dict[int, list[str]]
    weights: dict[int, int]
    entries: int
    containers: Collection[str] = ()

    @property
    def weight(self) -> int:
        """Of all ranges."""
        return sum(self.weights.values())

    def blocks(self) -> dict[int, str]:
        """The lines of each range as one block."""
        return {place: BETWEEN.join(lines) for place, lines in self.lines.items()}


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
        own = "null" if file == row["image_uri"] else as_json(redacted(file) if "://" in file else file)
        self._lines[place].append(f"[{number},{weight},{line},{own}]")
        self._weights[place] += weight
        if row["member"]:
            self._containers.add(file)
        self.images += 1
        self.characters += len(line)

    def rows(self) -> Lines:
        """All that was added."""
        return Lines(dict(self._lines), dict(self._weights), self.images, self._containers)


class Bucket(NamedTuple):
    """The rows of a hash range and the files that were listed in it, in pieces that `values_of` takes, each range in
    the order it was filled. are_all: whether these are all files that were listed; else those of the rows.
    """

    place: HashRange
    blocks: list[str]
    files: list[str]
    are_all: bool


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


class Ranged(Protocol):
    """Lines of JSON by hash range; each begins with its hash. weights: of each range.

    within: what the hashes are in, in the ranges that it counts.
    """

    @property
    def within(self) -> HashRange: ...
    @property
    def weights(self) -> Sequence[int]: ...

    def blocks(self, place: HashRange) -> Iterator[str]:
        """In pieces that `values_of` takes, each range in the order it was filled. place: in the ranges it counts."""
        ...


def weight_of(ranged: Ranged, place: HashRange) -> int:
    """Of some of its ranges."""
    return sum(ranged.weights[place.low - ranged.within.low : place.high - ranged.within.low + 1])


class OnDisk:
    """`Ranged`: in memory while they are few, in a folder beyond."""

    def __init__(self, folder: Path, within: HashRange = ALL) -> None:
        folder.mkdir(exist_ok=True)
        ranges = within.high - within.low + 1
        self.within, self.weights = within, [0] * ranges
        self._table = DiskTable(folder)

    def add(self, place: int, weight: int, block: str) -> None:
        """A line, or some as a block. place: the range's number."""
        number = place - self.within.low
        self._table.add_line(number, block)
        self.weights[number] += weight

    def take(self, some: Lines) -> None:
        """In the order in which they come."""
        for place, block in some.blocks().items():
            self.add(place, some.weights[place], block)

    def add_finer(self, blocks: Iterable[str], weigh: Callable[[str], int]) -> None:
        """Blocks of wider ranges, line by line. weigh: of a line."""
        for block in blocks:
            for line in block.split(BETWEEN):
                self.add(int(line[1 : line.index(",")]) * self.within.ranges // HASHES, weigh(line), line)

    def blocks(self, place: HashRange) -> Iterator[str]:
        """As `Ranged` has them."""
        return self._table.blocks(place.low - self.within.low, place.high - self.within.low)


Narrow = Callable[[Sequence[str], Ranged, HashRange], list[str]]
"""Blocks of rows, files, a range -> blocks of those files in the range that the rows are of."""


def divisions(rows: Ranged, widest: int = RANGES) -> Iterator[HashRange]:
    """Runs of the ranges that it counts, each with about as many rows as a bucket may hold, or one range that has more.

    widest: ranges of one run, at most.
    """
    for low, high, _ in runs(rows.weights, widest):
        yield HashRange(rows.within.low + low, rows.within.low + high, rows.within.ranges)


def buckets(rows: Ranged, files: Ranged, place: HashRange, narrow: Narrow) -> Iterator[Bucket]:
    """The rows of one of the `divisions`, and the files that were listed there: in finer ranges where it has too many.

    narrow: where the files of a bucket are too many for one.
    """
    parts = parts_of(weight_of(rows, place)) if place.ranges == RANGES else 1
    if parts == 1:
        blocks, few = list(rows.blocks(place)), weight_of(files, place) <= FILES_AT_ONCE
        yield Bucket(place, blocks, list(files.blocks(place)) if few else narrow(blocks, files, place), few)
        return
    within = HashRange(place.low * parts, (place.high + 1) * parts - 1, place.ranges * parts)
    with scratch_folder("ranges") as folder:
        finer_rows, finer_files = OnDisk(folder / "rows", within), OnDisk(folder / "files", within)
        finer_rows.add_finer(rows.blocks(place), _weight_of)
        finer_files.add_finer(files.blocks(place), _one)
        for finer in divisions(finer_rows):
            yield from buckets(finer_rows, finer_files, finer, narrow)


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
