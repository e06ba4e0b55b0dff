"""COCO panoptic: a JSON file, and a folder of PNGs whose pixels are segment ids (R + 256 G + 65536 B).

https://cocodataset.org/#format-data. The PNGs of `panoptic_val.json` lie in `panoptic_val/`, or beside the file.
One mask for each segment; its source id is the PNG's name and the segment's id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import json_stream
from pipeline.sources.by_image import ByImage, Entry
from pipeline.sources.coco import Names, category_of, hashable, image_entry, planned_image
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import StoredFile, split_uri
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.listing import listing


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of `images` with its segments, then the segments of images that `images` does not have."""
    with _pngs(given) as (folder, listed), scratch_folder("coco") as spilled:
        spill = ByImage(spilled)
        names = _read(given, spill)
        for image_key, images, annotations in spill.groups():
            masks = [mask for annotation in annotations for mask in _masks(annotation, folder, names)]
            # what the files hold is not looked at here; one that was written anew is likely to have another size
            files = [listed.get(folder + annotation[0]) for annotation in annotations]
            digest = ",".join(f"{file.size}:{file.etag}" for file in files if file is not None)
            if not images:
                yield PlannedImage(f"unknown-image-{image_key}", image_key, None, masks, "image_missing", digest)
            for number, image in enumerate(images):
                planned = planned_image(image, image_key, masks if number == 0 else [])
                yield PlannedImage(**{**vars(planned), "digest_extra": digest if number == 0 else ""})


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


def _read(given: SourceInput, spill: ByImage) -> Names:
    names: Names = {}
    lists = set()
    for key, entry in json_stream.entries(given.masks_uri, given.access):
        if entry is json_stream.LIST:
            lists.add(key)
        elif not isinstance(entry, dict):
            continue
        elif key == "images":
            spill.add(str(entry.get("id")), False, image_entry(entry))
        elif key == "annotations":
            segments = [
                [segment.get("id"), segment.get("category_id")]
                for segment in entry.get("segments_info") or []
                if isinstance(segment, dict)
            ]
            spill.add(str(entry.get("image_id")), True, [str(entry.get("file_name") or ""), segments])
        elif key == "categories":
            names[hashable(entry.get("id"))] = str(entry.get("name", ""))
    if not {"images", "annotations"} <= lists:
        raise RefusedError(f"{given.masks_uri} is not a COCO panoptic file: it has no lists of images and annotations")
    return names


def _masks(annotation: Entry, folder: str, names: Names) -> list[PlannedMask]:
    file, segments = annotation
    return [_mask(segment_id, category, file, folder, names) for segment_id, category in segments]


def _mask(segment_id: Any, category: Any, file: str, folder: str, names: Names) -> PlannedMask:
    text = json.dumps({"file": folder + file, "value": segment_id, "packed": True})
    return PlannedMask(f"{stem(file)}#{segment_id}" if file else str(segment_id), *category_of(category, names), text)
