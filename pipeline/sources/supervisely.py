"""Supervisely: `ann/cat.jpg.json` for `img/cat.jpg`, in a project of several such data sets, with `meta.json`.

https://developer.supervisely.com/getting-started/supervisely-annotation-format. Polygons (with holes), bitmaps and
rectangles are read; points, lines, graphs and whatever else has no area are named as not read. Corners of polygons and
rectangles are pixels, the last ones too. Categories have the numbers of the classes' order in `meta.json`, from 1. A
mask's source id is its `id`, else the file and the object's number; tags and whatever else an object has is carried.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.decoding import label_image
from pipeline.errors import MaskError
from pipeline.sources import documents, shapes
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.documents import Form
from pipeline.sources.fields import as_id, as_label, as_list, as_name, as_size, brief_value, extra_of
from pipeline.sources.pairs import stem
from pipeline.sources.shapes import Drawn, Ring
from pipeline.sources.types import PlannedImage, SourceInput
from pipeline.storage import Store

META = "meta.json"
READ = ("polygon", "bitmap", "rectangle")
NO_AREA = ("point", "line", "graph")
MAX_PNG_BYTES = 1 << 28
OBJECT_FIELDS = frozenset(("id", "classTitle", "points", "bitmap"))
IMAGE_FIELDS = frozenset(("size", "objects"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a document."""
    is_folder = not given.masks_uri.lower().endswith(documents.SUFFIX)
    order = _classes(Store(given.masks_uri, given.access)) if is_folder else []
    yield from documents.scan(given, Form("Supervisely", _read, _beside), order)


def fits(keys: Mapping[str, Any]) -> bool:
    """Whether a document with these keys is Supervisely's; of lists the first entry stands there."""
    size, first = keys.get("size"), keys.get("objects")
    is_first = not isinstance(first, dict) or "classTitle" in first or "geometryType" in first
    return isinstance(size, dict) and {"height", "width"} <= size.keys() and "objects" in keys and is_first


def _beside(path: str) -> str | None:
    names = {META: "names of classes", "obj_class_to_machine_color.json": "colours", "key_id_map.json": "ids"}
    return names.get(path.rpartition("/")[2])


def _classes(store: Store) -> list[str]:
    try:
        content = json.loads(store.read(META).decode("utf-8-sig", "replace"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return []
    entries = as_list(content.get("classes")) if isinstance(content, dict) else []
    return [as_label(entry.get("title")) for entry in entries if isinstance(entry, dict)]


def _read(path: str, content: dict[str, Any], given: SourceInput) -> Annotated | None:
    size, objects = content.get("size"), content.get("objects")
    if not isinstance(size, dict) or not isinstance(objects, list):
        return None
    size_hw = as_size(size.get("height"), size.get("width"))
    own = path.removesuffix(documents.SUFFIX)
    beside = own.replace("/ann/", "/img/").removeprefix("ann/")
    extra = {name: value for name, value in content.items() if value not in ("", [], None)}
    return Annotated(
        stated=own.rpartition("/")[2],
        source_id=own,
        height=size.get("height"),
        width=size.get("width"),
        shapes=list(_shapes(path, objects, size_hw, given)),
        names=_names(path, beside, given),
        extra=extra_of(extra, IMAGE_FIELDS),
        where=path,
    )


def _names(path: str, beside: str, given: SourceInput) -> Iterator[str]:
    without = "/".join(part for part in beside.split("/") if part not in ("ann", "img"))
    yield from (beside, f"img/{beside}", without)
    yield from documents.names_of(path, beside.rpartition("/")[2], given)


def _shapes(path: str, objects: list[Any], size_hw: tuple[int, int] | None, given: SourceInput) -> Iterator[Shape]:
    for number, found in enumerate(objects, 1):
        place = f"{path}, object {number}"
        if not isinstance(found, dict):
            given.coverage.leave(place, "no object", brief_value(found), kind="object")
            continue
        kind = as_name(found.get("geometryType")) or ("bitmap" if isinstance(found.get("bitmap"), dict) else "polygon")
        if kind not in READ:
            reason = f"a {kind} has no area" if kind in NO_AREA else "a figure that is not read"
            given.coverage.leave(place, reason, f"{as_label(found.get('classTitle'))}: {kind[:40]}", kind="object")
            continue
        drawn = _draw(kind, found, size_hw)
        own_id = as_id(found["id"]) if "id" in found else f"{stem(path)}#{number}"
        extra = {name: value for name, value in found.items() if value not in ("", [], None)}
        label = as_label(found.get("classTitle"))
        yield Shape(own_id, label, drawn.text, drawn.detail, extra=extra_of(extra, OBJECT_FIELDS))


def _draw(kind: str, found: Mapping[str, Any], size_hw: tuple[int, int] | None) -> Drawn:
    if size_hw is None:
        return shapes.nothing("size: the document has no height and width")
    if kind == "bitmap":
        return _bits(found.get("bitmap"), size_hw)
    points = found.get("points")
    points = points if isinstance(points, dict) else {}
    outside = points.get("exterior")
    if kind == "rectangle":
        corners = shapes.numbers(value for point in as_list(outside) for value in as_list(point)[:2])
        if corners is None or len(corners) != 4:
            return shapes.nothing("points: a rectangle has two corners")
        left, top, right, bottom = corners
        return Drawn(shapes.polygons([shapes.rectangle(left, top, right + 1, bottom + 1)]).text, shapes.BOX)
    rings = [shapes.ring_of(outside), *(shapes.ring_of(ring) for ring in as_list(points.get("interior")))]
    wrong = next((ring for ring in rings if isinstance(ring, str)), None)
    return shapes.nothing(wrong) if wrong else _filled([ring for ring in rings if not isinstance(ring, str)], size_hw)


def _filled(rings: list[Ring], size_hw: tuple[int, int]) -> Drawn:
    """The first ring without the others."""
    try:
        return shapes.of_rle(shapes.filled(rings[0], rings[1:], size_hw))
    except MaskError as error:
        return shapes.nothing(error.detail)


def _bits(bitmap: Any, size_hw: tuple[int, int]) -> Drawn:
    """A PNG, deflated, in base64; where it has an alpha channel, that is the mask."""
    data, origin = (bitmap.get("data"), bitmap.get("origin")) if isinstance(bitmap, dict) else (None, None)
    corner = shapes.numbers(as_list(origin)[:2])
    if not isinstance(data, str) or corner is None or len(corner) != 2:
        return shapes.nothing("bitmap: it has data and an origin")
    try:
        unpacked = zlib.decompressobj()
        png = unpacked.decompress(base64.b64decode(data, validate=True), MAX_PNG_BYTES)
        crop = np.asarray(label_image.read(png, greys=True).mask())
        left, top = (round(min(max(value, -(2.0**31)), 2.0**31)) for value in corner)
        return shapes.of_rle(shapes.placed(crop, left, top, size_hw))
    except (binascii.Error, ValueError, zlib.error):
        return shapes.nothing("bitmap: its data is no deflated PNG in base64")
    except MaskError as error:
        return shapes.nothing(f"bitmap: {error.detail}")
