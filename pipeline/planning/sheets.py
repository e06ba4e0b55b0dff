"""Lines by hash range in files of a store, each of which many may read a range of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import JobError
from pipeline.planning.spill import ALL, Lines
from pipeline.storage import Store, brief
from pipeline.storage.disk_table import BETWEEN
from schemas.attempts import RANGES
from schemas.layout import HashRange

SHEET_CHARACTERS = 1 << 26
"""Of lines that a task holds before it writes them."""
CODEC = "zstd"
READERS = 16

Numbers = npt.NDArray[np.int64]


class Sheet(NamedTuple):
    """A file of lines. By range: bytes before it (one more than there are ranges), characters, weights."""

    path: str
    starts: Numbers
    characters: Numbers
    weights: Numbers


def sheet_of(told: dict[str, Any]) -> Sheet:
    """From JSON."""
    return Sheet(told["path"], *(np.array(told[name]) for name in Sheet._fields[1:]))


class SheetWriter:
    """Writes lines, some tens of MB at a time. path: of the file of that number."""

    def __init__(self, output: Store, path: Callable[[int], str]) -> None:
        self._output, self._path = output, path
        self._written: list[dict[str, Any]] = []
        self._begin()

    def add(self, lines: Lines) -> None:
        """In the order in which they come."""
        for place, block in lines.blocks().items():
            self._blocks[place].append(block)
            self._weights[place] += lines.weights[place]
            self._held += len(block)
        if self._held >= SHEET_CHARACTERS:
            self._write()

    def close(self) -> list[dict[str, Any]]:
        """Write the rest; all sheets, as `sheet_of` takes them."""
        if self._held:
            self._write()
        return self._written

    def _begin(self) -> None:
        self._held = 0
        self._blocks: dict[int, list[str]] = defaultdict(list)
        self._weights: dict[int, int] = defaultdict(int)

    def _write(self) -> None:
        path = self._path(len(self._written))
        blocks = [BETWEEN.join(self._blocks[place]).encode() for place in range(RANGES)]
        packed = [pa.compress(block, CODEC, asbytes=True) if block else b"" for block in blocks]
        self._output.put(path, b"".join(packed))
        starts = np.concatenate([[0], np.cumsum([len(one) for one in packed])]).tolist()
        characters, weights = [len(block) for block in blocks], [self._weights[place] for place in range(RANGES)]
        self._written.append({"path": path, "starts": starts, "characters": characters, "weights": weights})
        self._begin()


class Sheets:
    """`Ranged`, of sheets in a store."""

    def __init__(self, output: Store) -> None:
        self.within, self.weights = ALL, [0] * RANGES
        self._output = output
        self._sheets: list[Sheet] = []

    def take(self, sheet: Sheet) -> None:
        """In the order in which they come."""
        self._sheets.append(sheet)
        self.weights = (np.array(self.weights) + sheet.weights).tolist()

    def blocks(self, place: HashRange) -> Iterator[str]:
        """As `Ranged` has them. Raises JobError where a sheet is gone or damaged."""
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(self._sheets), READERS):
                some = self._sheets[start : start + READERS]
                for blocks in pool.map(lambda sheet: self._read(sheet, place), some):
                    yield from blocks

    def _read(self, sheet: Sheet, place: HashRange) -> list[str]:
        begin, end = int(sheet.starts[place.low]), int(sheet.starts[place.high + 1])
        if begin == end:
            return []
        try:
            data = self._output.read_range(sheet.path, begin, end - begin)
            return list(_unpacked(data, sheet, place))
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            self._output.delete(sheet.path)  # else the next step would find it again
            where = f"{self._output.uri}/{sheet.path}"
            raise JobError(
                f"{where}, a file of this planning step, was gone or damaged: {brief(error)}. Run it again"
            ) from None


def _unpacked(data: bytes, sheet: Sheet, place: HashRange) -> Iterator[str]:
    begin = sheet.starts[place.low]
    for number in range(place.low, place.high + 1):
        first, last = sheet.starts[number] - begin, sheet.starts[number + 1] - begin
        if first < last:
            block: bytes = pa.decompress(data[first:last], int(sheet.characters[number]), CODEC, asbytes=True)
            yield block.decode()
