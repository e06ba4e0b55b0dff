"""A folder of mask PNGs beside a folder of images: `masks/NAME.png` or `masks/NAME/*.png` for `images/NAME.jpg`.

What the pixels of one file mean:
    mode 1, or at most one non-zero value      a binary mask: every non-zero pixel, one mask
    several values (indexed, grey, packed RGB) one mask for each non-zero value; 255 is void when there are others
A mask's source id is the file's path without suffix, then `#value` for labels; the value is also the category id.
Files whose values are classes, always, are another source: `class_maps.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from pipeline.errors import MaskError
from pipeline.masks.coarse import read_label_image
from pipeline.sources import files
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput

VOID = 255


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the image root with its mask files, then the mask files that belong to no image."""
    return files.scan(given, {".png"}, _masks, images_without_files=True)


def values(data: bytes) -> list[int] | None:
    """The non-zero values of a mask image, sorted; None when it cannot be decoded."""
    try:
        found = np.unique(read_label_image(data)).tolist()
    except MaskError:
        return None
    return [int(value) for value in found if value != 0]


def mask_of(path: str, value: int | None) -> PlannedMask:
    """The mask of a file's pixels that equal `value`, or of all that are not zero."""
    name = stem(path)
    return PlannedMask(
        source_mask_id=name if value is None else f"{name}#{value}",
        category_id=1 if value is None else value,
        category="",
        geometry=json.dumps({"file": path, "value": value}),
    )


def _masks(path: str, data: bytes) -> list[PlannedMask]:
    labels = values(data)
    if labels is None or len(labels) <= 1:
        return [mask_of(path, None)]  # a file that is broken fails again, and is counted, when it is loaded
    return [mask_of(path, value) for value in labels if value != VOID]
