"""CVAT for images 1.1: `annotations.xml`, or a folder that has it (the unpacked archive).

https://docs.cvat.ai/docs/manual/advanced/xml_format. Polygons, boxes and ellipses (which may be turned) and masks (run
lengths of a box, row by row) are read; what has no area (points, polylines), cuboids, skeletons and the tracks of
videos are named as not read. A shape's attribute `is_crowd` makes it a crowd region; all others, `occluded`, `group_id`
and the like are carried, as are an image's tags. Categories have the numbers of the labels' order, from 1. Shapes have
no ids: a mask's source id is the attribute `mask_id` (of this project's export), else the image's id and the shape's
number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from pipeline.sources import annotated, shapes, walks, xml_stream
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.fields import as_flag, as_int, as_label, as_size, brief_value, extra_of
from pipeline.sources.shapes import Drawn
from pipeline.sources.types import PlannedImage, SourceInput

ROOT = "annotations"
READ = ("polygon", "box", "ellipse", "mask")
WHY_NOT = {
    "polyline": "a polyline has no area",
    "points": "points have no area",
    "cuboid": "a cuboid is no region of the image",
    "skeleton": "a skeleton has no area",
}
MAX_BOX_PIXELS = 1 << 28
GEOMETRY = frozenset(
    [
        "label",
        "points",
        "xtl",
        "ytl",
        "xbr",
        "ybr",
        "rotation",
        "cx",
        "cy",
        "rx",
        "ry",
        "rle",
        "left",
        "top",
        "width",
        "height",
    ]
)
DEFAULTS = (("occluded", "0"), ("z_order", "0"), ("outside", "0"))
IMAGE_FIELDS = frozenset(("id", "name", "width", "height"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of every file."""
    labels: list[str] = []
    yield from annotated.plan(given, _images(given, labels), labels)


def _images(given: SourceInput, labels: list[str]) -> Iterator[Annotated]:
    """labels: filled with the labels' names in their order."""
    for uri, path in _files(given):
        number = 0
        for element in xml_stream.elements(uri, given.access, ("label", "image", "track")):
            if element.tag == "label" and element.find("parent") is None:
                labels.append(as_label((element.findtext("name") or "").strip()))
            elif element.tag == "image":
                number += 1
                yield _image(element, f"{path}, image {number}", given)
            elif element.tag == "track":
                place = f"{path}, track {element.get('id')}"
                given.coverage.leave(place, "a track of a video: export it as images", kind="track")
        given.coverage.take(path)


def _files(given: SourceInput) -> Iterator[tuple[str, str]]:
    """URI and path of each XML file."""
    uri = given.masks_uri.rstrip("/")
    if uri.lower().endswith(".xml"):
        yield uri, uri.rpartition("/")[2]
        return
    for file in walks.mask_files(given, {".xml"}):
        if xml_stream.root_name(f"{uri}/{file.path}", given.access) == ROOT:
            yield f"{uri}/{file.path}", file.path
        else:
            given.coverage.leave(file.path, "no XML of CVAT")


def _image(element: Element, where: str, given: SourceInput) -> Annotated:
    name, own_id = element.get("name", ""), element.get("id") or where
    size_hw = as_size(element.get("height"), element.get("width"))
    tags = [_described(tag) for tag in element.iter("tag")]
    extra = {**element.attrib, **({"tags": tags} if tags else {})}
    given.coverage.take(where, "image of CVAT")
    return Annotated(
        stated=name,
        source_id=own_id,
        height=element.get("height"),
        width=element.get("width"),
        shapes=list(_shapes(element, own_id, size_hw, where, given)),
        extra=extra_of(extra, IMAGE_FIELDS),
        where=where,
    )


def _shapes(
    image: Element, own_id: str, size_hw: tuple[int, int] | None, where: str, given: SourceInput
) -> Iterator[Shape]:
    for number, shape in enumerate((one for one in image if one.tag != "tag"), 1):
        if shape.tag not in READ:
            reason = WHY_NOT.get(shape.tag, "no shape of CVAT")
            given.coverage.leave(f"{where}, shape {number}", reason, shape.get("label", shape.tag), kind=shape.tag[:40])
            continue
        drawn = _draw(shape, size_hw)
        extra = _described(shape)
        attributes: Mapping[str, Any] = extra.get("attributes", {})
        source_id = attributes.get("mask_id") or f"{own_id}#{number}"
        crowd = as_flag(attributes.get("is_crowd"))
        label = as_label(shape.get("label"))
        yield Shape(source_id, label, drawn.text, drawn.detail, crowd, extra_of(extra, GEOMETRY - {"label"}))


def _described(shape: Element) -> dict[str, Any]:
    """What is not geometry: attributes of the element, and those of the label below it."""
    found: dict[str, Any] = {
        name: value
        for name, value in shape.attrib.items()
        if (name not in GEOMETRY or (shape.tag == "tag" and name == "label")) and (name, value) not in DEFAULTS
    }
    attributes = {one.get("name", ""): one.text or "" for one in shape.iter("attribute")}
    return {**found, "attributes": attributes} if attributes else found


def _draw(shape: Element, size_hw: tuple[int, int] | None) -> Drawn:
    degrees = shapes.numbers([shape.get("rotation", 0)])
    if shape.tag == "polygon":
        ring = shapes.ring_of([point.split(",") for point in shape.get("points", "").split(";") if point.strip()])
        return shapes.nothing(ring) if isinstance(ring, str) else shapes.polygons([ring])
    if degrees is None:
        return shapes.nothing(f"rotation: {brief_value(shape.get('rotation'))} is no number")
    if shape.tag == "box":
        sides = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
        if isinstance(sides, str):
            return shapes.nothing(sides)
        return Drawn(shapes.polygons([shapes.rectangle(*sides, *degrees)]).text, shapes.BOX)
    if shape.tag == "ellipse":
        axes = _numbers(shape, "cx", "cy", "rx", "ry")
        return shapes.nothing(axes) if isinstance(axes, str) else shapes.polygons([shapes.ellipse(*axes, *degrees)])
    return _bits(shape, size_hw)


def _numbers(shape: Element, *names: str) -> list[float] | str:
    found = shapes.numbers(shape.get(name) for name in names)
    if found is None:
        return f"{shape.tag}: {', '.join(f'{name}={brief_value(shape.get(name))}' for name in names)}"
    return found


def _bits(shape: Element, size_hw: tuple[int, int] | None) -> Drawn:
    """Run lengths of the pixels of a box, row by row, background first."""
    left, top, width, height = (as_int(shape.get(name)) for name in ("left", "top", "width", "height"))
    runs = [as_int(run) for run in shape.get("rle", "").split(",")]
    if size_hw is None:
        return shapes.nothing("mask: its image has no width and height")
    if left is None or top is None or width is None or height is None or width <= 0 or height <= 0:
        return shapes.nothing("mask: left, top, width and height are no box")
    lengths = [run for run in runs if run is not None and run >= 0]
    if len(lengths) < len(runs) or sum(lengths) != width * height or width * height > MAX_BOX_PIXELS:
        return shapes.nothing(f"mask: its runs cover {sum(lengths)} pixels of {width}x{height}")
    values = np.arange(len(lengths)) % 2 == 1
    crop = np.repeat(values, lengths).reshape(height, width)
    return shapes.of_rle(shapes.placed(crop, left, top, size_hw))
