"""COCO panoptic: a JSON file of segments, and PNGs whose pixels are segment ids (R + 256 G + 65536 B).

https://cocodataset.org/#format-data. The PNGs of `panoptic_val.json` lie in `panoptic_val/`, or beside the file.
One mask for each segment; its source id is the PNG's name and the segment's id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources.by_image import ByImage, Entry
from pipeline.sources.coco import Names, Reader, category_of
from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_flag, as_id, as_int, as_name, brief_value, extra_of
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import StoredFile, split_uri
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.listing import listing

SEGMENT_FIELDS = frozenset(("id", "category_id", "area", "bbox", "iscrowd"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of `images` with its segments, then the segments of images that `images` does not have."""
    with _pngs(given) as (folder, listed), scratch_folder("coco") as spilled:
        reader = Reader(given, ByImage(spilled))
        if not {"images", "annotations"} <= reader.read(given.masks_uri, partial(_annotation, given.coverage)):
            raise RefusedError(
                f"{given.masks_uri} is not a COCO panoptic file: it has no lists of images and annotations"
            )
        named: list[str] = []

        def masks_of(annotations: list[Entry]) -> list[PlannedMask]:
            named[:] = [folder + annotation[0] for annotation in annotations]
            return [mask for annotation in annotations for mask in _masks(annotation, folder, reader.names)]

        before = ""
        for planned in reader.planned(masks_of):
            # what the files hold is not looked at here; one that was written anew is likely to have another size
            files = [listed.get(path) for path in named] if planned.source_image_id != before else []
            before = planned.source_image_id
            digest = ",".join(f"{file.size}:{file.etag}" for file in files if file is not None)
            yield replace(planned, digest_extra=digest)


def root(masks_uri: str) -> str:
    """The folder that the masks' files are relative to: that of the JSON file."""
    return masks_uri.rpartition("/")[0] or "."


@contextmanager
def _pngs(given: SourceInput) -> Iterator[tuple[str, Mapping[str, StoredFile]]]:
    """The PNGs' folder, with a slash at its end, relative to `root`; and its files."""
    store, name = split_uri(given.masks_uri, given.access)
    folder = PurePosixPath(name).stem
    with listing(store.walk(folder)) as found:
        yield (f"{folder}/", found) if found else ("", {})


def _annotation(coverage: Coverage, entry: dict[str, Any]) -> Entry:
    """The PNG's name, and of each segment what is needed; what is no segment is left."""
    given = entry.get("segments_info", [])
    segments = given if isinstance(given, list) else [given]
    for number, segment in enumerate(segments):
        if not isinstance(segment, dict):
            place = f"annotation of image {as_id(entry.get('image_id'))}, segment {number}"
            coverage.leave(place, "no object", brief_value(segment), kind="segment")
    kept = [segment for segment in segments if isinstance(segment, dict)]
    return [as_name(entry.get("file_name")), [_segment(segment) for segment in kept]]


def _segment(segment: dict[str, Any]) -> Entry:
    extra = extra_of(segment, SEGMENT_FIELDS)
    return [segment.get("id"), segment.get("category_id"), as_flag(segment.get("iscrowd")), extra]


def _masks(annotation: Entry, folder: str, names: Names) -> list[PlannedMask]:
    file, segments = annotation
    return [_mask(segment, file, folder, names) for segment in segments]


def _mask(segment: Entry, file: str, folder: str, names: Names) -> PlannedMask:
    segment_id, category, crowd, extra = segment
    number = as_int(segment_id)
    value = segment_id if number is None else number
    text = json.dumps({"file": folder + file, "value": value, "packed": True})
    own_id = f"{stem(file)}#{as_id(segment_id)}" if file else as_id(segment_id)
    category_id, name, wrong = category_of(category, names)
    return PlannedMask(own_id, category_id, name, text, wrong, crowd, extra)
