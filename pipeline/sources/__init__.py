"""Sources: readers of one input format each. `registry.py` tells how to add one."""

from __future__ import annotations

from pipeline.sources.detect import detect
from pipeline.sources.registry import (
    SOURCES,
    Source,
    files_root,
    find,
    images_root,
    is_by_file,
    mask_id,
    parse,
    pieces,
    scan,
    scan_piece,
)
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput

__all__ = [
    "SOURCES",
    "PlannedImage",
    "PlannedMask",
    "Source",
    "SourceInput",
    "detect",
    "files_root",
    "find",
    "images_root",
    "is_by_file",
    "mask_id",
    "parse",
    "pieces",
    "scan",
    "scan_piece",
]
