"""A set of paths of any size, by hashes of 64 bits: in memory while they are few, beyond that on disk, by range."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt

from pipeline.storage.disk_table import DiskTable, scratch_folder

HELD = 1 << 17
"""Hashes in memory, before they are written."""
RANGE_BITS = 8
PATHS = 4096
"""That are looked up at once."""
_TABLE = """
    CREATE TABLE hashes (range INTEGER, block BLOB);
    CREATE INDEX by_range ON hashes (range)"""
_KEEP = "INSERT INTO hashes VALUES (?, ?)"
_ANY = "SELECT 1 FROM hashes LIMIT 1"
_RANGE = "SELECT block FROM hashes WHERE range = ?"

Hashes = npt.NDArray[np.uint64]


class PathSet:
    """Paths can be added and looked up, not listed."""

    def __init__(self) -> None:
        self._held = array("Q")
        self._spilled = sqlite3.connect("", check_same_thread=False)  # a file of SQLite's own, gone with it
        self._spilled.executescript(_TABLE)

    def add(self, path: str) -> None:
        """A path that is there already changes nothing."""
        self._held.append(_hash(path))
        if len(self._held) >= HELD:
            self._spill()

    def look_up(self, paths: Iterable[str]) -> Iterator[tuple[str, bool]]:
        """Each path, and whether it is in the set; in any order."""
        if self._spilled.execute(_ANY).fetchone() is None:
            yield from _found(paths, _sorted(self._held))
            return
        self._spill()
        with scratch_folder("paths") as folder:
            table = DiskTable(folder)
            for path in paths:
                table.add(_hash(path) >> (64 - RANGE_BITS), path)
            for number in range(1 << RANGE_BITS):
                yield from _found(map(json.loads, table.lines(number, number)), self._of_range(number))

    def _spill(self) -> None:
        hashes = _sorted(self._held)
        numbers, starts = np.unique(hashes >> np.uint64(64 - RANGE_BITS), return_index=True)
        blocks = np.split(hashes, starts[1:]) if len(hashes) else []
        self._spilled.executemany(_KEEP, zip(numbers.tolist(), (block.tobytes() for block in blocks), strict=True))
        self._held = array("Q")

    def _of_range(self, number: int) -> Hashes:
        return _sorted(b"".join(block for (block,) in self._spilled.execute(_RANGE, (number,))))


def _found(paths: Iterable[str], hashes: Hashes) -> Iterator[tuple[str, bool]]:
    """Each path, and whether its hash is one of these."""
    waiting = iter(paths)
    while some := list(islice(waiting, PATHS)):
        yield from zip(some, _are_in(some, hashes), strict=True)


def _are_in(paths: Sequence[str], hashes: Hashes) -> list[bool]:
    if not len(hashes):
        return [False] * len(paths)
    wanted = np.fromiter(map(_hash, paths), np.uint64, len(paths))
    found = hashes[np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)]
    return list((found == wanted).tolist())


def _sorted(hashes: array[int] | bytes) -> Hashes:
    return np.unique(np.frombuffer(hashes, np.uint64)) if hashes else np.zeros(0, np.uint64)


def _hash(path: str) -> int:
    return int.from_bytes(blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
