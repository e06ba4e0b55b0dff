"""Masks as datasets keep them in a cell of a table or in a sample's JSON -> planned masks.

What is understood:
    a COCO RLE {size, counts}, a PNG (bytes, or {bytes, path}), polygons [[x1, y1, ...], ...], the path of a mask image
    an annotation: one of these under `segmentation`, `rle`, `mask`, ..., with `category_id`, `label`, `id`, ...
    a list of any of these; a struct of lists, one list a field; a struct that has such a list (`annotations`, ...)
    JSON text of any of these
A PNG that is black and white is one mask; of others each value is one, and its category id; 255 may be void, which is
told (see `void.py`). An annotation with a box alone is the box's rectangle, as in COCO.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.decoding import label_image, void
from pipeline.decoding.label_image import VOID, LabelImage
from pipeline.errors import MaskError
from pipeline.masks import binary
from pipeline.sources import coco, png
from pipeline.sources.fields import as_flag, as_id, as_int, brief_value, extra_of
from pipeline.sources.files import UNREADABLE
from pipeline.sources.mask_files import MaskFiles
from pipeline.sources.types import PlannedMask

LISTS = ("annotations", "objects", "instances", "masks", "segments")
GEOMETRIES = ("segmentation", "mask_rle", "rle", "mask", "segmentation_mask", "polygon", "polygons", "coarse_rle")
FILES = ("mask_file_name", "segmentation_file_name", "mask_path", "mask_file", "label_file_name", "segmentation_path")
BOXES = ("bbox", "box", "bboxes", "boxes")
CATEGORY_IDS = ("category_id", "label_id", "class_id", "category", "label", "class")
CATEGORIES = ("category_name", "category", "label", "class", "class_name")
IDS = ("source_mask_id", "id", "mask_id", "annotation_id")
USED = frozenset((*GEOMETRIES, *FILES, *BOXES, *CATEGORY_IDS, *CATEGORIES, *IDS, "area", "iscrowd", "image_id"))
PLURALS = {
    "categories": "category",
    "labels": "label",
    "classes": "class",
    "ids": "id",
    "bboxes": "bbox",
    "boxes": "bbox",
}
MAX_DEPTH = 4


class _Geometry(NamedTuple):
    """JSON of one mask; the value that it is of an image of labels; what is odd."""

    text: str
    value: int | None = None
    detail: str = ""


def _to_nobody(_what: str) -> None:
    """Nobody asks what is odd."""


@dataclass(frozen=True)
class Cells:
    """How cells are read. names: of category ids; files: the mask images that cells may name, None for none; tell: is
    told what is odd about a mask image, where its masks do not say so in their details.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    files: MaskFiles | None = None
    tell: Callable[[str], None] = _to_nobody

    def masks_in(self, cell: Any, prefix: str, depth: int = 0) -> list[PlannedMask]:
        """The masks of one image's cell. prefix: of the source ids of masks that have none."""
        if cell is None:
            return []
        if depth > MAX_DEPTH:
            return [PlannedMask(prefix, -1, "", UNREADABLE, "nesting: the cell is nested too deep")]
        if isinstance(cell, str | bytes) and (parsed := _parsed(cell)) is not None:
            return self.masks_in(parsed, prefix, depth + 1)
        if isinstance(cell, Mapping):
            inner = next((cell[name] for name in LISTS if isinstance(cell.get(name), list | dict)), None)
            if inner is not None:
                return self.masks_in(inner, prefix, depth + 1)
            if (columns := _columns(cell)) is not None:
                return self.masks_in(columns, prefix, depth + 1)
        if isinstance(cell, list) and not is_polygons(cell) and not _is_ring(cell):
            found = [self.masks_in(entry, f"{prefix}#{number}", depth + 1) for number, entry in enumerate(cell)]
            return [mask for some in found for mask in some]
        if isinstance(cell, Mapping) and not _is_png(cell) and "counts" not in cell:
            return self._annotation(cell, prefix)
        return [self._mask(one, prefix) for one in self._geometries(cell)]

    def _annotation(self, cell: Mapping[str, Any], prefix: str) -> list[PlannedMask]:
        geometry = next((cell[name] for name in (*GEOMETRIES, *FILES) if cell.get(name) is not None), None)
        category_id, category = category_of(cell, self.names)
        source_id = next((as_id(cell[name]) for name in IDS if cell.get(name) is not None), prefix)
        crowd, extra = as_flag(cell.get("iscrowd")), extra_of(cell, USED)
        found = []
        for text, value, detail in self._geometries_or_box(geometry, cell):
            number = category_id if category_id is not None else (value or (-1 if category else 1))
            own_id = source_id if value is None else f"{source_id}#{value}"
            name = self.names.get(number, "") if category is None else category
            found.append(PlannedMask(own_id, number, name, text, detail, crowd, extra))
        return found

    def _geometries_or_box(self, geometry: Any, cell: Mapping[str, Any]) -> Iterator[_Geometry]:
        if not geometry:
            box = next((cell[name] for name in BOXES if isinstance(cell.get(name), list)), None)
            text, detail = coco.geometry({"segmentation": geometry, "bbox": box})
            yield _Geometry(text, detail=detail or f"no mask: the annotation has {', '.join(map(str, cell))[:80]}")
        else:
            yield from self._geometries(geometry)

    def _mask(self, one: _Geometry, prefix: str) -> PlannedMask:
        number = 1 if one.value is None else one.value
        own_id = prefix if one.value is None else f"{prefix}#{one.value}"
        return PlannedMask(own_id, number, self.names.get(number, ""), one.text, one.detail)

    def _geometries(self, cell: Any) -> Iterator[_Geometry]:
        """One mask, or one for each value of an image of labels."""
        if isinstance(cell, str) and (parsed := _parsed(cell)) is not None:
            cell = parsed
        if isinstance(cell, Mapping) and _is_png(cell):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            yield from self._of_image(cell)
        elif isinstance(cell, Mapping) and "counts" in cell:
            counts = cell["counts"].decode("ascii", "replace") if isinstance(cell["counts"], bytes) else cell["counts"]
            yield _Geometry(json.dumps({"size": cell.get("size"), "counts": counts}, separators=(",", ":")))
        elif isinstance(cell, list) and _is_ring(cell):
            yield _Geometry(json.dumps([cell]))
        elif isinstance(cell, list) and cell:
            yield _Geometry(json.dumps(cell, separators=(",", ":"), default=str))
        elif isinstance(cell, str) and self.files is not None:
            yield from self._of_file(cell, self.files)
        else:
            yield _Geometry(UNREADABLE, detail=f"no mask: {brief_value(cell)} where a mask should be")

    def _of_image(self, data: bytes) -> Iterator[_Geometry]:
        try:
            image = label_image.read(data, greys=True)
        except MaskError as error:
            yield _Geometry(UNREADABLE, detail=f"unreadable: {error.detail}")
            return
        has_void = void.is_void(image)
        for what in png.odd_of(image, has_void):
            self.tell(what)
        yield from _of_labels(image, has_void)

    def _of_file(self, name: str, files: MaskFiles) -> Iterator[_Geometry]:
        data, path = files.read(name), files.path(name)
        if data is None:
            text = json.dumps({"file": path, "value": None})
            yield _Geometry(text, detail=f"no file: {name}, which the row names, is not there")
            return
        found = png.masks_of_file(path, data)
        for what in found.odd:
            self.tell(what)
        for mask in found.masks:
            yield _Geometry(mask.geometry, json.loads(mask.geometry)["value"], mask.detail)


def category_of(cell: Mapping[str, Any], names: Mapping[int, str]) -> tuple[int | None, str | None]:
    """Category id and name that an annotation states, None where it does not."""
    numbers = (as_int(cell[name]) for name in CATEGORY_IDS if cell.get(name) is not None)
    number = next((number for number in numbers if number is not None), None)
    texts = (cell[name] for name in CATEGORIES if isinstance(cell.get(name), str))
    category = next((text for text in texts if as_int(text) is None), None)
    if number is None and category is not None:
        number = next((known for known, name in names.items() if name == category), None)
    return number, category


def is_polygons(cell: Any) -> bool:
    """Whether a list is [[x1, y1, ...], ...]."""
    return isinstance(cell, list) and bool(cell) and all(isinstance(ring, list) and _is_ring(ring) for ring in cell)


def _is_ring(cell: list[Any]) -> bool:
    return bool(cell) and all(isinstance(value, int | float) for value in cell)


def _of_labels(image: LabelImage, has_void: bool) -> Iterator[_Geometry]:
    values = image.values
    if image.cut is not None or len(values) <= 1:
        yield _Geometry(json.dumps(binary.encode(image.mask())), detail=image.note)
        return
    for value in values:
        if value != VOID or not has_void:
            yield _Geometry(json.dumps(binary.encode(image.labels == value)), value, image.note)


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
    fields = {PLURALS.get(name, name): value for name, value in cell.items() if isinstance(value, list)}
    geometry = next((name for name in (*GEOMETRIES, *FILES, "bbox") if name in fields), None)
    beside = [fields.get(name, cell.get(name)) for name in (*IDS, *CATEGORY_IDS, *CATEGORIES)]
    if geometry is None or not all(isinstance(value, list) for value in beside if value is not None):
        return None
    stated = any(value is not None for value in beside)
    if (not stated and is_polygons(fields[geometry])) or any(isinstance(v, int | float) for v in fields[geometry]):
        return None  # one annotation
    length = len(fields[geometry])
    even = {name: value for name, value in fields.items() if len(value) == length}
    return [{name: value[index] for name, value in even.items()} for index in range(length)]


def _is_png(cell: Mapping[str, Any]) -> bool:
    return "bytes" in cell and set(cell) <= {"bytes", "path"}
