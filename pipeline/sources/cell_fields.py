"""The fields of a row, a struct or an annotation: which of them holds the masks, and what those beside it say of each.

Pure, but for `LeftFields`, which tells the coverage what of them is not used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_int, as_label
from pipeline.sources.types import IMAGE_SUFFIXES
from pipeline.words import plural

LISTS = ("annotations", "objects", "instances", "masks", "segments")
GEOMETRIES = ("segmentation", "mask_rle", "rle", "mask", "segmentation_mask", "polygon", "polygons", "coarse_rle")
FILES = ("mask_file_name", "segmentation_file_name", "mask_path", "mask_file", "label_file_name", "segmentation_path")
BOXES = ("bbox", "box", "bboxes", "boxes")
MASKS = (*LISTS, *GEOMETRIES, *FILES)
OF_AN_IMAGE = ("counts", "bytes", "path")  # fields of a struct that is a mask by itself
CAPTION = "annotation"  # of Parquet: masks, or a text
CATEGORY_IDS = ("category_id", "label_id", "class_id", "category", "label", "class")
CATEGORIES = ("category_name", "category", "label", "class", "class_name")
IDS = ("source_mask_id", "id", "mask_id", "annotation_id")
USED = frozenset((*GEOMETRIES, *FILES, *BOXES, *CATEGORY_IDS, *CATEGORIES, *IDS, "area", "iscrowd", "image_id"))
OF_A_CATEGORY = frozenset((*CATEGORY_IDS, *CATEGORIES))
SHARED = OF_A_CATEGORY | {"iscrowd"}
"""What may be said once of several masks."""
SAID_ONCE = ("iscrowd", "score", "bbox_mode")  # in a struct of lists
SINGULAR = {
    "categories": "category",
    "labels": "label",
    "classes": "class",
    "ids": "id",
    "bboxes": "bbox",
    "boxes": "bbox",
    "box": "bbox",
    **{f"{name}s": name for name in ("category_id", "label_id", "class_id", "category_name", "class_name")},
}
OF_A_MASK = (
    *dict.fromkeys((*IDS, *CATEGORY_IDS, *CATEGORIES, *SINGULAR, *BOXES)),
    "iscrowd",
    "area",
    "score",
    "scores",
)
"""Fields of which a list beside a list of masks has one value a mask."""
MAX_DEPTH = 4
MIN_NUMBERS = 6  # of a ring
BOX_NUMBERS = 4


class Field(NamedTuple):
    """A field as its file names it."""

    name: str
    value: Any


Beside = Mapping[str, Field]
"""Name in the singular (`label` of `labels`) -> a field that says something of the masks beside it."""
NOTHING: Beside = {}


class LeftFields:
    """Tells what is left of the rows of one file: each field once, or the row where it is the row's own matter."""

    def __init__(self, coverage: Coverage, file: str) -> None:
        self._coverage, self._file = coverage, file
        self._unused: dict[tuple[str, str], tuple[int, str]] = {}

    def unused(self, name: str, reason: str, where: str) -> None:
        """The masks of a row are read from another field, as the reason says, and this one has masks or boxes, too."""
        count, first = self._unused.get((name, reason), (0, where))
        self._unused[name, reason] = count + 1, first

    def uneven(self, name: str, values: int, masks: int, where: str) -> None:
        """A list beside masks has another length than they have: which value is whose cannot be told."""
        detail = f"{plural(values, 'value')}, {plural(masks, 'mask')}"
        self._coverage.leave(f"{where}: {name}", "another number of values than of masks", detail, kind="field")

    def tell(self) -> None:
        """Once all rows are read."""
        for (name, reason), (count, first) in self._unused.items():
            detail = f"{plural(count, 'time')}, first in {first}"
            self._coverage.leave(f"{self._file}, field {name}", reason, detail, kind="field")


def parsed(text: Any) -> Any:
    """JSON of a list or object, else None."""
    if not isinstance(text, str | bytes) or text[:1] not in ("[", "{", b"[", b"{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def chosen(record: Mapping[str, Any], names: Sequence[str]) -> tuple[str | None, list[str]]:
    """(the field that masks are read from, the others that have some, too); a mask is more than boxes alone, and these
    are more than words.
    """
    there = [name for name in names if may_be_masks(name, record.get(name))]
    if len(there) < 2:
        return next(iter(there), None), []
    best = min(there, key=lambda name: (has_words_alone(record[name]), has_boxes_alone(record[name])))
    return best, [name for name in there if name != best]


def apart_from(best: str | None, others: Sequence[str]) -> list[str]:
    """The fields that have masks of their own, not those of the field `best` in another form."""
    return [name for name in others if best not in GEOMETRIES or name not in (*GEOMETRIES, *FILES)]


def may_be_masks(name: str, value: Any) -> bool:
    """Whether the value of a field of this name can be masks: a count, a word or a caption is none."""
    if is_empty(value):
        return False
    if name in GEOMETRIES:
        return isinstance(value, list | Mapping | bytes | str)
    return not (name in LISTS or name == CAPTION) or _has_masks(value)


def _has_masks(cell: Any) -> bool:
    """Whether a cell is an image, or has an entry that is more than a number or a word."""
    cell = found if (found := parsed(cell)) is not None else cell
    if isinstance(cell, bytes):
        return True
    inside = cell.values() if isinstance(cell, Mapping) else cell if isinstance(cell, list) else ()
    return any(isinstance(one, Mapping | list | bytes) or parsed(one) is not None or _is_image(one) for one in inside)


def _is_image(name: Any) -> bool:
    return isinstance(name, str) and name.lower().endswith(tuple(IMAGE_SUFFIXES))


def is_empty(cell: Any, depth: int = 0) -> bool:
    """Whether a cell says nothing: None, no text, no entry, or entries that say nothing."""
    if isinstance(cell, list) and depth < MAX_DEPTH:
        return all(is_empty(entry, depth + 1) for entry in cell)
    return cell is None or (isinstance(cell, str | bytes | Mapping | list) and not cell)


def has_boxes_alone(cell: Any, depth: int = 0) -> bool:
    """Whether annotations have boxes, and nothing that is more of a mask."""
    cell = found if (found := parsed(cell)) is not None else cell
    if isinstance(cell, list):
        return depth < MAX_DEPTH and bool(cell) and all(has_boxes_alone(entry, depth + 1) for entry in cell)
    if not isinstance(cell, Mapping):
        return False
    inside = [cell[name] for name in LISTS if may_be_masks(name, cell.get(name))]
    if inside:
        return depth < MAX_DEPTH and all(has_boxes_alone(entry, depth + 1) for entry in inside)
    return any(name in cell for name in BOXES) and not any(
        may_be_masks(name, cell.get(name)) for name in (*GEOMETRIES, *FILES)
    )


def has_words_alone(cell: Any, depth: int = 0) -> bool:
    """Whether annotations have neither masks nor boxes, as ADE20K's `objects`, which stand beside `instances`."""
    cell = found if (found := parsed(cell)) is not None else cell
    if isinstance(cell, list):
        return depth < MAX_DEPTH and bool(cell) and all(has_words_alone(entry, depth + 1) for entry in cell)
    return isinstance(cell, Mapping) and cell.keys().isdisjoint((*MASKS, *BOXES, *OF_AN_IMAGE))


def beside_of(record: Mapping[str, Any]) -> dict[str, Field]:
    """What the fields of a record say of its masks. A table of categories (`names_in`) says nothing of one mask."""
    found: dict[str, Field] = {}
    for name in OF_A_MASK:
        value = record.get(name)
        value = entries if isinstance(entries := parsed(value), list) else value
        singular = SINGULAR.get(name, name)
        known = found.get(singular)
        if is_empty(value) or _is_table(value) or (known and (is_a_list(singular, known.value) or not _is_list(value))):
            continue
        found[singular] = Field(name, value)
    return found


def merged(outer: Beside, inner: Beside) -> Beside:
    """What is nearer to the masks counts; a category is not made of what both say of it."""
    if not outer:
        return inner
    has_own = any(name in OF_A_CATEGORY for name in inner)
    return {**{n: f for n, f in outer.items() if not (has_own and n in OF_A_CATEGORY)}, **inner}


def of_all(beside: Beside) -> dict[str, Field]:
    """What is said of masks in a cell of their own: a value each, or one category for all; one id is the image's."""
    return {name: f for name, f in beside.items() if name in SHARED or is_a_list(name, f.value)}


def is_a_list(name: str, value: Any) -> bool:
    """Whether the value of a field is one a mask; four numbers are one box."""
    return _is_list(value) and (name != "bbox" or any(isinstance(box, list) for box in value))


def are_apart(rings: Sequence[Any], beside: Beside) -> bool:
    """Whether the rings beside these fields are a mask each, not the parts of one.

    They are where lists say a category or id of each. One that has a category or id is one mask, whatever lists it has;
    other lists count where they have a value for each of several rings.
    """
    lists = lists_of(beside)
    stated = [name for name in beside if name in OF_A_CATEGORY or name in IDS]
    if any(name not in lists for name in stated):
        return False
    if stated:
        return len(rings) == 1 or any(len(lists[name].value) > 1 for name in stated)
    even = [name for name, one in lists.items() if len(one.value) == len(rings)]
    if len(rings) == 1:
        return "iscrowd" in even
    are_rings = all(len(ring) >= MIN_NUMBERS for ring in rings)
    return are_rings and any(name != "bbox" or _are_boxes(lists[name].value) for name in even)


def has_none(record: Mapping[str, Any]) -> bool:
    """Whether a record is the columns of no object: its boxes are an empty list, and nothing has a mask or class."""
    about = {*MASKS, *IDS, *OF_A_CATEGORY, *(name for name, one in SINGULAR.items() if one != "bbox"), *BOXES}
    values = {name: found if (found := parsed(record.get(name))) is not None else record.get(name) for name in about}
    return any(values[name] == [] for name in BOXES) and all(is_empty(value) for value in values.values())


def _are_boxes(values: Sequence[Any]) -> bool:
    """Whether these are boxes, not two corners of one."""
    return all(box is None or (isinstance(box, list) and len(box) == BOX_NUMBERS) for box in values)


def lists_of(beside: Beside) -> dict[str, Field]:
    """The fields that have a value a mask."""
    return {name: field for name, field in beside.items() if is_a_list(name, field.value)}


def each_of(beside: Beside, masks: int) -> Iterator[dict[str, Field]]:
    """What is said of each of so many masks: by lists of that length, and of all of them by one category or flag."""
    even = {name: field for name, field in lists_of(beside).items() if len(field.value) == masks}
    has_own = any(name in OF_A_CATEGORY for name in even)
    out = OF_A_CATEGORY if has_own else frozenset[str]()
    shared = {name: f for name, f in beside.items() if name in SHARED - out and not _is_list(f.value)}
    for place in range(masks):
        own = {name: Field(field.name, field.value[place]) for name, field in even.items()}
        yield shared | {name: field for name, field in own.items() if field.value is not None}


def of_one(beside: Beside) -> tuple[dict[str, Any], list[Field]]:
    """(what is said of a mask that is alone, lists of which that cannot be told)."""
    lists = lists_of(beside)
    odd = [field for field in lists.values() if len(field.value) != 1]
    values = {name: field.value[0] if name in lists else field.value for name, field in beside.items()}
    return {name: value for name, value in values.items() if beside[name] not in odd}, odd


def category_of(cell: Mapping[str, Any], names: Mapping[int, str]) -> tuple[int | None, str | None]:
    """Category id and name that an annotation states, None where it does not."""
    numbers = (as_int(cell[name]) for name in CATEGORY_IDS if cell.get(name) is not None)
    number = next((number for number in numbers if number is not None), None)
    texts = (cell[name] for name in CATEGORIES if isinstance(cell.get(name), str))
    category = next((text for text in texts if as_int(text) is None), None)
    if number is None and category is not None:
        number = next((known for known, name in names.items() if name == category), None)
    return number, category


def names_in(record: Mapping[str, Any]) -> dict[int, str]:
    """The names of a table of categories, [{id, name}, ...], that stands beside annotations as in COCO."""
    table = record["categories"] if _is_table(record.get("categories")) else []
    numbers = ((as_int(entry.get("id")), as_label(entry.get("name"))) for entry in table)
    return {number: name for number, name in numbers if number is not None and name}


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
