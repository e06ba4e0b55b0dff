"""Masks as datasets keep them in a cell of a table or in a sample's JSON -> planned masks.

What is understood:
    a COCO RLE {size, counts}, a PNG (bytes, or {bytes, path}), polygons [[x1, y1, ...], ...], the path of a mask image
    an annotation: one of these under `segmentation`, `rle`, `mask`, ..., with `category_id`, `label`, `id`, ...
    a list of any of these; a struct of lists, one list a field; a struct that has such a list (`annotations`, ...)
    the pixels, H rows of W numbers, or N times that; JSON text of any of these
Lists beside a list of masks (`labels`, `categories`, `boxes`, ...) have one value a mask; one of another length is
told, as is a field with masks where another one is read. A PNG that is black and white is one mask, and so are pixels;
of others each value is one, and its category id; 255 may be void, which is told (see `void.py`). An annotation with a
box alone is the box's rectangle, as in COCO.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.sources import box_forms, coco, png
from pipeline.sources.box_forms import FormOf
from pipeline.sources.cell_fields import (
    BOXES,
    FILES,
    GEOMETRIES,
    IDS,
    LISTS,
    MASKS,
    MAX_DEPTH,
    NOTHING,
    OF_A_CATEGORY,
    SAID_ONCE,
    SINGULAR,
    USED,
    Beside,
    Field,
    LeftFields,
    apart_from,
    are_apart,
    beside_of,
    category_of,
    chosen,
    each_of,
    has_none,
    is_empty,
    lists_of,
    may_be_masks,
    merged,
    names_in,
    of_all,
    of_one,
    parsed,
)
from pipeline.sources.cell_geometries import (
    Geometry,
    Tell,
    as_rings,
    image_in_text,
    is_png,
    is_polygons,
    is_ring,
    of_image,
    of_list,
)
from pipeline.sources.fields import as_flag, as_id, brief_value, extra_of
from pipeline.sources.files import UNREADABLE
from pipeline.sources.grids import SizeOf, is_grid, is_stack
from pipeline.sources.mask_files import MaskFiles
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedMask


def _to_nobody(_what: str) -> None:
    """Nobody asks what is odd."""


@dataclass(frozen=True)
class Cells:
    """How the cells of one row are read.

    names: of category ids; files: the mask images that cells may name, None for none; tell: is told what is odd about a
    mask image, where its masks do not say so in their details; size_of: asked for the (H, W) of the row's image; left,
    where: who is told of fields that are not used, and the row's name.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    files: MaskFiles | None = None
    tell: Tell = _to_nobody
    size_of: SizeOf = lambda: None
    left: LeftFields | None = None
    where: str = ""
    form_of: FormOf = box_forms.unstated

    def masks_in(self, cell: Any, prefix: str, beside: Beside = NOTHING, depth: int = 0) -> list[PlannedMask]:
        """The masks of one image's cell. prefix: of the source ids of masks that have none; beside: what the fields
        beside the cell say of them.
        """
        cell = as_rings(cell)
        if cell is None:
            return []
        if depth > MAX_DEPTH:
            return [PlannedMask(prefix, -1, "", UNREADABLE, "nesting: the cell is nested too deep")]
        if (found := parsed(cell)) is not None:
            return self.masks_in(found, prefix, beside, depth + 1)
        if isinstance(cell, Mapping) and not is_png(cell) and "counts" not in cell:
            return self._record(cell, prefix, beside, depth)
        if isinstance(cell, list) and self._is_many(cell, beside):
            return self._many(cell, prefix, beside, depth)
        return self._alone(cell, prefix, beside)

    def uneven(self, fields: Iterable[Field], masks: int) -> None:
        """Tell of lists that have not one value a mask."""
        for name, values in fields:
            if self.left is not None:
                self.left.uneven(name, len(values), masks, self.where)

    def unused(self, names: Iterable[str], read: str | None, instead: str = "") -> None:
        """Tell of fields that have masks or boxes, too, where others are `read`; instead: what would have them read."""
        for name in names:
            if self.left is not None:
                reason = f"the masks are read from {read}" + (f"; {instead}{name} reads these" if instead else "")
                self.left.unused(name, reason, self.where)

    def _is_many(self, cell: list[Any], beside: Beside) -> bool:
        """Whether a list is of masks, rather than one mask's polygons, corners or pixels."""
        if is_ring(cell) or is_grid(cell, self.size_of):
            return False
        even = len(cell) > 1 and any(len(one.value) == len(cell) for one in lists_of(beside).values())
        return not is_polygons(cell) or (even and are_apart(cell, beside))

    def _many(self, cell: list[Any], prefix: str, beside: Beside, depth: int) -> list[PlannedMask]:
        lists = lists_of(beside)
        self.uneven((one for one in lists.values() if len(one.value) != len(cell)), len(cell))
        found: list[PlannedMask] = []
        for place, (entry, own) in enumerate(zip(cell, each_of(beside, len(cell)), strict=True)):
            known = {} if entry is None and lists and own else entry  # a mask that is said to be there, and is not
            found += self.masks_in(known, f"{prefix}#{place}", own, depth + 1)
        return found

    def _record(self, cell: Mapping[str, Any], prefix: str, beside: Beside, depth: int) -> list[PlannedMask]:
        """The masks of a struct or JSON object: one annotation, or one that has them in a list or in columns."""
        cell = {key: as_rings(value, True) if key in GEOMETRIES else value for key, value in cell.items()}
        name, unused = chosen(cell, MASKS)
        self.unused(apart_from(name, unused), name)
        if name is None:
            name = next((name for name in LISTS if isinstance(cell.get(name), list | dict)), None)
        cells = replace(self, names={**self.names, **table}) if (table := names_in(cell)) else self
        own = beside_of(cell)
        said = merged(beside, own)
        if name in LISTS and isinstance(cell[name], list | dict | str | bytes):
            return cells.masks_in(cell[name], prefix, of_all(said), depth + 1)
        record = {key: value for key, value in cell.items() if key not in unused}
        if (columns := self._columns(record, name, said)) is not None:
            return cells.masks_in(columns, prefix, NOTHING, depth)
        inherited = {key: one.value for key, one in said.items() if key not in own}
        stated = {key: value for key, value in record.items() if value is not None or key not in inherited}
        return cells._annotation({**inherited, **stated}, prefix)

    def _columns(self, record: Mapping[str, Any], name: str | None, beside: Beside) -> list[dict[str, Any]] | None:
        """A struct of lists, one of them of geometries -> a list of structs; None for one annotation."""
        lists = lists_of(beside)
        if name is None and has_none(record):
            self.uneven(lists.values(), 0)
            return []
        if name is None and "bbox" in beside:
            name = "bbox" if "bbox" in lists else None
        elif name is None:  # columns of no mask, or of masks that are not there
            name = next((key for key in (*GEOMETRIES, *FILES) if isinstance(record.get(key), list)), None)
        cell = record.get(name or "")
        cell = lists["bbox"].value if name == "bbox" else found if lists and (found := parsed(cell)) else cell
        if name is None or not isinstance(cell, list) or any(isinstance(value, int | float) for value in cell):
            return None
        if is_grid(cell, self.size_of) or not self._is_one_each(cell, beside, name):
            return None
        self.uneven((one for one in lists.values() if len(one.value) != len(cell)), len(cell))
        found = {SINGULAR.get(key, key): value for key, value in record.items() if isinstance(value, list)}
        even = {key: value for key, value in {**found, name: cell}.items() if len(value) == len(cell)}
        return [
            _shared(record, place, len(cell))
            | {key: value[place] for key, value in even.items()}
            | {key: one.value for key, one in own.items()}
            for place, own in enumerate(each_of(beside, len(cell)))
        ]

    def _is_one_each(self, cell: list[Any], beside: Beside, name: str) -> bool:
        """Whether the parts of a geometry are masks of their own, by what they are or by a list beside them."""
        if name != "bbox" and is_polygons(cell):
            return are_apart(cell, beside)
        if lists_of(beside):
            return True
        stated = any(name in OF_A_CATEGORY or name in IDS for name in beside)
        files = bool(cell) and all(isinstance(one, bytes) or (isinstance(one, Mapping) and is_png(one)) for one in cell)
        return files or is_stack(cell, self.size_of) or not stated

    def _alone(self, cell: Any, prefix: str, beside: Beside) -> list[PlannedMask]:
        """The mask of a cell that is a geometry, or the masks of an image of labels."""
        said, odd = of_one(beside)
        self.uneven((one for one in odd if one.name not in (*BOXES, "area")), 1)
        if said.keys() - {"bbox", "area"}:
            return self._annotation({**said, "segmentation": cell}, prefix)
        return [self._mask(one, prefix) for one in self._geometries(cell)]

    def _annotation(self, cell: Mapping[str, Any], prefix: str) -> list[PlannedMask]:
        cell = self._with_one_category(cell)
        stated = [cell[name] for name in (*GEOMETRIES, *FILES) if cell.get(name) is not None]
        there = (cell[name] for name in (*GEOMETRIES, *FILES) if may_be_masks(name, cell.get(name)))
        geometry = next(there, next((one for one in stated if not is_empty(one)), next(iter(stated), None)))
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

    def _with_one_category(self, cell: Mapping[str, Any]) -> Mapping[str, Any]:
        """An annotation with the one entry of lists that say its category or id; of longer ones it is told."""
        about = {name: one for name, one in lists_of(beside_of(cell)).items() if name in OF_A_CATEGORY or name in IDS}
        if not about:
            return cell
        said, odd = of_one(about)
        self.uneven(odd, 1)
        names = {one.name for name, one in about.items() if name in said} | about.keys()
        return {**{name: value for name, value in cell.items() if name not in names}, **said}

    def _geometries_or_box(self, geometry: Any, cell: Mapping[str, Any]) -> Iterator[Geometry]:
        if geometry:
            yield from self._geometries(geometry)
            return
        box = next((cell[name] for name in BOXES if isinstance(cell.get(name), list)), None)
        stated = box_forms.stated(cell)
        form = stated if stated is not None else self.form_of() if box else box_forms.SIDES
        if wrong := box_forms.fault(form, cell):
            yield Geometry(UNREADABLE, detail=wrong)
            return
        if form == box_forms.UNCLEAR:
            self.tell(box_forms.TAKEN_AS_SIDES)
        text, detail = coco.geometry({"segmentation": geometry, "bbox": box_forms.as_sides(box, form)})
        read = f"; {box_forms.READ_AS_CORNERS}" if form == box_forms.CORNERS and stated is None else ""
        none = f"no mask: the annotation has {', '.join(map(str, cell))[:80]}"
        yield Geometry(text, detail=f"{detail}{read}" if detail else none)

    def _mask(self, one: Geometry, prefix: str) -> PlannedMask:
        number = 1 if one.value is None else one.value
        own_id = prefix if one.value is None else f"{prefix}#{one.value}"
        return PlannedMask(own_id, number, self.names.get(number, ""), one.text, one.detail)

    def _geometries(self, cell: Any) -> Iterator[Geometry]:
        """One mask, or one for each value of an image of labels."""
        if isinstance(cell, str) and (found := parsed(cell)) is not None:
            cell = found
        if isinstance(cell, Mapping) and is_png(cell):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, str):
            cell = image_in_text(cell) or cell
        if isinstance(cell, bytes):
            yield from of_image(cell, self.tell)
        elif isinstance(cell, Mapping) and "counts" in cell:
            counts = cell["counts"].decode("ascii", "replace") if isinstance(cell["counts"], bytes) else cell["counts"]
            yield Geometry(json.dumps({"size": cell.get("size"), "counts": counts}, separators=(",", ":")))
        elif isinstance(cell, list) and cell:
            yield from of_list(cell, self.size_of, self.tell)
        elif isinstance(cell, str) and self.files is not None:
            yield from self._of_file(cell, self.files)
        else:
            yield Geometry(UNREADABLE, detail=f"no mask: {brief_value(cell)} where a mask should be")

    def _of_file(self, name: str, files: MaskFiles) -> Iterator[Geometry]:
        data, path = files.read(name), files.path(name)
        if data is None and not name.lower().endswith(tuple(IMAGE_SUFFIXES)):
            detail = f"no mask: {brief_value(name)} is no path of a mask image that is there, and no JSON"
            yield Geometry(UNREADABLE, detail=detail)
            return
        if data is None:
            text = json.dumps({"file": path, "value": None})
            yield Geometry(text, detail=f"no file: {name}, which the row names, is not there")
            return
        found = png.masks_of_file(path, data)
        for what in found.odd:
            self.tell(what)
        for mask in found.masks:
            yield Geometry(mask.geometry, json.loads(mask.geometry)["value"], mask.detail)


def _shared(record: Mapping[str, Any], place: int, masks: int) -> dict[str, Any]:
    """What a record says once of all its masks; of an id of its own each has a part."""
    said = {name: record[name] for name in SAID_ONCE if isinstance(record.get(name), int | float | str)}
    name = next((name for name in IDS if isinstance(record.get(name), int | float | str)), None)
    if name is None or parsed(record[name]) is not None or any(_is_list(record, one) for one in (*IDS, "ids")):
        return said
    own = as_id(record[name])
    return {**said, IDS[0]: own if masks == 1 else f"{own}#{place}"}


def _is_list(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get(name), list) or isinstance(parsed(record.get(name)), list)
