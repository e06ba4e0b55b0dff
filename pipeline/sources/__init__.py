"""Sources: readers of one input format each. A new format is one file, one line in SOURCES, one test.

A source turns the masks' URI into PlannedImages, one at a time; it reads annotations, never images. What it cannot
make sense of becomes a planned mask or image that fails later with a reason code: nothing is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from pipeline.errors import RefusedError
from pipeline.sources import coco, png
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput

Scan = Callable[[SourceInput], Iterator[PlannedImage]]

SOURCES: dict[str, Scan] = {"coco": coco.scan, "png": png.scan}


def detect(masks_uri: str) -> str:
    """The format of the masks at a URI, by its name: a JSON file is COCO, a folder holds mask PNGs."""
    return "coco" if PurePosixPath(masks_uri.rstrip("/")).suffix.lower() == ".json" else "png"


def scan(source: str, given: SourceInput) -> Iterator[PlannedImage]:
    """The planned images of one source. Raises RefusedError for an unknown format."""
    if source not in SOURCES:
        raise RefusedError(f"unknown source {source!r}; there are {', '.join(SOURCES)}")
    return SOURCES[source](given)


def mask_id(image_id: str, source_mask_id: str, occurrence: int) -> str:
    """Stable id of a mask: 32 hex digits; `occurrence` tells apart masks that share a source id in one image."""
    return hashlib.sha256(f"{image_id}\0{source_mask_id}\0{occurrence}".encode()).hexdigest()[:32]


__all__ = ["SOURCES", "PlannedImage", "PlannedMask", "SourceInput", "detect", "mask_id", "scan"]
