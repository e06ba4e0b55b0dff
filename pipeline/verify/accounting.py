"""The accounting of a result: every planned image and mask against those in the shards, in any order, in flat memory.

What is planned and what is found is written to disk by hash range of the image id, and compared one range at a time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.planning.spill import hash_range
from pipeline.storage.disk_table import DiskTable
from schemas.attempts import RANGES

RANGES_PER_PARTITION = 4


@dataclass
class _Account:
    """One hash range's images: planned and found mask ids, the image rows, and of masks whether they failed."""

    planned: dict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    masks: dict[str, list[tuple[str, bool]]] = field(default_factory=lambda: defaultdict(list))


class Ledger:
    """Write down what is planned and what is found, then `compare`."""

    def __init__(self, folder: Path) -> None:
        self._table = DiskTable(folder)

    def planned(self, image_id: str, mask_ids: list[str]) -> None:
        """An image that must be in the result, with its masks."""
        self._write("planned", image_id, mask_ids)

    def image(self, image_id: str, masks: int, status: str) -> None:
        """A row of an image shard."""
        self._write("rows", image_id, [masks, status])

    def mask(self, image_id: str, mask_id: str, failed: bool) -> None:
        """A row of a mask shard."""
        self._write("masks", image_id, [mask_id, failed])

    def compare(self) -> Iterator[tuple[str, str]]:
        """What does not come out: (images or masks, a sentence)."""
        for partition in range(RANGES // RANGES_PER_PARTITION):
            account = _Account()
            for what, image_id, value in self._table.read(partition, partition):
                getattr(account, what)[image_id].append(value)
            yield from _compare(account)

    def _write(self, what: str, image_id: str, value: Any) -> None:
        self._table.add(hash_range(image_id) // RANGES_PER_PARTITION, [what, image_id, value])


def _compare(account: _Account) -> Iterator[tuple[str, str]]:
    for image_id in sorted(account.planned.keys() | account.rows.keys() | account.masks.keys()):
        planned, rows = account.planned.get(image_id, []), account.rows.get(image_id, [])
        found = account.masks.get(image_id, [])
        if len(planned) > 1:
            yield "images", f"image {image_id} is planned {len(planned)} times"
        if planned and not rows:
            yield "images", f"image {image_id} is planned and not there"
        if rows and not planned:
            yield "images", f"image {image_id} is there and was not planned"
        if len(rows) > 1:
            yield "images", f"image {image_id} is there {len(rows)} times"
        yield from _compare_masks(image_id, [mask for masks in planned for mask in masks], [mask for mask, _ in found])
        for masks, status in rows[:1]:
            if masks != len(found):
                yield "images", f"image {image_id} says it has {masks} masks, there are {len(found)}"
            if status == "failed" and not all(failed for _, failed in found):
                yield "images", f"image {image_id} failed, and has masks that did not"


def _compare_masks(image_id: str, planned: Iterable[str], found: Iterable[str]) -> Iterator[tuple[str, str]]:
    wanted, there = Counter(planned), Counter(found)
    for mask_id in sorted(wanted.keys() | there.keys()):
        if not there[mask_id]:
            yield "masks", f"mask {mask_id} of {image_id} is planned and not there"
        elif not wanted[mask_id]:
            yield "masks", f"mask {mask_id} of {image_id} is there and was not planned"
        elif there[mask_id] > wanted[mask_id]:
            yield "masks", f"mask {mask_id} of {image_id} is there {there[mask_id]} times"
