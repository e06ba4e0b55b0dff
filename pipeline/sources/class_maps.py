"""A folder of class maps beside a folder of images, as Pascal VOC has them: `maps/NAME.png` for `images/NAME.jpg`.

Indexed or grey PNGs. Every value is a class, and its category id: 0 is background, 255 is void (pixels that nobody
vouches for). One mask for each class, with all of its regions. Images without a map are not planned: VOC has six times
as many images as maps.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.sources import files
from pipeline.sources.png import VOID, mask_of, values
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a map, then the maps that belong to no image."""
    return files.scan(given, {".png"}, _masks, images_without_files=False)


def _masks(path: str, data: bytes) -> list[PlannedMask]:
    classes = values(data)
    if classes is None:
        return [mask_of(path, None)]  # fails again, and is counted, when it is loaded
    return [mask_of(path, value) for value in classes if value != VOID]
