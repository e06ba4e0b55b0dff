"""COCO results JSON: the list of detections that detectron2, mmdetection and others write.

https://cocodataset.org/#format-results. A detection names its image by id alone, or by `file_name` (detectron2's
`sem_seg_predictions.json`), of which the last part counts, without suffix. Options of this source:
    images=URI       COCO JSON whose `images` and `categories` the ids are of; without it, the image is the one whose
                     name is the id (`000000000139.jpg` for 139, `cat.jpg` for "cat")
    min_score=S      only detections of at least this score (all)
    from=boxes       every detection's box is the prompt, whether it has a segmentation or not
A detection's source id is its place in the list, from 0; its score is carried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import json_stream
from pipeline.sources.by_image import ByImage
from pipeline.sources.coco import Reader, geometry, planned_mask
from pipeline.sources.fields import as_float, as_id, as_name, brief_value, extra_of
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, SourceInput
from pipeline.storage import StoredFile
from pipeline.storage.disk_table import scratch_folder

USED = frozenset(("image_id", "file_name", "category_id", "segmentation", "area", "bbox"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has detections, and all others that the `images` file names."""
    min_score = parse(given.options)
    with scratch_folder("coco") as folder:
        reader = Reader(given, ByImage(folder))
        if index := given.options.get("images"):
            reader.read(index, lambda _annotation: [])
        else:
            _name_images(given, reader.spill)
        _read_detections(given, reader.spill, min_score)
        for image in reader.planned(lambda entries: [planned_mask(e, reader.names) for e in entries if e]):
            if index or image.masks:
                yield image


def parse(options: Mapping[str, str]) -> float | None:
    """The lowest score that is taken, None for all. Raises RefusedError for options that are none."""
    score = as_float(options.get("min_score", 0))
    known = options.keys() <= {"images", "min_score", "from"} and options.get("from", "boxes") == "boxes"
    if score is None or not known:
        raise RefusedError(
            f"source coco-results takes images=URI, min_score=NUMBER and from=boxes, not {dict(options)}"
        )
    return score if "min_score" in options else None


def _read_detections(given: SourceInput, spill: ByImage, min_score: float | None) -> None:
    file = given.masks_uri.rpartition("/")[2]
    number = 0
    for key, entry in json_stream.entries(given.masks_uri, given.access):
        if key:
            raise RefusedError(f"{given.masks_uri} is not a COCO results file: it is no list")
        if entry is json_stream.LIST:
            continue
        if number == 0 and not (isinstance(entry, dict) and {"image_id", "file_name"} & entry.keys()):
            raise RefusedError(f"{given.masks_uri} is not a COCO results file: its first entry has no image_id")
        place = f"{file}: entry {number}"
        if not isinstance(entry, dict):
            given.coverage.leave(place, "no object", brief_value(entry), kind="detection")
        elif min_score is not None and not _score(entry) >= min_score:
            given.coverage.ignore(place, "a score below min_score", kind="detection")
        else:
            text, detail = geometry(entry, "from" in given.options)
            mask = [str(number), entry.get("category_id"), text, detail, False, extra_of(entry, USED)]
            spill.add(_image_of(entry), True, mask)
            given.coverage.take(place, "detection")
        number += 1
    if number == 0:
        raise RefusedError(f"{given.masks_uri} holds no detection")
    given.coverage.take(file)


def _image_of(entry: dict[str, Any]) -> str:
    """The id of a detection's image."""
    if "image_id" in entry or "file_name" not in entry:
        return as_id(entry.get("image_id"))
    return PurePosixPath(as_name(entry["file_name"]).replace("\\", "/")).stem


def _score(entry: dict[str, Any]) -> float:
    """NaN where it is no number: below every other."""
    score = as_float(entry["score"]) if "score" in entry else 1.0
    return float("nan") if score is None else score


def _name_images(given: SourceInput, spill: ByImage) -> None:
    """Entries for the images of the root, by the ids that their names are."""
    for key, path in _by_name(given.images).items():
        spill.add(key, False, [path, None, None, ""])


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
