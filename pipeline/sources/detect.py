"""Which format lies at a URI: by its name, by what a folder holds, and by how a JSON file begins.

What looks alike is told apart by `--source`: class maps, instance ids and binary masks are all PNGs.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pipeline.errors import RefusedError
from pipeline.sources import json_stream
from pipeline.sources.voc import OBJECTS
from pipeline.storage import Access, Store, split_uri
from schemas import layout

LOOKED_AT = 1000
YOLO_FILES = ("data.yaml", "dataset.yaml", "labels")
BY_SUFFIX = {
    ".json": None,
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".yaml": "yolo",
    ".yml": "yolo",
}
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|zip|gz|zst|bz2|xz|7z)$", re.IGNORECASE)
PICKLED = re.compile(r"\.(pkl|pickle|pt|pth)$", re.IGNORECASE)
BY_CONTENT = {".png": "png", ".parquet": "parquet", ".tar": "webdataset", ".txt": "yolo", ".npy": "cam", ".npz": "cam"}
"""Of folders: the first of these that a folder's files have."""


def detect(masks_uri: str, access: Access | None = None) -> str:
    """The source for the masks at a URI. Raises RefusedError where no source reads it."""
    uri = masks_uri.rstrip("/")
    access = access or Access()
    if COMPRESSED.search(uri) or PICKLED.search(uri):
        why = "pickles can run code" if PICKLED.search(uri) else "a compressed archive cannot be read in place"
        raise RefusedError(f"--masks {masks_uri}: {why}")
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix] or _json(uri, access)
    return _folder(uri, access)


def _folder(uri: str, access: Access) -> str:
    store = Store(uri, access)
    if store.exists(layout.CURRENT):
        return "result"
    if store.exists(OBJECTS) or uri.endswith(f"/{OBJECTS}"):
        return "voc"
    if any(store.exists(name) for name in YOLO_FILES):
        return "yolo"
    found = {PurePosixPath(path).suffix.lower() for path in store.some(LOOKED_AT)}
    return next((source for suffix, source in BY_CONTENT.items() if suffix in found), "png")


def _json(uri: str, access: Access) -> str:
    """By the first entries of each list; the file is read as far as that takes."""
    seen: set[str] = set()
    store, name = split_uri(uri, access)
    if not store.exists(name):
        return "coco"  # refused where it is read
    for key, entry in json_stream.entries(uri, access):
        if not key:
            return "coco-results"
        if not isinstance(entry, dict):
            continue
        if "segments_info" in entry:
            return "coco-panoptic"
        if {"neg_category_ids", "not_exhaustive_category_ids", "coco_url"} & entry.keys() and "file_name" not in entry:
            return "lvis"
        seen.add(key)
        if {"images", "annotations"} <= seen:
            break
    return "coco"
