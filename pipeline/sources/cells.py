"""Masks as datasets keep them in a cell of a table or in a sample's JSON -> planned masks.

What is understood:
    a COCO RLE {size, counts}, a PNG (bytes, or {bytes, path}), polygons [[x1, y1, ...], ...]
    an annotation: one of these under `segmentation`, `rle`, `mask`, ..., with `category_id`, `label`, `id`, ...
    a list of any of these; a struct of lists, one list a field; a struct that has such a list (`annotations`, ...)
    JSON text of any of these
A PNG that is black and white is one mask; of others each value is one, and its category id; 255 is void.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.errors import MaskError
from pipeline.masks import binary
from pipeline.masks.coarse import read_label_image
from pipeline.sources.files import UNREADABLE
from pipeline.sources.types import PlannedMask

LISTS = ("annotations", "objects", "instances", "masks", "segments")
GEOMETRIES = ("segmentation", "mask_rle", "rle", "mask", "segmentation_mask", "polygon", "polygons", "coarse_rle")
CATEGORY_IDS = ("category_id", "label_id", "class_id", "category", "label", "class")
CATEGORIES = ("category_name", "category", "label", "class", "class_name")
IDS = ("source_mask_id", "id", "mask_id", "annotation_id")
VOID = 255
MAX_DEPTH = 4


def masks_in(cell: Any, prefix: str, names: Mapping[int, str], depth: int = 0) -> list[PlannedMask]:
    """The masks of one image's cell. prefix: of the source ids of masks that have none; names: of category ids."""
    if cell is None or depth > MAX_DEPTH:
        return []
    if isinstance(cell, str | bytes) and (parsed := _parsed(cell)) is not None:
        return masks_in(parsed, prefix, names, depth + 1)
    if isinstance(cell, Mapping):
        inner = next((cell[name] for name in LISTS if isinstance(cell.get(name), list | dict)), None)
        if inner is not None:
            return masks_in(inner, prefix, names, depth + 1)
        if (columns := _columns(cell)) is not None:
            return masks_in(columns, prefix, names, depth + 1)
    if isinstance(cell, list) and not is_polygons(cell):
        found = [masks_in(entry, f"{prefix}#{number}", names, depth + 1) for number, entry in enumerate(cell)]
        return [mask for some in found for mask in some]
    if isinstance(cell, Mapping) and not _is_png(cell) and "counts" not in cell:
        return _annotation(cell, prefix, names)
    return [_mask(text, prefix, 1 if value is None else value, names, value) for text, value in _geometries(cell)]


def is_polygons(cell: Any) -> bool:
    """Whether a list is [[x1, y1, ...], ...]."""
    return (
        isinstance(cell, list)
        and bool(cell)
        and all(isinstance(ring, list) and ring and all(isinstance(v, int | float) for v in ring) for ring in cell)
    )


def _annotation(cell: Mapping[str, Any], prefix: str, names: Mapping[int, str]) -> list[PlannedMask]:
    geometry = next((cell[name] for name in GEOMETRIES if cell.get(name) is not None), None)
    category_id = next((cell[name] for name in CATEGORY_IDS if _is_int(cell.get(name))), None)
    category = next((cell[name] for name in CATEGORIES if isinstance(cell.get(name), str)), None)
    source_id = next((str(cell[name]) for name in IDS if cell.get(name) is not None), prefix)
    found = []
    for text, value in _geometries(geometry):
        number = category_id if category_id is not None else (value or (-1 if category else 1))
        own_id = source_id if value is None else f"{source_id}#{value}"
        found.append(PlannedMask(own_id, number, names.get(number, "") if category is None else category, text))
    return found


def _mask(text: str, prefix: str, number: int, names: Mapping[int, str], value: int | None) -> PlannedMask:
    return PlannedMask(prefix if value is None else f"{prefix}#{value}", number, names.get(number, ""), text)


def _geometries(cell: Any) -> Iterator[tuple[str, int | None]]:
    """(geometry JSON, the PNG's value where it has several) of one mask, or of each value of a PNG."""
    if isinstance(cell, str) and (parsed := _parsed(cell)) is not None:
        cell = parsed
    if isinstance(cell, Mapping) and _is_png(cell):
        cell = cell.get("bytes")
    if isinstance(cell, bytes):
        yield from _of_png(cell)
    elif isinstance(cell, Mapping) and "counts" in cell:
        counts = cell["counts"].decode("ascii", "replace") if isinstance(cell["counts"], bytes) else cell["counts"]
        yield json.dumps({"size": cell.get("size"), "counts": counts}, separators=(",", ":")), None
    elif isinstance(cell, list) and cell and all(isinstance(value, int | float) for value in cell):
        yield json.dumps([cell]), None
    elif is_polygons(cell):
        yield json.dumps(cell, separators=(",", ":")), None
    else:
        yield UNREADABLE, None


def _of_png(data: bytes) -> Iterator[tuple[str, int | None]]:
    try:
        labels = read_label_image(data)
    except MaskError:
        yield UNREADABLE, None
        return
    values = [int(value) for value in np.unique(labels) if value != 0]
    if len(values) <= 1:
        yield json.dumps(binary.encode(labels != 0)), None
        return
    for value in values:
        if value != VOID:
            yield json.dumps(binary.encode(labels == value)), value


def _parsed(text: str | bytes) -> Any:
    """JSON of a list or object, else None."""
    if text[:1] not in ("[", "{", b"[", b"{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _columns(cell: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """A struct of equally long lists, one of them of geometries -> a list of structs."""
    fields = {name: value for name, value in cell.items() if isinstance(value, list)}
    geometry = next((name for name in GEOMETRIES if name in fields), None)
    beside = [cell[name] for name in (*IDS, *CATEGORY_IDS, *CATEGORIES) if cell.get(name) is not None]
    if geometry is None or not all(isinstance(value, list) for value in beside):
        return None
    if (not beside and is_polygons(fields[geometry])) or any(isinstance(v, int | float) for v in fields[geometry]):
        return None  # one annotation
    length = len(fields[geometry])
    even = {name: value for name, value in fields.items() if len(value) == length}
    return [{name: value[index] for name, value in even.items()} for index in range(length)]


def _is_png(cell: Mapping[str, Any]) -> bool:
    return "bytes" in cell and set(cell) <= {"bytes", "path"}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
