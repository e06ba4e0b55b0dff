"""Plan rows on their way to disk, by hash range of the image id, so that planning holds one range at a time."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.records import PLAN, PLANNED_MASK

RANGES = 1024
BUCKET_ROWS = 16_384
SPILL_ROWS = 50_000
ROW_CHARACTERS = 4096  # a row whose masks have more counts as several

Row = dict[str, Any]

_SPILLED_MASK = pa.struct([field for field in PLANNED_MASK if field.name != "mask_id"])


def hash_range(image_id: str) -> int:
    """0 .. RANGES - 1, by the hash of the id.

    Images that lie together in a container stay together, ten thousand rows of a Parquet file at a time: the last four
    characters of their name in it do not count.
    """
    container, mark, name = image_id.rpartition("#")
    together = container + mark + name[:-4] if mark else image_id
    return int.from_bytes(hashlib.sha256(together.encode()).digest()[:4], "big") * RANGES >> 32


class Spill:
    """Rows by hash range of their image id: in memory up to SPILL_ROWS, in files beyond."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self._folder = folder
        self._held = 0
        self._ranges: dict[int, list[Row]] = defaultdict(list)
        self._counts = [0] * RANGES

    def add(self, row: Row) -> None:
        """Take a row of the plan; its `masks` are not yet numbered."""
        bucket = hash_range(row["image_id"])
        weight = 1 + sum(len(mask["geometry"]) for mask in row["masks"]) // ROW_CHARACTERS
        self._ranges[bucket].append(row)
        self._counts[bucket] += weight
        self._held += weight
        self.rows += 1
        if self._held >= SPILL_ROWS:
            self._flush()

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Inclusive runs of ranges that together hold about BUCKET_ROWS; all ranges are covered."""
        low, rows = 0, 0
        for bucket, count in enumerate(self._counts):
            if rows and rows + count > BUCKET_ROWS:
                yield low, bucket - 1
                low, rows = bucket, 0
            rows += count
        yield low, RANGES - 1

    def read(self, low: int, high: int) -> list[Row]:
        """The rows whose ids hash into [low, high], as they were added; they are forgotten."""
        rows: list[Row] = []
        for bucket in range(low, high + 1):
            for file in sorted(self._folder.glob(f"{bucket:04d}-*.parquet")):
                rows += pq.read_table(file).to_pylist()
            rows += self._ranges.pop(bucket, [])
        return rows

    def _flush(self) -> None:
        schema = PLAN.set(PLAN.get_field_index("masks"), pa.field("masks", pa.list_(_SPILLED_MASK)))
        for bucket, rows in self._ranges.items():
            name = f"{bucket:04d}-{self.rows:012d}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema), self._folder / name)
        self._ranges.clear()
        self._held = 0
