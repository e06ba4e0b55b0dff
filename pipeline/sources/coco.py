"""COCO instances JSON: polygons, uncompressed and compressed RLE, and crowd regions.

https://cocodataset.org/#format-data. Images, annotations and categories may stand in any order. Ids may be integers,
floats or text; a name that is no path in the image root is taken by the rule that makes the others paths (`names.py`).
An annotation with a box and no segmentation becomes a prompt: the box's rectangle. Fields that are not used here are
carried. Option of this source:
    from=boxes             every annotation's box is the prompt, whether it has a segmentation or not
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import json_stream, names, shapes
from pipeline.sources.by_image import ByImage, Entry
from pipeline.sources.fields import (
    as_flag,
    as_float,
    as_id,
    as_int,
    as_label,
    as_list,
    as_name,
    as_size,
    brief_value,
    extra_of,
)
from pipeline.sources.names import NameRule, NameSample
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.paths import safe_relative

Names = dict[str, str]
"""Category id, as `as_id` writes it -> name."""
FileName = Callable[[dict[str, Any]], str]

IMAGE_FIELDS = frozenset(("id", "file_name", "height", "width"))
MASK_FIELDS = frozenset(("id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"))
LEAVING = "boxes that leave their image: are they x, y, width, height, or two corners?"
OUTSIDE_SHARE = 0.1  # of a side that lies outside
DATASET_FIELDS = ("info", "licenses", "categories")


def file_name(image: dict[str, Any]) -> str:
    """An image's path as the file has it, "" where it has none."""
    return as_name(image.get("file_name"))


def scan(given: SourceInput, name_of: FileName = file_name) -> Iterator[PlannedImage]:
    """Every image of `images`, with its annotations, then those of images that `images` does not have."""
    with scratch_folder("coco") as folder:
        reader = Reader(given, ByImage(folder), name_of)
        lists = reader.read(given.masks_uri, partial(mask_entry, from_boxes=parse(given.options)))
        if "images" not in lists:
            raise RefusedError(f"{given.masks_uri} is not a COCO file: it has no list of images")
        yield from reader.planned(lambda entries: [planned_mask(entry, reader.names) for entry in entries])


def parse(options: Mapping[str, str]) -> bool:
    """Whether boxes are all that is taken. Raises RefusedError for options that are none."""
    if options and options != {"from": "boxes"}:
        raise RefusedError(f"sources of COCO's annotations take from=boxes, not {dict(options)}")
    return bool(options)


class Reader:
    """What the files of the COCO family have in common: their lists, brought together by image."""

    def __init__(self, given: SourceInput, spill: ByImage, name_of: FileName = file_name) -> None:
        self.given, self.spill, self.names = given, spill, Names()
        self._name_of, self._sample = name_of, NameSample(given.images)
        self._file = given.masks_uri.rpartition("/")[2]

    def read(self, uri: str, annotation: Callable[[dict[str, Any]], Entry] | None = None) -> set[str]:
        """The keys of the lists that a file has. annotation: what of an annotation is kept (`mask_entry`)."""
        lists = set()
        numbers: dict[str, int] = {}
        for key, entry in json_stream.entries(uri, self.given.access):
            if entry is json_stream.LIST:
                lists.add(key)
            elif isinstance(entry, dict) and key in ("images", "annotations", "categories"):
                self._take(key, entry, annotation or mask_entry)
            elif key in DATASET_FIELDS and isinstance(entry, dict):
                self.given.coverage.describe(key, entry)
            elif key in lists:
                numbers[key] = numbers.get(key, -1) + 1
                place = f"{self._file}: {key}, entry {numbers[key]} that is no object"
                self.given.coverage.leave(place, "no object", brief_value(entry), kind=f"entry of {key}")
        self.given.coverage.take(uri.rpartition("/")[2])
        return lists

    def _take(self, key: str, entry: dict[str, Any], annotation: Callable[[dict[str, Any]], Entry]) -> None:
        coverage = self.given.coverage
        if key == "images":
            image = image_entry(entry, self._name_of)
            self._sample.add(image[0])
            self.spill.add(as_id(entry.get("id")), False, image)
        elif key == "annotations":
            self.spill.add(as_id(entry.get("image_id")), True, annotation(entry))
        else:
            name = self.names[as_id(entry.get("id"))] = as_label(entry.get("name"))
            coverage.describe(key, entry if extra_of(entry, ()) else {"id": entry.get("id"), "name": name})
        if key != "categories":
            coverage.take(as_id(entry.get("id", "")), f"entry of {key}")

    def planned(self, masks_of: Callable[[list[Entry]], list[PlannedMask]]) -> Iterator[PlannedImage]:
        """The images with their masks, then masks of images that there are not."""
        coverage, images = self.given.coverage, self.given.images
        rule = names.rule_for(self._sample, images, coverage, "--masks")
        matched = 0
        for image_key, entries, own in self.spill.groups():
            masks = masks_of(own)
            if not entries:
                detail = f"the file has no image of the id {image_key}"
                yield PlannedImage(
                    f"unknown-image-{image_key}", image_key, None, masks, problem="image_missing", detail=detail
                )
            for number, entry in enumerate(entries):
                planned = self._image(entry, image_key, masks if number == 0 else [], rule)
                matched += planned.image_uri in images
                if any(_leaves(mask, planned.declared_hw) for mask in planned.masks):
                    coverage.remark(planned.image_uri, LEAVING)
                if number:
                    coverage.remark(planned.image_uri, "image with the id of another, which has the masks of both")
                yield planned
        if len(images):
            names.say_matches(matched, self._sample.names, "names of images", coverage)

    def _image(self, entry: Entry, image_key: str, masks: list[PlannedMask], rule: NameRule) -> PlannedImage:
        name, height, width, extra = entry
        path = rule.resolve(name, self.given.images) if name else ""
        is_safe = safe_relative(path)
        detail = names.hint(path, self.given.images) if is_safe else f"{brief_value(path)} is no path in --images"
        return PlannedImage(
            image_uri=path or f"unnamed-image-{image_key}",
            source_image_id=image_key,
            declared_hw=as_size(height, width),
            masks=masks,
            problem=None if is_safe else "image_outside_root",
            detail=detail,
            extra=extra,
        )


def _leaves(mask: PlannedMask, size_hw: tuple[int, int] | None) -> bool:
    """Whether a mask is a box that ends far beyond its image, as one would of which the numbers are two corners."""
    if mask.detail != shapes.BOX or size_hw is None:
        return False
    [[left, top, right, _, _, bottom, *_]] = json.loads(mask.geometry)
    height, width = size_hw
    return bool(right - width > OUTSIDE_SHARE * (right - left) or bottom - height > OUTSIDE_SHARE * (bottom - top))


def image_entry(image: dict[str, Any], name_of: FileName = file_name) -> Entry:
    """What of an entry of `images` is needed: path, height, width, and JSON of the rest."""
    return [name_of(image), image.get("height"), image.get("width"), extra_of(image, IMAGE_FIELDS)]


def mask_entry(annotation: dict[str, Any], from_boxes: bool = False) -> Entry:
    """What of an entry of `annotations` is needed: id, category id, geometry, what is odd, crowd, JSON of the rest."""
    text, detail = geometry(annotation, from_boxes)
    return [
        as_id(annotation.get("id")),
        annotation.get("category_id"),
        text,
        detail,
        as_flag(annotation.get("iscrowd")),
        extra_of(annotation, MASK_FIELDS),
    ]


def planned_mask(entry: Entry, names: Names) -> PlannedMask:
    """A mask of which `mask_entry` is known."""
    source_mask_id, category, text, detail, crowd, extra = entry
    number, name, wrong = category_of(category, names)
    return PlannedMask(source_mask_id, number, name, text, detail or wrong, crowd, extra)


def geometry(annotation: dict[str, Any], from_boxes: bool = False) -> tuple[str, str]:
    """The `segmentation` as text, of a box alone its rectangle; and what is odd about it."""
    segmentation = None if from_boxes else annotation.get("segmentation")
    box = None if segmentation else _box(annotation.get("bbox"))
    if box is not None:
        return json.dumps([box]), shapes.BOX
    if from_boxes:
        return shapes.UNREADABLE, f"boxes: no bbox, but {brief_value(annotation.get('bbox'))}"
    return json.dumps(segmentation, separators=(",", ":")), ""


def _box(value: Any) -> list[float] | None:
    """[x, y, width, height] -> its corners as a polygon."""
    sides = [as_float(side) for side in as_list(value)]
    if len(sides) != 4 or any(side is None for side in sides):
        return None
    x, y, width, height = (float(side or 0) for side in sides)
    return [x, y, x + width, y, x + width, y + height, x, y + height] if width > 0 and height > 0 else None


def category_of(category: Any, names: Names) -> tuple[int, str, str]:
    """A `category_id` of a file -> category id, -1 where it is no number; name; and what is wrong with it."""
    number = as_int(category)
    if number is None and isinstance(category, str):
        number = next((as_int(key) for key, name in names.items() if name == category), None)
    name = names.get(as_id(category if number is None else number), "")
    if number is None:
        return -1, name, f"category: {brief_value(category)} is no category id"
    return number, name, "" if name or not names or str(number) in names else f"category: {number} is not in the file"
