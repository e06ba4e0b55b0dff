"""COCO results JSON, as detectron2, mmdetection and pycocotools write it: a list of detections with `score`.

https://cocodataset.org/#format-results. A detection names its image by id alone. Options of this source:
    images=URI       COCO JSON whose `images` and `categories` the ids are of; without it, the image is the one whose
                     name is the id (`000000000139.jpg` for 139, `cat.jpg` for "cat")
    min_score=S      only detections of at least this score (0)
A detection's source id is its place in the list, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import json_stream
from pipeline.sources.by_image import ByImage
from pipeline.sources.coco import Names, category_of, geometry, hashable, image_entry, planned_image
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage import StoredFile
from pipeline.storage.disk_table import scratch_folder


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has detections, and all others that the `images` file names."""
    min_score = parse(given.options)
    with scratch_folder("coco") as folder:
        spill = ByImage(folder)
        _read_detections(given, spill, min_score)
        index = given.options.get("images")
        names = _read_index(index, given, spill) if index else {}
        by_name = {} if index else _by_name(given.images)
        for image_key, images, masks in spill.groups():
            planned = [PlannedMask(str(number), *category_of(found, names), text) for number, found, text in masks]
            own = [[by_name[image_key], None, None]] if image_key in by_name else images
            if not own:
                yield PlannedImage(f"unknown-image-{image_key}", image_key, None, planned, problem="image_missing")
            for number, image in enumerate(own):
                yield planned_image(image, image_key, planned if number == 0 else [])


def parse(options: Mapping[str, str]) -> float:
    """The lowest score that is taken. Raises RefusedError for options that are none."""
    try:
        if options.keys() <= {"images", "min_score"}:
            return float(options.get("min_score", 0))
    except ValueError:
        pass
    raise RefusedError(f"source coco-results takes images=URI and min_score=NUMBER, not {dict(options)}")


def _read_detections(given: SourceInput, spill: ByImage, min_score: float) -> None:
    number = 0
    for key, entry in json_stream.entries(given.masks_uri, given.access):
        if key:
            raise RefusedError(f"{given.masks_uri} is not a COCO results file: it is no list")
        if entry is json_stream.LIST:
            continue
        if number == 0 and not (isinstance(entry, dict) and "image_id" in entry):
            raise RefusedError(f"{given.masks_uri} is not a COCO results file: its first entry has no image_id")
        if isinstance(entry, dict) and _score(entry) >= min_score:
            spill.add(str(entry.get("image_id")), True, [number, entry.get("category_id"), geometry(entry)])
        number += 1
    if number == 0:
        raise RefusedError(f"{given.masks_uri} holds no detection")


def _score(entry: dict[str, Any]) -> float:
    score = entry.get("score")
    return float(score) if isinstance(score, int | float) else 1.0


def _read_index(uri: str, given: SourceInput, spill: ByImage) -> Names:
    names: Names = {}
    for key, entry in json_stream.entries(uri, given.access):
        if isinstance(entry, dict) and key == "images":
            spill.add(str(entry.get("id")), False, image_entry(entry))
        elif isinstance(entry, dict) and key == "categories":
            names[hashable(entry.get("id"))] = str(entry.get("name", ""))
    return names


def _by_name(images: Mapping[str, StoredFile]) -> dict[str, str]:
    """Image id -> path, by the file's name without suffix, also as a number; names that two files have are left out."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for path in sorted(images):
        name = PurePosixPath(path)
        if name.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        keys = {name.stem} | ({str(int(name.stem))} if name.stem.isascii() and name.stem.isdigit() else set())
        twice |= keys & found.keys()
        found.update(dict.fromkeys(keys, path))
    return {key: path for key, path in found.items() if key not in twice}
