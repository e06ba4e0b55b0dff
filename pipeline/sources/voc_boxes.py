"""Pascal VOC's XML, which holds boxes and no masks: `Annotations/cat.xml` for `JPEGImages/cat.jpg`.

http://host.robots.ox.ac.uk/pascal/VOC. Each object's box becomes a prompt: its rectangle. `--masks` is Annotations or
the folder that has it. The polygon that Roboflow writes beside a box is the mask. VOC counts pixels from 1, most tools
that write its XML from 0: corners are taken as they are. VOC's own classes have VOC's numbers. A mask's source id is
the file and the object's number, from 1; `difficult`, `truncated`, parts and whatever else an object has is carried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from pipeline.sources import documents, png, shapes
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.documents import Form
from pipeline.sources.fields import as_label, brief_value, extra_of
from pipeline.sources.pairs import stem
from pipeline.sources.shapes import Drawn
from pipeline.sources.types import PlannedImage, SourceInput
from pipeline.sources.voc import BESIDE, NAMES

ROOT = "annotation"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
USED = frozenset(("name", "bndbox", "polygon"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a file."""
    labels: set[str] = set()

    def read(path: str, content: Element, _given: SourceInput) -> Annotated | None:
        found = _read(path, content, given)
        labels.update(shape.label for shape in found.shapes) if found else None
        return found

    def of_voc() -> Iterator[str]:
        yield from NAMES[1:] if labels <= set(NAMES) else ()

    form = Form("Pascal VOC", read, _beside, ".xml", documents.xml_of)
    yield from documents.scan(given, form, of_voc())


def _beside(path: str) -> str | None:
    folder = path.partition("/")[0]
    return png.beside(path) or (None if folder == "Annotations" else BESIDE.get(folder))


def _read(path: str, content: Element, given: SourceInput) -> Annotated | None:
    if content.tag != ROOT:
        return None
    stated = (content.findtext("filename") or "").strip()
    return Annotated(
        stated=stated or f"{stem(path)}.jpg",
        source_id=stem(path),
        height=content.findtext("size/height"),
        width=content.findtext("size/width"),
        shapes=[_shape(path, number, one) for number, one in enumerate(content.findall("object"), 1)],
        names=documents.names_of(path, stated, given),
        where=path,
    )


def _shape(path: str, number: int, found: Element) -> Shape:
    drawn = _polygon(found) or _box(found)
    rest: dict[str, Any] = {one.tag: _value(one) for one in found if one.tag not in USED and one.tag != "part"}
    parts = [_value(part) for part in found.iter("part")]
    extra = {name: value for name, value in {**rest, "parts": parts}.items() if value}
    label = as_label((found.findtext("name") or "").strip())
    return Shape(f"{stem(path)}#{number}", label, drawn.text, drawn.detail, extra=extra_of(extra, ()))


def _value(element: Element) -> Any:
    """Text, or what stands inside by its names."""
    return {one.tag: _value(one) for one in element} if len(element) else (element.text or "").strip()


def _box(found: Element) -> Drawn:
    texts = [found.findtext(f"bndbox/{corner}") for corner in CORNERS]
    corners = shapes.numbers(texts)
    if corners is None:
        said = ", ".join(f"{name} {brief_value(text)}" for name, text in zip(CORNERS, texts, strict=True))
        return shapes.nothing(f"bndbox: {said}")
    return Drawn(shapes.polygons([shapes.rectangle(*corners)]).text, shapes.BOX)


def _polygon(found: Element) -> Drawn | None:
    """x1, y1, x2, y2, ... in their order."""
    element = found.find("polygon")
    values = shapes.numbers(one.text for one in element) if element is not None else None
    return shapes.polygons([values]) if values and len(values) >= 6 and len(values) % 2 == 0 else None
