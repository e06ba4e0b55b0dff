"""Which source reads the masks at a URI, by what lies there.

What looks alike is told apart by `--source`: class maps, instance ids and binary masks are all images. A folder that
two formats fit is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import (
    cityscapes,
    coverage,
    cvat,
    image_folder,
    json_stream,
    label_studio,
    labelme,
    open_images,
    rle_csv,
    sa1b,
    tables,
    voc_boxes,
    walks,
    xml_stream,
    yolo,
)
from pipeline.sources.label_maps import COLOURED
from pipeline.sources.types import IMAGE_SUFFIXES
from pipeline.sources.voc import OBJECTS
from pipeline.storage import Access, Store, split_uri
from schemas import layout

YOLO_FILES = ("data.yaml", "dataset.yaml", "labels")
BY_SUFFIX = {
    ".json": None,
    ".xml": None,
    ".jsonl": "image-folder",
    ".csv": None,
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".yaml": "yolo",
    ".yml": "yolo",
}
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|zip|gz|zst|bz2|xz|7z)$", re.IGNORECASE)
PICKLED = re.compile(r"\.(pkl|pickle|pt|pth)$", re.IGNORECASE)
BY_CONTENT = {".parquet": "parquet", ".tar": "webdataset", ".txt": "yolo", ".npy": "cam", ".npz": "cam"}
"""Of folders: what these files are."""
DOCUMENTS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "labelme": labelme.fits,
    "sa-1b": sa1b.fits,
    "label-studio": label_studio.fits,
}
"""Sources of folders of JSON, by the keys of a document; of lists the first entry counts."""
XML_ROOTS = {cvat.ROOT: "cvat", voc_boxes.ROOT: "voc-boxes"}
"""Outermost element of an XML file -> source."""
SAMPLED_TEXTS = 8


def detect(masks_uri: str, access: Access | None = None, images_uri: str | None = None) -> str:
    """The source for the masks at a URI. Raises RefusedError where no source reads it, or two do.

    images_uri: the image root, whose images are no masks.
    """
    uri = masks_uri.rstrip("/")
    access = access or Access()
    if COMPRESSED.search(uri) or PICKLED.search(uri):
        why = "pickles can run code" if PICKLED.search(uri) else "a compressed archive cannot be read in place"
        raise RefusedError(f"--masks {masks_uri}: {why}")
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix in BY_SUFFIX:
        by_content = {".xml": _xml, ".csv": _csv, ".json": _json}
        return BY_SUFFIX[suffix] or by_content[suffix](uri, access)
    return _folder(uri, access, images_uri)


def holds(paths: Iterable[str]) -> str:
    """What lies in a folder, in words: `12 .json (a.json), 3 .jpg (b.jpg)`."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(coverage.kind_of(path), []).append(path)
    counted = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return ", ".join(f"{len(names)} {kind} ({min(names)})" for kind, names in counted[:4]) or "nothing"


def _folder(uri: str, access: Access, images_uri: str | None) -> str:
    store = Store(uri, access)
    if store.exists(layout.CURRENT):
        return "result"
    if store.exists(OBJECTS) or uri.endswith(f"/{OBJECTS}"):
        return "voc"
    if any(store.exists(name) for name in YOLO_FILES):
        return "yolo"
    paths = [path for path in walks.some(store, walks.LOOKED_AT) if not coverage.ignored_by_name(path)]
    own = _without_images(paths, uri, images_uri)
    fitting = _fitting(own, store)
    if images_uri is None and fitting.keys() & {*DOCUMENTS, *XML_ROOTS.values()}:
        fitting.pop("png", None)  # the images, beside their documents
    if len(fitting) > 1:
        sides = " and ".join(f"{name} ({example})" for name, example in fitting.items())
        raise RefusedError(f"--masks {uri} fits two formats, {sides}: say which with --source")
    return next(iter(fitting), "png")


def _without_images(paths: Sequence[str], uri: str, images_uri: str | None) -> list[str]:
    """The paths that are no images of `--images`."""
    if not images_uri:
        return list(paths)
    masks, images = walks.location(uri), walks.location(images_uri)
    below = f"{images[len(masks) + 1 :]}/" if images.startswith(f"{masks}/") else None
    known = set(paths)
    return [
        path
        for path in paths
        if not (below is not None and path.startswith(below))
        and not (masks == images and _is_image(path) and not walks.is_mask_among(path, known))
    ]


def _fitting(paths: Sequence[str], store: Store) -> dict[str, str]:
    """The sources that files of a folder fit, each with one of them."""
    found: dict[str, str] = {}
    metadata = next((path for path in paths if path.rpartition("/")[2] in image_folder.METADATA), None)
    if metadata is not None:
        return {"image-folder": metadata}
    for path in paths:
        source = BY_CONTENT.get(PurePosixPath(path).suffix.lower())
        if source is None and _is_image(path):
            source = "png"
        if source is not None:
            found.setdefault(source, path)
    for source, path in _documents(paths, store):
        found.setdefault(source, path)
    if "open-images" in found:
        found.pop("png", None)  # the masks that it names
    if "yolo" in found and not _are_labels([path for path in paths if path.endswith(".txt")], store):
        del found["yolo"]
    if "png" in found:
        found = {_of_images(paths) if name == "png" else name: path for name, path in found.items()}
    return found


def _of_images(paths: Sequence[str]) -> str:
    """Binary masks and instances are told by their values; class maps by Cityscapes' names, or by a label map."""
    if any(path in COLOURED for path in paths):
        return "class-maps"
    kind = cityscapes.best_kind(paths, cityscapes.KINDS)
    return {None: "png", "instanceIds": "instances"}.get(kind, "class-maps")


def _are_labels(paths: Sequence[str], store: Store) -> bool:
    """Whether text files hold lines of numbers, as YOLO's do."""
    for path in [path for path in paths if yolo.beside(path) is None][:SAMPLED_TEXTS]:
        try:
            lines = store.read(path)[: 1 << 16].decode("utf-8", "replace").splitlines()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        if words := next((line.split() for line in lines if line.strip()), None):
            return len(words) >= 5 and all(yolo.loose_float(word) is not None for word in words)
    return False


def _documents(paths: Sequence[str], store: Store) -> Iterator[tuple[str, str]]:
    """The sources of a few JSON and XML documents, with their paths."""
    for suffix, source_of in ((".json", _of_keys), (".xml", _of_root), (".csv", _of_head)):
        for path in [path for path in paths if path.lower().endswith(suffix)][:SAMPLED_TEXTS]:
            source = source_of(f"{store.uri.rstrip('/')}/{path}", store.access)
            if source is not None:
                yield source, path


def _of_keys(uri: str, access: Access) -> str | None:
    keys = _keys(uri, access)
    return next((name for name, fits in DOCUMENTS.items() if fits(keys)), None)


def _of_root(uri: str, access: Access) -> str | None:
    return XML_ROOTS.get(xml_stream.root_name(uri, access) or "")


def _of_head(uri: str, access: Access) -> str | None:
    names = tables.head(*split_uri(uri, access))
    if set(names) >= open_images.COLUMNS:
        return "open-images"
    return "rle-csv" if rle_csv.columns_of(names) else None


def _csv(uri: str, access: Access) -> str:
    return _of_head(uri, access) or "image-folder"


def _xml(uri: str, access: Access) -> str:
    source = _of_root(uri, access)
    if source is None:
        known = ", ".join(f"<{root}> ({name})" for root, name in XML_ROOTS.items())
        raise RefusedError(f"--masks {uri} is no XML of a format that is read: its first element is none of {known}")
    return source


def _keys(uri: str, access: Access) -> dict[str, Any]:
    """The keys of a JSON object, of lists with their first entry; as far as the file can be read."""
    found: dict[str, Any] = {}
    with suppress(RefusedError, OSError):
        for key, entry in json_stream.entries(uri, access):
            if key not in found or found[key] is json_stream.LIST:
                found[key] = entry
    return found


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _json(uri: str, access: Access) -> str:
    """By the first entries of each list; the file is read as far as that takes."""
    seen: set[str] = set()
    is_list = False
    keys: dict[str, Any] = {}
    store, name = split_uri(uri, access)
    if not store.exists(name):
        return "coco"  # refused where it is read
    for key, entry in json_stream.entries(uri, access):
        if not key and entry is json_stream.LIST:
            is_list = True
        elif not key:
            return "label-studio" if isinstance(entry, dict) and label_studio.fits(entry) else "coco-results"
        if key not in keys or keys[key] is json_stream.LIST:
            keys[key] = entry
        if not isinstance(entry, dict):
            continue
        if "segments_info" in entry:
            return "coco-panoptic"
        if {"neg_category_ids", "not_exhaustive_category_ids"} & entry.keys() or _has_url_alone(entry):
            return "lvis"
        seen.add(key)
        if {"images", "annotations"} <= seen:
            return "coco"
    return "coco-results" if is_list else next((source for source, fits in DOCUMENTS.items() if fits(keys)), "coco")


def _has_url_alone(entry: dict[str, object]) -> bool:
    return "coco_url" in entry and "file_name" not in entry
