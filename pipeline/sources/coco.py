"""COCO instances JSON: polygons, uncompressed and compressed RLE, crowd regions.

https://cocodataset.org/#format-data. The whole file is read into memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput, safe_relative
from pipeline.storage import brief, split_uri


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of `images`, with its annotations, then those of images that `images` does not have."""
    content = _read(given)
    names = {entry.get("id"): str(entry.get("name", "")) for entry in _entries(content, "categories")}
    by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for annotation in _entries(content, "annotations"):
        by_image[str(annotation.get("image_id"))].append(annotation)
    seen: set[str] = set()
    for image in _entries(content, "images"):
        image_key = str(image.get("id"))
        annotations = [] if image_key in seen else by_image.get(image_key, [])
        seen.add(image_key)
        yield _planned(image, image_key, annotations, names)
    for image_key in by_image.keys() - seen:
        masks = [_planned_mask(annotation, names) for annotation in by_image[image_key]]
        yield PlannedImage(f"unknown-image-{image_key}", image_key, None, masks, problem="image_missing")


def _read(given: SourceInput) -> dict[str, Any]:
    store, name = split_uri(given.masks_uri, given.access)
    try:
        content = json.loads(store.read(name))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{given.masks_uri} is not valid JSON: {brief(error)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise RefusedError(f"{given.masks_uri} is not a COCO file: it has no list of images")
    return content


def _entries(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [entry for entry in content.get(key) or [] if isinstance(entry, dict)]


def _planned(
    image: dict[str, Any], image_key: str, annotations: list[dict[str, Any]], names: dict[Any, str]
) -> PlannedImage:
    name = str(image.get("file_name") or "")
    problem = None if safe_relative(name) else "image_outside_root"
    return PlannedImage(
        image_uri=name or f"unnamed-image-{image_key}",
        source_image_id=image_key,
        declared_hw=_size(image),
        masks=[_planned_mask(annotation, names) for annotation in annotations],
        problem=problem,
    )


def _planned_mask(annotation: dict[str, Any], names: dict[Any, str]) -> PlannedMask:
    category = annotation.get("category_id")
    category_id = category if isinstance(category, int) and abs(category) < 2**63 else -1
    return PlannedMask(
        source_mask_id=str(annotation.get("id")),
        category_id=category_id,
        category=names.get(category, "") if isinstance(category, int) else "",
        geometry=json.dumps(annotation.get("segmentation"), separators=(",", ":")),
    )


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and 0 < height < 2**31 and 0 < width < 2**31:
        return height, width
    return None
