"""Cityscapes' polygons: `X_gtFine_polygons.json` for `X_leftImg8bit.png`, where its PNGs of ids are not there.

https://github.com/mcordts/cityscapesScripts. Objects are drawn in their order, a later one over an earlier one, and get
the ids that Cityscapes' own instanceIds have: a mask's source id is the file and that id. Classes with instances give
one mask an object, all others one mask a class; groups (`cargroup`) are one crowd region a class. `license plate` and
deleted objects are not drawn, as there. Labels that are not Cityscapes' are objects, numbered by their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from pipeline.sources import cityscapes, documents, shapes
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.documents import Form
from pipeline.sources.fields import as_flag, as_label, as_size, brief_value
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, SourceInput

NUMBERS = {name: number for number, name in cityscapes.NAMES.items()}
WITH_INSTANCES = range(24, 34)
NOT_DRAWN = "license plate"
PER_CLASS = 1000
OWN_LABELS = 1 << 20
MAX_PIXELS = 1 << 26
GROUP = "group"
ENDINGS = ("_gtFine_polygons", "_gtCoarse_polygons", "_polygons")


class _Area(NamedTuple):
    """What an id stands for. number: None for a label that is not Cityscapes'."""

    label: str
    number: int | None
    crowd: bool = False


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a document."""
    yield from documents.scan(given, Form("Cityscapes", _read, _beside))


def fits(keys: Mapping[str, Any]) -> bool:
    """Whether a document with these keys is Cityscapes'; of lists the first entry stands there."""
    first = keys.get("objects")
    is_first = not isinstance(first, dict) or {"label", "polygon"} <= first.keys()
    return {"imgHeight", "imgWidth", "objects"} <= keys.keys() and is_first


def _beside(path: str) -> str | None:
    kind = cityscapes.kind_of(path)
    return f"Cityscapes' {kind}, beside its polygons" if kind not in (None, "polygons") else None


def _read(path: str, content: dict[str, Any], given: SourceInput) -> Annotated | None:
    objects = content.get("objects")
    if not isinstance(objects, list) or not {"imgHeight", "imgWidth"} <= content.keys():
        return None
    own = stem(path)
    bare = next((own.removesuffix(ending) for ending in ENDINGS if own.endswith(ending)), own)
    return Annotated(
        stated=f"{bare}_leftImg8bit.png",
        source_id=bare,
        height=content["imgHeight"],
        width=content["imgWidth"],
        shapes=list(_shapes(path, objects, as_size(content["imgHeight"], content["imgWidth"]), given)),
        names=_names(bare, path, given),
        where=path,
    )


def _names(bare: str, path: str, given: SourceInput) -> Iterator[str]:
    last = bare.rpartition("/")[2]
    for name in (bare, last):
        yield from (f"{name}{ending}" for ending in ("_leftImg8bit.png", "_leftImg8bit.jpg", ".png", ".jpg"))
    yield from documents.names_of(path, "", given)


def _shapes(path: str, objects: list[Any], size_hw: tuple[int, int] | None, given: SourceInput) -> Iterator[Shape]:
    """One mask for each id that is still to be seen; an object that cannot be drawn fails by itself."""
    if size_hw is None or size_hw[0] * size_hw[1] > MAX_PIXELS:
        detail = f"size: {brief_value(size_hw)} is none that polygons are drawn in"
        yield from (
            Shape(f"{stem(path)}#{n}", "", shapes.UNREADABLE, detail, number=-1) for n in range(1, len(objects) + 1)
        )
        return
    canvas = Image.new("I", size_hw[::-1], -1)
    areas: dict[int, _Area] = {}
    for number, found in enumerate(objects, 1):
        place = f"{path}, object {number}"
        if not isinstance(found, dict):
            given.coverage.leave(place, "no object", brief_value(found), kind="object")
        elif as_flag(found.get("deleted")) or found.get("label") == NOT_DRAWN:
            given.coverage.ignore(place, "a deleted object, or a license plate", kind="object")
        elif isinstance(ring := shapes.ring_of(found.get("polygon")), str) or _is_far(ring):
            detail = ring if isinstance(ring, str) else "points: a polygon far larger than its image"
            yield Shape(f"{stem(path)}#object {number}", as_label(found.get("label")), shapes.UNREADABLE, detail)
        else:
            area = _area(as_label(found.get("label")))
            own_id = _id(area, areas)
            areas[own_id] = area
            points = list(zip(ring[::2], ring[1::2], strict=True))
            ImageDraw.Draw(canvas).polygon(points, fill=own_id)
    yield from _visible(path, np.asarray(canvas), areas)


def _is_far(ring: shapes.Ring) -> bool:
    return max(abs(value) for value in ring) > shapes.MAX_CORNER_PX


def _area(label: str) -> _Area:
    group = label.endswith(GROUP) and label not in NUMBERS
    name = label.removesuffix(GROUP) if group and label.removesuffix(GROUP) in NUMBERS else label
    return _Area(name, NUMBERS.get(name), group and name != label)


def _id(area: _Area, areas: Mapping[int, _Area]) -> int:
    """As Cityscapes' instanceIds have it; labels of others are numbered beyond them."""
    if area.number is not None and (area.crowd or area.number not in WITH_INSTANCES):
        return area.number
    first = OWN_LABELS if area.number is None else area.number * PER_CLASS
    return first + sum(area.number == other.number and not other.crowd for other in areas.values())


def _visible(path: str, ids: Any, areas: Mapping[int, _Area]) -> Iterator[Shape]:
    for own_id, area in sorted(areas.items()):
        rle = shapes.placed(ids == own_id, 0, 0, ids.shape)
        detail = "" if (ids == own_id).any() else "hidden: later objects cover all of it"
        yield Shape(
            f"{stem(path)}#{own_id}", area.label, shapes.of_rle(rle).text, detail, area.crowd, number=area.number
        )
