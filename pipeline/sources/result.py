"""This project's own output, to be refined again: `--masks` is the folder that an earlier run named as `--output`.

The coarse masks are its `mask_rle`s; where a mask failed, what had come in (which fails again, and is counted).
Image paths are relative to the image root of that run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pipeline.dataset import open_result
from pipeline.dataset.by_image import Row, groups, read_group
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage.paths import safe_relative

COLUMNS = ["source_mask_id", "category_id", "category", "mask_rle", "coarse_rle", "detail", "crowd", "extra"]


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the current generation with all of its masks."""
    result = open_result(given.masks_uri, given.access)
    for group in groups(result):
        for _, image, masks in read_group(result, group, COLUMNS):
            has_size = image["height"] and image["width"]
            yield PlannedImage(
                image_uri=image["image_uri"],
                source_image_id=image["source_image_id"],
                declared_hw=(image["height"], image["width"]) if has_size else None,
                masks=[_mask(mask) for mask in masks],
                problem=None if safe_relative(image["image_uri"]) else "image_outside_root",
                extra=image.get("extra") or "",
            )
            given.coverage.take(image["image_id"], "image of a result")


def _mask(row: Row) -> PlannedMask:
    rle = row["mask_rle"] or row["coarse_rle"]
    return PlannedMask(
        source_mask_id=row["source_mask_id"],
        category_id=row["category_id"],
        category=row["category"] or "",
        geometry=json.dumps(rle, separators=(",", ":")),
        detail=(row["detail"] or "") if row["mask_rle"] is None else "",
        crowd=bool(row["crowd"]),
        extra=row["extra"] or "",
    )
