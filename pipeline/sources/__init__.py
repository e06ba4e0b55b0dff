"""Sources: readers of one input format each. A new format is one file, one line in SOURCES, one test.

A source turns the masks' URI into PlannedImages, one at a time; it reads annotations, never images. What it cannot
make sense of becomes a planned mask or image that fails later with a reason code: nothing is dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from pipeline.dataset import open_result
from pipeline.errors import RefusedError
from pipeline.sources import (
    cam,
    class_maps,
    coco,
    coco_panoptic,
    coco_results,
    image_folder,
    instances,
    lvis,
    parquet,
    png,
    result,
    voc,
    webdataset,
    yolo,
)
from pipeline.sources.detect import detect
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Access
from pipeline.storage.containers import PARQUET, TAR

Scan = Callable[[SourceInput], Iterator[PlannedImage]]

SOURCES: dict[str, Scan] = {
    "coco": coco.scan,
    "coco-results": coco_results.scan,
    "coco-panoptic": coco_panoptic.scan,
    "lvis": lvis.scan,
    "png": png.scan,
    "instances": instances.scan,
    "voc": voc.scan,
    "class-maps": class_maps.scan,
    "cam": cam.scan,
    "yolo": yolo.scan,
    "parquet": parquet.scan,
    "webdataset": webdataset.scan,
    "image-folder": image_folder.scan,
    "result": result.scan,
}

OF_FILES: dict[str, Callable[[str], str]] = {
    "png": str,
    "instances": str,
    "class-maps": str,
    "cam": str,
    "voc": voc.root,
    "coco-panoptic": coco_panoptic.root,
    "parquet": parquet.files_root,
    "image-folder": image_folder.root,
}
"""Sources whose masks stay in files of their own, to be read again when loaded -> the folder of these, by --masks."""

IN_CONTAINERS = frozenset({"parquet", "webdataset", "image-folder"})
"""Sources whose files may hold the images too."""

WITH_OPTIONS: dict[str, Callable[[Mapping[str, str]], object]] = {
    "cam": cam.parse,
    "class-maps": class_maps.parse,
    "instances": instances.parse,
    "coco-results": coco_results.parse,
    "parquet": parquet.parse,
}
"""Sources that take options, and what checks these."""

SEMANTIC = frozenset({"class-maps", "cam"})
"""Sources of class maps: unless told otherwise, their masks are refined by regions and do not overlap."""


def files_root(source: str, masks_uri: str) -> str | None:
    """The folder of the mask files of a source, given as `parse` takes it; None where it has none."""
    name, _ = parse(source)
    return OF_FILES[name](masks_uri) if name in OF_FILES else None


def images_root(source: str, images: str | None, masks_uri: str, access: Access) -> str:
    """The image root: what `--images` says, of a container its folder; else where the source itself has the images.

    Raises RefusedError where nothing says.
    """
    name, _ = parse(source)
    if images is None and name == "result":
        return str(open_result(masks_uri, access).manifest["images_root"])
    if images is None and name in IN_CONTAINERS:
        images = masks_uri
    if images is None:
        raise RefusedError(f"--images is missing: masks of the source {name} do not say where their images are")
    return images.rpartition("/")[0] or "." if images.endswith((TAR, PARQUET, *image_folder.METADATA)) else images


def parse(source: str) -> tuple[str, dict[str, str]]:
    """`NAME` or `NAME:key=value,key=value` -> the source's name and its options. Raises RefusedError."""
    name, _, text = source.partition(":")
    if name not in SOURCES:
        raise RefusedError(f"unknown source {name!r}; there are {', '.join(SOURCES)}")
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not equals for _, equals, _ in pairs) or (pairs and name not in WITH_OPTIONS):
        raise RefusedError(
            f"source {source!r}: options are key=value, with commas between, of {', '.join(WITH_OPTIONS)}"
        )
    options = {key: value for key, _, value in pairs}
    if name in WITH_OPTIONS:
        WITH_OPTIONS[name](options)
    return name, options


def scan(source: str, given: SourceInput) -> Iterator[PlannedImage]:
    """The planned images of one source, given as `parse` takes it. Raises RefusedError for an unknown one."""
    name, options = parse(source)
    return SOURCES[name](replace(given, options=options))


def mask_id(image_id: str, source_mask_id: str, occurrence: int) -> str:
    """Stable id of a mask: 32 hex digits; `occurrence` tells apart masks that share a source id in one image."""
    text = f"{image_id}\0{source_mask_id}\0{occurrence}"
    if text.count("\0") > 2:  # else the two could be parted in another place
        text = json.dumps([image_id, source_mask_id, occurrence])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


__all__ = [
    "SEMANTIC",
    "SOURCES",
    "PlannedImage",
    "PlannedMask",
    "SourceInput",
    "detect",
    "files_root",
    "images_root",
    "mask_id",
    "parse",
    "scan",
]
