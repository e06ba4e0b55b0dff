"""labelme: `cat.json` for `cat.jpg`, mostly beside it, with the shapes that a person drew.

The JSON has `imagePath` (relative to the file, with either slash), `imageHeight`, `imageWidth` and `shapes`:
    polygon (also where `shape_type` is missing), rectangle (two or four corners), rotation (four corners)
    circle (centre, a point of the rim): a disc
    mask: two corners, both inside, and a PNG of what is between them in base64
Points, lines and line strips have no area: they are named as not read. Shapes of one `group_id` and label are the parts
of one object. A label has a name and no number (see `annotated.py`). A mask's source id is the file and the number of
its (first) shape, from 1; flags, description and whatever else a shape has is carried, as are the image's flags.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.decoding import label_image
from pipeline.errors import MaskError
from pipeline.sources import documents, shapes
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.documents import Form
from pipeline.sources.fields import as_id, as_label, as_list, as_name, as_size, brief_value, extra_of
from pipeline.sources.pairs import stem
from pipeline.sources.shapes import Drawn
from pipeline.sources.types import PlannedImage, SourceInput

NO_AREA = frozenset(("point", "points", "line", "linestrip"))
MAX_MASK_CHARACTERS = 1 << 27
SHAPE_FIELDS = frozenset(("label", "points", "shape_type", "mask"))
IMAGE_FIELDS = frozenset(("version", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a document."""
    yield from documents.scan(given, Form("labelme", _read))


def fits(keys: Mapping[str, Any]) -> bool:
    """Whether a document with these keys is labelme's; of lists the first entry stands there."""
    first = keys.get("shapes")
    return "shapes" in keys and ("imagePath" in keys or (isinstance(first, dict) and "points" in first))


def _read(path: str, content: dict[str, Any], given: SourceInput) -> Annotated | None:
    if not isinstance(content.get("shapes"), list):
        return None
    height, width = content.get("imageHeight"), content.get("imageWidth")
    stated = as_name(content.get("imagePath"))
    return Annotated(
        stated=stated or f"{stem(path)}.jpg",
        source_id=stem(path),
        height=height,
        width=width,
        shapes=list(_shapes(path, content["shapes"], as_size(height, width), given)),
        names=documents.names_of(path, stated, given),
        extra=_extra(content),
        where=path,
    )


def _extra(content: Mapping[str, Any]) -> str:
    return extra_of({name: value for name, value in content.items() if value not in ({}, None, "")}, IMAGE_FIELDS)


def _shapes(path: str, found: list[Any], size_hw: tuple[int, int] | None, given: SourceInput) -> Iterator[Shape]:
    """One for each object, in the order of their first shapes."""
    groups: dict[tuple[str, str], list[tuple[int, Mapping[str, Any], Drawn]]] = {}
    for number, shape in enumerate(found, 1):
        place = f"{path}, shape {number}"
        if not isinstance(shape, dict):
            given.coverage.leave(place, "no object", brief_value(shape), kind="shape")
        elif (kind := as_name(shape.get("shape_type")) or "polygon") in NO_AREA:
            given.coverage.leave(place, f"a {kind} has no area", as_label(shape.get("label")), kind="shape")
        else:
            group = shape.get("group_id")
            key = (f"#{number}", "") if group is None else (as_id(group), as_label(shape.get("label")))
            groups.setdefault(key, []).append((number, shape, _draw(kind, shape, size_hw)))
    for parts in groups.values():
        yield _object(path, parts, size_hw)


def _object(path: str, parts: list[tuple[int, Mapping[str, Any], Drawn]], size_hw: tuple[int, int] | None) -> Shape:
    number, first, drawn = parts[0]
    usable = [part.text for _, _, part in parts if part.text != shapes.UNREADABLE]
    detail = next((f"{part.detail} (shape {number})" for number, _, part in parts if part.detail), "")
    if len(usable) > 1:
        drawn = _joined(usable, size_hw)
    elif usable:
        drawn = Drawn(usable[0])
    label, extra = as_label(first.get("label")), {**first, **({"shapes": len(parts)} if len(parts) > 1 else {})}
    kept = {name: value for name, value in extra.items() if value not in ({}, None, "")}
    return Shape(
        f"{stem(path)}#{number}", label, drawn.text, drawn.detail or detail, extra=extra_of(kept, SHAPE_FIELDS)
    )


def _joined(parts: list[str], size_hw: tuple[int, int] | None) -> Drawn:
    try:
        return shapes.joined(parts, size_hw)
    except MaskError as error:
        return shapes.nothing(f"group: {error.detail}")


def _draw(kind: str, shape: Mapping[str, Any], size_hw: tuple[int, int] | None) -> Drawn:
    if kind == "mask":
        return _bits(shape, size_hw)
    corners = shapes.numbers(value for point in as_list(shape.get("points")) for value in as_list(point)[:2])
    if kind == "rectangle" and corners is not None and len(corners) == 4:
        return Drawn(shapes.polygons([shapes.rectangle(*corners)]).text, shapes.BOX)
    if kind == "circle":
        return _disc(corners)
    if kind in ("polygon", "rectangle", "rotation", "rotated_rectangle"):
        ring = shapes.ring_of(shape.get("points"))
        return shapes.nothing(ring) if isinstance(ring, str) else shapes.polygons([ring])
    return shapes.nothing(f"shape_type: {brief_value(kind)} is none of labelme's")


def _disc(corners: list[float] | None) -> Drawn:
    if corners is None or len(corners) != 4:
        return shapes.nothing("points: a circle has two, its centre and one of its rim")
    x, y, rim_x, rim_y = corners
    radius = math.hypot(rim_x - x, rim_y - y)
    return shapes.polygons([shapes.ellipse(x, y, radius, radius)])


def _bits(shape: Mapping[str, Any], size_hw: tuple[int, int] | None) -> Drawn:
    """A PNG in base64, at the place of the first corner."""
    corners = shapes.numbers(value for point in as_list(shape.get("points"))[:1] for value in as_list(point)[:2])
    text = shape.get("mask")
    if size_hw is None:
        return shapes.nothing("mask: the document has no imageHeight and imageWidth")
    if corners is None or len(corners) != 2 or not isinstance(text, str) or len(text) > MAX_MASK_CHARACTERS:
        return shapes.nothing("mask: it has two corners and a PNG in base64")
    try:
        found = label_image.read(base64.b64decode(text, validate=True), greys=True)
        left, top = (round(min(max(corner, -(2.0**31)), 2.0**31)) for corner in corners)
        return shapes.of_rle(shapes.placed(found.mask(), left, top, size_hw))
    except (binascii.Error, ValueError):
        return shapes.nothing("mask: it is no base64")
    except MaskError as error:
        return shapes.nothing(f"mask: {error.detail}")
