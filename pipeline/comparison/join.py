"""Two sides image by image. Their orders may differ, so both go through a temporary folder, by hash range of the id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.comparison.sides import Row, Side
from pipeline.planning.spill import hash_range
from pipeline.storage.disk_table import DiskTable, scratch_folder
from schemas.attempts import RANGES

HELD_MASKS = 1 << 16
"""Of both sides, held at once."""


class Joined(NamedTuple):
    """An image, and its masks on either side; None where a side does not have the image."""

    image: Row
    before: list[Row] | None
    after: list[Row] | None


def joined(before: Side, after: Side) -> Iterator[Joined]:
    """Every image of either side, once."""
    if before.is_of(after):
        for (image, own), (_, others) in zip(before.images(), after.images(), strict=True):
            yield Joined(image, own, others)
        return
    with scratch_folder("diff") as folder:
        spilled = [_spill(side, folder / str(number)) for number, side in enumerate((before, after))]
        weights = [1 + one.masks[number] + other.masks[number] for one, other in [spilled] for number in range(RANGES)]
        for low, high in _buckets(weights):
            found = [
                {image["image_id"]: (image, masks) for image, masks in one.table.read(low, high)} for one in spilled
            ]
            for image_id in sorted(found[0].keys() | found[1].keys()):
                first, second = (one.get(image_id, (None, None)) for one in found)
                yield Joined(second[0] or first[0], first[1], second[1])


class _Spilled(NamedTuple):
    """A side on disk. masks: by hash range."""

    table: DiskTable
    masks: list[int]


def _spill(side: Side, folder: Path) -> _Spilled:
    folder.mkdir()
    found = _Spilled(DiskTable(folder), [0] * RANGES)
    for image, masks in side.images():
        number = hash_range(image["image_id"])
        entry: list[Any] = [image, masks]
        found.table.add(number, entry)
        found.masks[number] += len(masks)
    return found


def _buckets(weights: list[int]) -> Iterator[tuple[int, int]]:
    """Inclusive runs of ranges that together weigh about HELD_MASKS."""
    low, held = 0, 0
    for number, weight in enumerate(weights):
        if held and held + weight > HELD_MASKS:
            yield low, number - 1
            low, held = number, 0
        held += weight
    yield low, len(weights) - 1
