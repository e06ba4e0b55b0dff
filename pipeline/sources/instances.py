"""A folder of instance-id PNGs beside a folder of images: each non-zero value of a file is one object.

Ids of 1000 and more are class * 1000 + number, as in Cityscapes' `instanceIds` and in KITTI MOTS (where 10000 stands
for "ignore" and is left out); the ids below 1000 of such a file are classes without numbered objects. In files without
such ids all objects have category 1. 8 and 16 bit grey, indexed, and RGB as R + 256 G + 65536 B.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.sources import files
from pipeline.sources.png import mask_of, values
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput

PER_CLASS = 1000
IGNORED = 10_000


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the image root with its objects, then the files that belong to no image."""
    return files.scan(given, {".png"}, _masks, images_without_files=True)


def _masks(path: str, data: bytes) -> list[PlannedMask]:
    ids = values(data)
    if ids is None:
        return [mask_of(path, None)]  # fails again, and is counted, when it is loaded
    classed = any(number >= PER_CLASS for number in ids)
    return [
        replace(mask_of(path, number), category_id=_category(number) if classed else 1)
        for number in ids
        if not (classed and number == IGNORED)
    ]


def _category(number: int) -> int:
    return number // PER_CLASS if number >= PER_CLASS else number
