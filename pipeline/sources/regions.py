"""Label Studio's results -> shapes. Results of one id and place are one region: its geometry, label, attributes. Pure.

https://labelstud.io/guide/task_format and the tags' pages. x, y, width, height and radii are in percent of the image's
sides; a rectangle is turned clockwise about its first corner, an ellipse about its centre, which its x and y are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import MaskError
from pipeline.sources import brush, shapes
from pipeline.sources.annotated import Shape
from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_float, as_id, as_label, as_list, as_name, as_size, brief_value, extra_of
from pipeline.sources.shapes import Drawn, Ring

USED = frozenset(
    ("id", "type", "value", "from_name", "to_name", "source", "original_width", "original_height", "image_rotation")
)
KINDS = {"rle": "brush", "points": "polygon", "radiusX": "ellipse", "height": "rectangle"}
"""A key of a value -> what it is."""
WHY_NOT = {
    "x": "a key point has no area",
    "vertices": "a vector has no area",
    "imageDataURL": "a bitmask in a data URL",
    "sequence": "a region of a video",
    "start": "a region of a text or a sound",
}
GEOMETRY = ("points", "rle", "x", "y", "width", "height", "radiusX", "radiusY", "rotation")
CUT = 128
Result = Mapping[str, Any]


@dataclass
class Regions:
    """What results hold. of_image: what is said of the image as a whole, by the name of its tag; image: the name of the
    tag that shows the image, as the regions have it.
    """

    shapes: list[Shape] = field(default_factory=list)
    image: str = ""
    size_hw: tuple[int, int] | None = None
    of_image: dict[str, Any] = field(default_factory=dict)


def of(results: Sequence[Any], where: str, coverage: Coverage) -> Regions:
    """The regions of an annotation; what is none is named."""
    found, by_id = Regions(), dict[str, list[Result]]()
    for number, result in enumerate(results, 1):
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            is_relation = isinstance(result, dict) and result.get("type") == "relation"
            said = "a relation between regions" if is_relation else "no result"
            leave = coverage.leave if not is_relation else _ignoring(coverage)
            leave(f"{where}, result {number}", said, brief_value(result), kind="result")
            continue
        found.size_hw = found.size_hw or _size(result)
        own_id = f"#{number}" if result.get("id") is None else as_id(result["id"])
        by_id.setdefault(own_id, []).append(result)
    regions = [pair for own_id, group in by_id.items() for pair in _apart(own_id, group)]
    places = (one for _, group in regions for one in group if _has_area(one))
    images = Counter(as_name(one.get("to_name")) for one in places).most_common(1)
    found.image = images[0][0] if images else ""
    for own_id, group in regions:
        _take(own_id, group, found, f"{where}, region {own_id}", coverage)
    return found


def _apart(own_id: str, group: list[Result]) -> Iterator[tuple[str, list[Result]]]:
    """The regions that share an id, as a model writes them: of each place one, with what is said of all of them."""
    places: dict[str, list[Result]] = {}
    for one in filter(_has_area, group):
        place = [one.get("to_name"), *(one["value"].get(name) or 0 for name in GEOMETRY)]
        places.setdefault(json.dumps(place, default=str), []).append(one)
    if len(places) <= 1:
        yield own_id, group
        return
    rest = [one for one in group if not _has_area(one)]
    for number, same in enumerate(places.values(), 1):
        yield own_id if number == 1 else f"{own_id}#{number}", same + rest


def _has_area(result: Result) -> bool:
    return _kind(result) in KINDS.values()


def _ignoring(coverage: Coverage) -> Any:
    return lambda name, reason, _detail, kind: coverage.ignore(name, reason, kind=kind)


def _take(own_id: str, group: Sequence[Result], found: Regions, where: str, coverage: Coverage) -> None:
    region = next(filter(_has_area, group), None)
    if region is not None and as_name(region.get("to_name")) != found.image:
        coverage.leave(where, "a region of another image of the task", kind="region")
    elif region is not None:
        found.shapes.append(_shape(own_id, region, group))
    elif (odd := next((one for one in group if _kind(one)), None)) is not None:
        coverage.leave(where, WHY_NOT[_kind(odd)], as_name(odd.get("type")), kind="region")
    else:
        found.of_image.update(_attributes(group))


def _kind(result: Result) -> str:
    """What a result's value is: one of KINDS, a key of WHY_NOT, or "" for what has no place."""
    value = result["value"]
    return next((kind for key, kind in KINDS.items() if key in value), None) or next(
        (key for key in WHY_NOT if key in value), ""
    )


def _shape(own_id: str, region: Result, group: Sequence[Result]) -> Shape:
    labels = [as_label(label) for one in group for label in _labels(one["value"])]
    labels = list(dict.fromkeys(label for label in labels if label))
    drawn = _draw(region)
    attributes = _attributes([one for one in group if one is not region and not _labels(one["value"])])
    extra = {name: value for name, value in region.items() if name not in USED}
    extra |= {"attributes": attributes} if attributes else {}
    extra |= {"labels": labels} if len(labels) > 1 else {}
    rotated = as_float(region.get("image_rotation"))
    note = f"image_rotation: the image was shown turned by {rotated:g} degrees" if rotated else ""
    crowd = "crowd" in as_list(attributes.get("crowd"))  # as this project's export has it
    return Shape(own_id, labels[0] if labels else "", drawn.text, drawn.detail or note, crowd, extra_of(extra, ()))


def _labels(value: Result) -> list[Any]:
    return [label for name, labels in value.items() if name.endswith("labels") for label in as_list(labels)]


def _attributes(group: Sequence[Result]) -> dict[str, Any]:
    """What is said and has no place: choices, texts, ratings, by the name of their tags."""
    found: dict[str, Any] = {}
    for one in group:
        said = [
            value for name, value in one["value"].items() if name in ("choices", "text", "rating", "number", "taxonomy")
        ]
        found[as_name(one.get("from_name")) or as_name(one.get("type"))] = said[0] if said else dict(one["value"])
    return found


def _size(result: Result) -> tuple[int, int] | None:
    return as_size(result.get("original_height"), result.get("original_width"))


def _draw(region: Result) -> Drawn:
    kind, value, size_hw = _kind(region), region["value"], _size(region)
    if size_hw is None:
        return shapes.nothing("original_width, original_height: the region has no size of its image")
    if kind == "brush":
        return _brush(value, size_hw)
    if kind == "polygon":
        ring = shapes.ring_of(value["points"])
        return shapes.nothing(ring) if isinstance(ring, str) else shapes.polygons([_in_pixels(ring, size_hw)])
    names = ("x", "y", "radiusX", "radiusY") if kind == "ellipse" else ("x", "y", "width", "height")
    sides = shapes.numbers(value.get(name) for name in names)
    degrees = as_float(value.get("rotation") or 0)
    if sides is None or degrees is None:
        return shapes.nothing(f"{kind}: {', '.join(f'{name}={brief_value(value.get(name))}' for name in names)}")
    first, second, third, fourth = _in_pixels(sides, size_hw)
    if kind == "ellipse":
        return shapes.polygons([shapes.ellipse(first, second, third, fourth, degrees)])
    ring = shapes.rectangle(first, second, first + third, second + fourth)
    return Drawn(shapes.polygons([shapes.turned(ring, (first, second), degrees) if degrees else ring]).text, shapes.BOX)


def _in_pixels(ring: Ring, size_hw: tuple[int, int]) -> Ring:
    """Percent of width and height, in turns -> pixels."""
    return [value * size_hw[1 - place % 2] / 100 for place, value in enumerate(ring)]


def _brush(value: Result, size_hw: tuple[int, int]) -> Drawn:
    code = value["rle"]
    if not isinstance(code, list):
        return shapes.nothing(f"rle: {brief_value(code)} is no list of bytes")
    try:
        alpha = brush.decode(code, size_hw)
    except MaskError as error:
        return shapes.nothing(error.detail)
    soft = int(np.count_nonzero((alpha > 0) & (alpha < 255)))
    note = f"soft edges: {soft} pixels are neither 0 nor 255, cut at {CUT}" if soft else ""
    return Drawn(shapes.of_rle(shapes.placed(alpha >= CUT, 0, 0, size_hw)).text, note)
