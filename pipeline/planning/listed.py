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
from typing import Any

from pipeline.planning.coverage import account_for_images
from pipeline.planning.flow import one_by_one
from pipeline.planning.rows import as_text, tag
from pipeline.planning.sheets import Sheets
from pipeline.planning.shuffle import Gathered, Read, Shuffle, Told
from pipeline.planning.spill import Bucket, Lines, Ranged, Row, hash_of
from pipeline.sources.coverage import Coverage
from pipeline.sources.inventory import DataFile, Inventory
from pipeline.storage import Store, StoredFile
from pipeline.storage.disk_table import BETWEEN, as_json, scratch_folder, values_of
from pipeline.storage.listing import Searched
from schemas.attempts import HASHES, RANGES
from schemas.layout import HashRange

FILES = 1 << 16
"""That are handed on at once."""
INVENTORY_BYTES = 1 << 26
"""Of data files that one process reads sooner than others have begun to."""


class Listed(Searched):
    """Files by path, in no order. One is looked up by a search of its range: right for a few of them."""

    def __init__(self, ranged: Ranged) -> None:
        self.ranged = ranged

    def __getitem__(self, path: str) -> StoredFile:
        if found := self.find([path]):
            return found[path]
        raise KeyError(path)

    def find(self, paths: Iterable[str]) -> dict[str, StoredFile]:
        """Each range is searched once."""
        places: dict[int, list[str]] = defaultdict(list)
        for path in paths:
            places[_number(path) * RANGES // HASHES].append(path)
        found = {}
        for place, wanted in places.items():
            blocks = list(self.ranged.blocks(HashRange(place, place)))[::-1]
            found.update({path: file for path in wanted if (file := _found(blocks, path)) is not None})
        return found

    def __iter__(self) -> Iterator[str]:
        for place in range(RANGES):
            yield from _by_path(self.ranged.blocks(HashRange(place, place)))

    def __len__(self) -> int:
        """Entries: of a file that was listed twice, both."""
        return sum(self.ranged.weights)


def _found(blocks: Iterable[str], path: str) -> StoredFile | None:
    begin = f"[{_number(path)},{as_json(path)},"
    for block in blocks:
        if (start := block.rfind(begin)) >= 0:
            return _file(json.loads(block[start:].partition(BETWEEN)[0]))
    return None


@contextmanager
def listing_of(some: Iterable[Lines | Told], output: Store) -> Iterator[Listed]:
    """The files, for as long as the context lasts. Of two of a path the last one counts. output: where those are of
    which others only tell.
    """
    with scratch_folder("files") as folder:
        gathered = Gathered(output, folder, some)
        for _ in gathered.each():
            pass
        yield Listed(gathered.ranged)


def by_range(
    files: Mapping[str, StoredFile], output: Store, shuffle: Shuffle | None = None
) -> AbstractContextManager[Listed]:
    """Files by path as they may be had for each range, for as long as the context lasts. shuffle: by which others are
    to have them.
    """
    if isinstance(files, Listed) and (shuffle is None or isinstance(files.ranged, Sheets)):
        return nullcontext(files)
    found = in_ranges(files.values())
    return listing_of(found if shuffle is None else shuffle.bring(found), output)


def in_ranges(files: Iterable[StoredFile]) -> Iterator[Lines]:
    """Some at a time."""
    waiting = iter(files)
    while some := list(islice(waiting, FILES)):
        yield of_range(some, len(some))


def of_range(files: Sequence[StoredFile], entries: int) -> Lines:
    """Files that are handed on at once."""
    lines: dict[int, list[str]] = defaultdict(list)
    for file in files:
        number = _number(file.path)
        lines[number * RANGES // HASHES].append(f"[{number},{as_json(file)[1:]}")
    return Lines(lines, {place: len(some) for place, some in lines.items()}, entries)


@dataclass(frozen=True)
class _Lister:
    """Reads data files of an inventory; it is sent to where that is done."""

    inventory: Inventory

    def __call__(self, data: DataFile) -> Iterator[Read]:
        for some in self.inventory.scan(data):
            yield Read(of_range(some.files, some.entries))

    def identity(self, data: DataFile) -> Any:
        """What the files in it depend on, as JSON; None where one that was changed could pass for itself."""
        if data.tag is None:
            return None
        inventory, told = self.inventory, [data.store.uri, data.path, data.size, data.told_size, data.tag]
        return [inventory.uri, inventory.images_uri, inventory.bucket, told]


def is_large(inventory: Inventory) -> bool:
    """Whether it is worth while to read it elsewhere, several files at a time."""
    return len(inventory.files) > 1 and sum(data.size for data in inventory.files) >= INVENTORY_BYTES


def of_inventory(inventory: Inventory, shuffle: Shuffle | None) -> Iterator[Lines | Told]:
    """What an inventory has below `--images`. Raises RefusedError where that is nothing, or a file is damaged.

    shuffle: None: it is read in this process.
    """
    found = entries = 0
    lister = _Lister(inventory)
    if shuffle is None:
        files: Iterable[Lines | Told] = (read.lines for read in one_by_one(lister, inventory.files))
    else:
        files = shuffle.each(lister, lister.identity, inventory.files)
    for some in files:
        found += some.weight
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
