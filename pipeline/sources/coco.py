"""COCO instances JSON: polygons, uncompressed and compressed RLE, crowd regions; of any size.

https://cocodataset.org/#format-data. Images, annotations and categories may stand in any order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import json_stream
from pipeline.sources.by_image import ByImage, Entry
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.paths import safe_relative

Names = dict[Any, str]
FileName = Callable[[dict[str, Any]], str]


def file_name(image: dict[str, Any]) -> str:
    """An image's path in the image root, "" where it has none."""
    return str(image.get("file_name") or "")


def scan(given: SourceInput, name_of: FileName = file_name) -> Iterator[PlannedImage]:
    """Every image of `images`, with its annotations, then those of images that `images` does not have."""
    with scratch_folder("coco") as folder:
        spill = ByImage(folder)
        names = _read(given, spill, name_of)
        for image_key, images, masks in spill.groups():
            planned = [_planned_mask(mask, names) for mask in masks]
            if not images:
                yield PlannedImage(f"unknown-image-{image_key}", image_key, None, planned, problem="image_missing")
            for number, image in enumerate(images):
                yield planned_image(image, image_key, planned if number == 0 else [])


def _read(given: SourceInput, spill: ByImage, name_of: FileName) -> Names:
    names: Names = {}
    lists = set()
    for key, entry in json_stream.entries(given.masks_uri, given.access):
        if entry is json_stream.LIST:
            lists.add(key)
        elif not isinstance(entry, dict):
            continue
        elif key == "images":
            spill.add(str(entry.get("id")), False, image_entry(entry, name_of))
        elif key == "annotations":
            category = entry.get("category_id")
            spill.add(str(entry.get("image_id")), True, [str(entry.get("id")), category, geometry(entry)])
        elif key == "categories":
            names[hashable(entry.get("id"))] = str(entry.get("name", ""))
    if "images" not in lists:
        raise RefusedError(f"{given.masks_uri} is not a COCO file: it has no list of images")
    return names


def image_entry(image: dict[str, Any], name_of: FileName = file_name) -> Entry:
    """What of an entry of `images` is needed: path, height, width."""
    return [name_of(image), image.get("height"), image.get("width")]


def planned_image(image: Entry, image_key: str, masks: list[PlannedMask]) -> PlannedImage:
    """An image of which `image_entry` is known."""
    name, height, width = image
    return PlannedImage(
        image_uri=name or f"unnamed-image-{image_key}",
        source_image_id=image_key,
        declared_hw=_size(height, width),
        masks=masks,
        problem=None if safe_relative(name) else "image_outside_root",
    )


def geometry(annotation: dict[str, Any]) -> str:
    """The `segmentation` as text."""
    return json.dumps(annotation.get("segmentation"), separators=(",", ":"))


def category_of(category: Any, names: Names) -> tuple[int, str]:
    """A `category_id` as it stands in the file -> category id and name; -1 and "" where it makes no sense."""
    category_id = category if type(category) is int and abs(category) < 2**63 else -1  # True is an int too
    return category_id, names.get(category, "") if type(category) is int else ""


def _planned_mask(mask: Entry, names: Names) -> PlannedMask:
    source_mask_id, category, text = mask
    return PlannedMask(source_mask_id, *category_of(category, names), geometry=text)


def _size(height: Any, width: Any) -> tuple[int, int] | None:
    if type(height) is int and type(width) is int and 0 < height < 2**31 and 0 < width < 2**31:
        return height, width
    return None


def hashable(value: Any) -> Any:
    """An id as a key of a dict, whatever stands in the file."""
    return value if isinstance(value, int | str | float) else str(value)
