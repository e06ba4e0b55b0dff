"""The geometry of a cell that is one mask, or one image of labels -> JSON of each mask. Pure.

Of a mask image, or of pixels, that is black and white, there is one; of others each value is one; 255 may be void
(see `void.py`), which is told.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.decoding import label_image, void
from pipeline.decoding.label_image import VOID, LabelImage
from pipeline.errors import MaskError
from pipeline.masks import binary
from pipeline.sources import grids, png
from pipeline.sources.files import UNREADABLE
from pipeline.sources.grids import SizeOf

BASE64_HEADS = ("iVBORw0KGgo", "/9j/")
Tell = Callable[[str], None]
"""Is told what is odd about an image."""


class Geometry(NamedTuple):
    """JSON of one mask; the value that it is of an image of labels; what is odd."""

    text: str
    value: int | None = None
    detail: str = ""


def of_image(data: bytes, tell: Tell) -> Iterator[Geometry]:
    """Of an encoded mask image."""
    try:
        image = label_image.read(data, greys=True)
    except MaskError as error:
        yield Geometry(UNREADABLE, detail=f"unreadable: {error.detail}")
        return
    yield from _of_labels(image, tell)


def of_list(cell: list[Any], size_of: SizeOf, tell: Tell) -> Iterator[Geometry]:
    """Of pixels, (H, W) or (N, H, W), or of polygons, which are one mask. size_of: as `grids.is_grid` takes it."""
    if grids.is_grid(cell, size_of):
        yield from _of_pixels(cell, tell)
    elif grids.is_stack(cell, size_of):
        for plane in cell:
            yield from _of_pixels(plane, tell)
    elif wrong := grids.fault(cell):
        yield Geometry(UNREADABLE, detail=wrong)
    elif is_ring(cell):
        yield Geometry(json.dumps([cell]))  # with the spaces that plans have of it
    else:
        yield Geometry(json.dumps(cell, separators=(",", ":"), default=str))


def as_rings(cell: Any, are_parts: bool = False) -> Any:
    """Points {x, y}, or the lists of them {x: [...], y: [...]}, as the polygon that they are; anything else as it is.

    are_parts: whether several {x: [...], y: [...]} are the polygons of one mask; else they are a mask each.
    """
    if isinstance(cell, Mapping) and _is_ring_of_lists(cell):
        return [_ring(cell["x"], cell["y"])]
    if not isinstance(cell, list) or not cell:
        return cell
    if are_parts and all(isinstance(one, Mapping) and _is_ring_of_lists(one) for one in cell):
        return [_ring(one["x"], one["y"]) for one in cell]
    if all(isinstance(one, Mapping) and one.keys() == {"x", "y"} and not _has_lists(one) for one in cell):
        return [_ring([one["x"] for one in cell], [one["y"] for one in cell])]
    return cell


def _is_ring_of_lists(cell: Mapping[str, Any]) -> bool:
    if cell.keys() != {"x", "y"} or not all(isinstance(one, list) for one in cell.values()):
        return False
    return len(cell["x"]) == len(cell["y"]) > 0


def _has_lists(cell: Mapping[str, Any]) -> bool:
    return any(isinstance(one, list) for one in cell.values())


def _ring(xs: list[Any], ys: list[Any]) -> list[Any]:
    return [value for point in zip(xs, ys, strict=True) for value in point]


def image_in_text(text: str) -> bytes | None:
    """The PNG or JPEG that a text is in base64, with or without `data:image/png;base64,` before it; else None."""
    head, comma, rest = text[:64].partition(";base64,")
    body = text[len(head) + len(comma) :] if rest and head.startswith("data:image/") else text
    if not body.startswith(BASE64_HEADS):
        return None
    try:
        return base64.b64decode(body)
    except ValueError:
        return None


def is_polygons(cell: Any) -> bool:
    """Whether a list is [[x1, y1, ...], ...]."""
    return isinstance(cell, list) and bool(cell) and all(isinstance(ring, list) and is_ring(ring) for ring in cell)


def is_ring(cell: list[Any]) -> bool:
    """Whether a list is of numbers."""
    return bool(cell) and all(isinstance(value, int | float) for value in cell)


def is_png(cell: Mapping[str, Any]) -> bool:
    """Whether a struct is {bytes, path}, as Hugging Face stores an image."""
    return "bytes" in cell and set(cell) <= {"bytes", "path"}


def _of_pixels(cell: list[Any], tell: Tell) -> Iterator[Geometry]:
    try:
        image = grids.read(cell)
    except MaskError as error:
        yield Geometry(UNREADABLE, detail=f"unreadable: {error.detail}")
        return
    yield from _of_labels(image, tell)


def _of_labels(image: LabelImage, tell: Tell) -> Iterator[Geometry]:
    values, has_void = image.values, void.is_void(image)
    for what in png.odd_of(image, has_void):
        tell(what)
    if image.cut is not None or len(values) <= 1:
        yield Geometry(json.dumps(binary.encode(image.mask())), detail=image.note)
        return
    for value in values:
        if value != VOID or not has_void:
            yield Geometry(json.dumps(binary.encode(image.labels == value)), value, image.note)
