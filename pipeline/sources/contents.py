"""Which source reads a JSON, XML or CSV file, by what stands in it: keys, the outermost element, columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import (
    cityscapes_polygons,
    cvat,
    foreign,
    image_folder,
    json_stream,
    label_studio,
    labelme,
    mmdet,
    open_images,
    rle_csv,
    sa1b,
    supervisely,
    tables,
    voc_boxes,
    xml_stream,
)
from pipeline.storage import Access, Store, split_uri

DOCUMENTS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "labelme": labelme.fits,
    "sa-1b": sa1b.fits,
    "label-studio": label_studio.fits,
    "supervisely": supervisely.fits,
    "cityscapes-polygons": cityscapes_polygons.fits,
    "mmdet": mmdet.fits,
}
"""Sources of folders of JSON, by the keys of a document; of lists the first entry counts."""
XML_ROOTS = {cvat.ROOT: "cvat", voc_boxes.ROOT: "voc-boxes"}
"""Outermost element of an XML file -> source."""
LOOKED_AT = 8
"""Files of a folder that tell what its documents are."""


def of_file(uri: str, access: Access, suffix: str) -> str:
    """The source of one file. Raises RefusedError for one that none reads, as far as its content tells."""
    if suffix == ".json":
        return _json(uri, access)
    if suffix in (".csv", ".jsonl"):
        return (_of_head(uri, access) if suffix == ".csv" else None) or _metadata(uri, access)
    source = _of_root(uri, access)
    if source is None:
        known = ", ".join(f"<{root}> ({name})" for root, name in XML_ROOTS.items())
        raise RefusedError(f"--masks {uri} is no XML of a format that is read: its first element is none of {known}")
    return source


def _metadata(uri: str, access: Access) -> str:
    """Of a table that is none of a source of its own. Raises RefusedError for one of another name."""
    if uri.endswith(image_folder.METADATA):
        return "image-folder"
    store, name = split_uri(uri, access)
    columns = tables.head(store, name) if name.endswith(".csv") else []
    if said := foreign.of_columns(columns):
        raise RefusedError(f"--masks {uri}: {said}")
    known = " or ".join(image_folder.METADATA)
    of_csv = f"its columns are {', '.join(columns)}; " if columns else ""
    raise RefusedError(
        f"--masks {uri} is no table that is read: {of_csv}a line for each image, with file_name, is read from {known}"
    )


def unread(paths: Sequence[str], store: Store) -> str:
    """What the documents or files of a folder are that no source fits, with what to do; "" where that is not known."""
    for path in [path for path in paths if path.lower().endswith(".json")][:LOOKED_AT]:
        keys = _keys(f"{store.uri.rstrip('/')}/{path}", store.access)
        if isinstance(keys.get("images"), dict) and isinstance(keys.get("annotations"), dict):
            return f"{path} is a file of COCO's kind: name it, --masks {store.uri.rstrip('/')}/{path}"
        if said := foreign.of_json(keys):
            return f"{path}: {said}"
    for path in [path for path in paths if path.lower().endswith(".txt")][:LOOKED_AT]:
        if said := foreign.of_lines(tables.lines(store, path)):
            return f"{path}: {said}"
    named = ((path, foreign.of_name(path)) for path in paths)
    return next((f"{path}: {said}" for path, said in named if said), "")


def of_documents(paths: Sequence[str], store: Store) -> Iterator[tuple[str, str]]:
    """The sources of a few documents of a folder, with their paths."""
    for suffix, source_of in ((".json", _of_keys), (".xml", _of_root), (".csv", _of_head)):
        for path in [path for path in paths if path.lower().endswith(suffix)][:LOOKED_AT]:
            source = source_of(f"{store.uri.rstrip('/')}/{path}", store.access)
            if source is not None:
                yield source, path


def _of_keys(uri: str, access: Access) -> str | None:
    return _document(_keys(uri, access))


def _keys(uri: str, access: Access) -> dict[str, Any]:
    """As far as the file can be read: a damaged one is refused by the source that its beginning speaks for."""
    keys: dict[str, Any] = {}
    with suppress(RefusedError, FileNotFoundError):
        for key, entry in json_stream.entries(uri, access):
            _keep(keys, key, entry)
    return keys


def _keep(keys: dict[str, Any], key: str, entry: Any) -> None:
    """Of lists the first entry stands for all."""
    if key not in keys or keys[key] is json_stream.LIST:
        keys[key] = entry


def _document(keys: Mapping[str, Any]) -> str | None:
    return next((name for name, fits in DOCUMENTS.items() if fits(keys)), None)


def _of_root(uri: str, access: Access) -> str | None:
    return XML_ROOTS.get(xml_stream.root_name(uri, access) or "")


def _of_head(uri: str, access: Access) -> str | None:
    names = tables.head(*split_uri(uri, access))
    if set(names) >= open_images.COLUMNS:
        return "open-images"
    return "rle-csv" if rle_csv.columns_of(names) else None


def _json(uri: str, access: Access) -> str:
    """By the first entries of each list; the file is read as far as that takes."""
    store, name = split_uri(uri, access)
    if not store.exists(name):
        return "coco"  # refused where it is read
    keys: dict[str, Any] = {}
    lists: set[str] = set()
    for key, entry in json_stream.entries(uri, access):
        if not key and entry is not json_stream.LIST:
            if isinstance(entry, dict) and label_studio.fits(entry):
                return "label-studio"
            is_result = isinstance(entry, dict) and entry.keys() >= {"image_id", "category_id"}
            return "coco-results" if is_result else _unless_foreign("coco-results", {key: entry}, uri)
        _keep(keys, key, entry)
        if isinstance(entry, dict) and (found := _of_coco(entry)):
            return found
        lists |= {key} if isinstance(entry, dict) else set()
        if {"images", "annotations"} <= lists:
            return "coco"
    if keys.keys() == {""}:
        return "coco-results"
    is_coco = "images" in lists and "annotations" in keys
    return _document(keys) or ("coco" if is_coco else _unless_foreign("coco", keys, uri))


def _unless_foreign(source: str, keys: Mapping[str, Any], uri: str) -> str:
    """The source. Raises RefusedError where the document is known to be of another tool."""
    if said := foreign.of_json(keys):
        raise RefusedError(f"--masks {uri}: {said}")
    return source


def _of_coco(entry: Mapping[str, Any]) -> str | None:
    if "segments_info" in entry:
        return "coco-panoptic"
    has_url_alone = "coco_url" in entry and "file_name" not in entry
    return "lvis" if has_url_alone or {"neg_category_ids", "not_exhaustive_category_ids"} & entry.keys() else None
