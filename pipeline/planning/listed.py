"""The files of `--images` by hash range, as rows of the plan are, so that they meet where a range is compared.

A file is in the range of the image id that it would have.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from pipeline.planning.coverage import account_for_images
from pipeline.planning.rows import as_text, tag
from pipeline.planning.scanning import Flow
from pipeline.planning.spill import Bucket, Ranged, Row, hash_of
from pipeline.sources.coverage import Coverage
from pipeline.sources.inventory import DataFile, Inventory
from pipeline.storage import StoredFile
from pipeline.storage.disk_table import BETWEEN, as_json, scratch_folder, values_of
from schemas.attempts import HASHES, RANGES
from schemas.layout import HashRange

FILES = 1 << 16
"""That are handed on at once."""
INVENTORY_BYTES = 1 << 26
"""Of data files that one process reads sooner than others have begun to."""


class Files(NamedTuple):
    """Of a listing, by hash range: their JSON as `Ranged` takes it, and how many. entries: that they were among."""

    lines: dict[int, str]
    counts: dict[int, int]
    entries: int


class Listed(Mapping[str, StoredFile]):
    """Files by path, in no order. One is looked up by a search of its range: right for a few of them."""

    def __init__(self, ranged: Ranged) -> None:
        self.ranged = ranged

    def __getitem__(self, path: str) -> StoredFile:
        number = _number(path)
        place, begin = number * RANGES // HASHES, f"[{number},{as_json(path)},"
        for block in reversed(list(self.ranged.blocks(HashRange(place, place)))):
            if (start := block.rfind(begin)) >= 0:
                return _file(json.loads(block[start:].partition(BETWEEN)[0]))
        raise KeyError(path)

    def __iter__(self) -> Iterator[str]:
        for place in range(RANGES):
            yield from _by_path(self.ranged.blocks(HashRange(place, place)))

    def __len__(self) -> int:
        """Entries: of a file that was listed twice, both."""
        return sum(self.ranged.weights)


@contextmanager
def listing_of(found: Iterable[Files]) -> Iterator[Listed]:
    """The files, for as long as the context lasts. Of two of a path the last one counts."""
    with scratch_folder("files") as folder:
        ranged = Ranged(folder)
        for some in found:
            for place, lines in some.lines.items():
                ranged.add(place, some.counts[place], lines)
        yield Listed(ranged)


def by_range(files: Mapping[str, StoredFile]) -> AbstractContextManager[Listed]:
    """Files by path as they may be had for each range, for as long as the context lasts."""
    return nullcontext(files) if isinstance(files, Listed) else listing_of(in_ranges(files.values()))


def in_ranges(files: Iterable[StoredFile]) -> Iterator[Files]:
    """Some at a time."""
    waiting = iter(files)
    while some := list(islice(waiting, FILES)):
        yield of_range(some, len(some))


def of_range(files: Sequence[StoredFile], entries: int) -> Files:
    """Files that are handed on at once."""
    lines: dict[int, list[str]] = defaultdict(list)
    for file in files:
        number = _number(file.path)
        lines[number * RANGES // HASHES].append(f"[{number},{as_json(file)[1:]}")
    blocks = {place: BETWEEN.join(some) for place, some in lines.items()}
    return Files(blocks, {place: len(some) for place, some in lines.items()}, entries)


@dataclass(frozen=True)
class _Lister:
    """Reads data files of an inventory; it is sent to where that is done."""

    inventory: Inventory

    def __call__(self, data: DataFile) -> Iterator[Files]:
        for some in self.inventory.scan(data):
            yield of_range(some.files, some.entries)


def is_large(inventory: Inventory) -> bool:
    """Whether it is worth while to read it elsewhere, several files at a time."""
    return len(inventory.files) > 1 and sum(data.size for data in inventory.files) >= INVENTORY_BYTES


def of_inventory(inventory: Inventory, flow: Flow) -> Iterator[Files]:
    """What an inventory has below `--images`. Raises RefusedError where that is nothing, or a file is damaged."""
    found = entries = 0
    for some in flow(_Lister(inventory), inventory.files):
        found += sum(some.counts.values())
        entries += some.entries
        yield some
    inventory.check(found, entries)


def join(bucket: Bucket, containers: Mapping[str, StoredFile], coverage: Coverage) -> list[Row]:
    """The rows of a bucket, each with tag and size of its file. The coverage is told about the files of `--images`.

    containers: files that images are in, as far as they were listed.
    """
    files = _by_path(bucket.files)
    rows: list[Row] = []
    planned: set[str] = set()
    for row, path in _rows(bucket.blocks):
        found = containers.get(path) if row["member"] else _file(files[path]) if path in files else None
        row["etag"], row["size_bytes"] = (tag(found), found.size) if found else (None, None)
        rows.append(row)
        planned.add(path)
    if bucket.are_all:
        account_for_images(((path, path in planned or path in containers) for path in files), coverage)
    return rows


@dataclass(frozen=True)
class Narrowing:
    """Finds the files of a bucket's rows among those of its range, which are too many to be held, and accounts for all
    of them.
    """

    containers: Mapping[str, StoredFile]
    coverage: Coverage

    def __call__(self, blocks: Sequence[str], files: Ranged, place: HashRange) -> list[str]:
        planned, kept = {path for _, path in _rows(blocks)}, []
        for number in range(place.low, place.high + 1):
            found = _by_path(files.blocks(HashRange(number, number, place.ranges)))
            told = ((path, path in planned or path in self.containers) for path in found)
            account_for_images(told, self.coverage)
            kept += [as_json(one) for path, one in found.items() if path in planned]
        return [BETWEEN.join(kept)] if kept else []


def _rows(blocks: Iterable[str]) -> Iterator[tuple[Row, str]]:
    """Each row, and the path of the file that its image is or is in."""
    for _, _, row, file in values_of(blocks):
        yield row, row["image_uri"] if file is None else file


def _by_path(blocks: Iterable[str]) -> dict[str, list[Any]]:
    return {one[1]: one for one in values_of(blocks)}


def _file(value: Sequence[Any]) -> StoredFile:
    return StoredFile(*value[1:])


def _number(path: str) -> int:
    return hash_of(as_text(path))
