"""SA-1B (Segment Anything's data set): `sa_1.json` for `sa_1.jpg`, with COCO RLE and no categories.

https://ai.meta.com/datasets/segment-anything-downloads: {"image": {image_id, file_name, height, width}, "annotations":
[{id, segmentation, area, bbox, predicted_iou, stability_score, point_coords, crop_box}]}. All masks have category 1.
Scores, points and crop box are carried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.sources import coco, documents
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.documents import Form
from pipeline.sources.fields import as_flag, as_id, as_name, brief_value, extra_of
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, SourceInput

IMAGE_FIELDS = frozenset(("image_id", "id", "file_name", "height", "width"))
MASK_FIELDS = frozenset(("id", "segmentation", "area", "bbox", "iscrowd"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a document."""
    yield from documents.scan(given, Form("SA-1B", _read))


def fits(keys: Mapping[str, Any]) -> bool:
    """Whether a document with these keys is SA-1B's; of lists the first entry stands there."""
    return isinstance(keys.get("image"), dict) and "file_name" in keys["image"] and "annotations" in keys


def _read(path: str, content: dict[str, Any], given: SourceInput) -> Annotated | None:
    image, entries = content.get("image"), content.get("annotations")
    if not isinstance(image, dict) or not isinstance(entries, list):
        return None
    stated = as_name(image.get("file_name"))
    return Annotated(
        stated=stated or f"{stem(path)}.jpg",
        source_id=as_id(image.get("image_id", image.get("id", stem(path)))),
        height=image.get("height"),
        width=image.get("width"),
        shapes=list(_shapes(path, entries, given)),
        names=documents.names_of(path, stated, given),
        extra=extra_of(image, IMAGE_FIELDS),
        where=path,
    )


def _shapes(path: str, entries: list[Any], given: SourceInput) -> Iterator[Shape]:
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            given.coverage.leave(f"{path}, annotation {number}", "no object", brief_value(entry), kind="annotation")
            continue
        text, detail = coco.geometry(entry)
        own_id = as_id(entry["id"]) if "id" in entry else f"{stem(path)}#{number}"
        yield Shape(own_id, "", text, detail, as_flag(entry.get("iscrowd")), extra_of(entry, MASK_FIELDS))
