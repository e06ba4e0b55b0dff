"""Plan rows on their way to disk, by hash range of the image id, so that planning holds one range at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.storage.disk_table import DiskTable

RANGES = 1024
BUCKET_ROWS = 16_384
ROW_CHARACTERS = 4096  # a row whose masks have more counts as several

Row = dict[str, Any]


def hash_range(image_id: str) -> int:
    """0 .. RANGES - 1, by the hash of the id.

    Images that lie together in a container stay together, ten thousand rows of a Parquet file at a time: the last four
    characters of their name in it do not count.
    """
    container, mark, name = image_id.rpartition("#")
    together = container + mark + name[:-4] if mark else image_id
    return int.from_bytes(hashlib.sha256(together.encode()).digest()[:4], "big") * RANGES >> 32


class Spill:
    """Rows by hash range of their image id: in memory while they are few, on disk beyond."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self._table = DiskTable(folder)
        self._weights = [0] * RANGES

    def add(self, row: Row) -> None:
        """Take a row of the plan; its `masks` are not yet numbered."""
        number = hash_range(row["image_id"])
        self._table.add(number, row)
        self._weights[number] += 1 + sum(len(mask["geometry"]) for mask in row["masks"]) // ROW_CHARACTERS
        self.rows += 1

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Inclusive runs of ranges that together hold about BUCKET_ROWS; all ranges are covered."""
        low, rows = 0, 0
        for number, weight in enumerate(self._weights):
            if rows and rows + weight > BUCKET_ROWS:
                yield low, number - 1
                low, rows = number, 0
            rows += weight
        yield low, RANGES - 1

    def read(self, low: int, high: int) -> list[Row]:
        """The rows whose ids hash into [low, high]: one range after another, each in the order it was filled."""
        return self._table.read(low, high)
