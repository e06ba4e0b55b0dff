"""Boxes without masks: whether their four numbers are x, y, width and height, as COCO has them, or two corners. Pure.

Names do not tell: torchvision's `boxes` are corners, and many a `bbox` is. The numbers do, of a file's first rows
together. An `area` beside a box is that of one form; a second corner left of or above the first is none; boxes that
would leave their images by their sides, and lie in them by their corners, have corners. detectron2 says it in
`bbox_mode`. Where nothing tells, a `bbox` is COCO's, and any other name is told to be taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from pipeline.sources.cell_fields import BOXES, MAX_DEPTH, parsed
from pipeline.sources.fields import as_float, as_int, as_list, brief_value
from pipeline.sources.grids import SizeOf

CORNERS, SIDES, SHARES, UNCLEAR = "corners", "sides", "shares", "unclear"
FormOf = Callable[[], str]
"""Which form the boxes of a file have."""
READ_AS_CORNERS = "its four numbers are two corners, as those of the file show"
TAKEN_AS_SIDES = "boxes taken as x, y, width, height: two corners would fit, too"
IN_SHARES = "boxes: shares of the image's sides, in an order that nothing says: store x, y, width, height in pixels"
OF_COCO = ("bbox", "bboxes")
LOOKED_AT = 256  # rows
OUTSIDE_PX, OUTSIDE_SHARE = 2.0, 0.05  # of its image's side, beyond which no box is drawn by its sides
SAME_AREA = 0.01
_MODES: dict[int | None, str] = {0: CORNERS, 1: SIDES}


class _Box(NamedTuple):
    """numbers: four; area: what its annotation states, None for nothing; named: whether COCO's name says what it is."""

    numbers: tuple[float, ...]
    area: float | None
    named: bool


def unstated() -> str:
    """The form where no file can be asked: COCO's."""
    return SIDES


def form_of(rows: Iterable[tuple[Any, SizeOf]]) -> str:
    """The form of the boxes in records, with the (H, W) of their images."""
    corners = sides = number = 0
    all_shares, all_named = True, True
    for record, size_of in islice(rows, LOOKED_AT):
        for box in _boxes_in(record):
            number += 1
            all_shares &= max(box.numbers) <= 1 and min(box.numbers) >= 0
            all_named &= box.named
            form = _form(box, size_of)
            corners, sides = corners + (form == CORNERS), sides + (form == SIDES)
    if number and all_shares:
        return SHARES
    if corners or sides:
        return CORNERS if corners > sides else SIDES
    return SIDES if all_named else UNCLEAR


def stated(annotation: Mapping[str, Any]) -> str | None:
    """The form that the `bbox_mode` of an annotation says, "" for one that is not read; None where it has none."""
    mode = annotation.get("bbox_mode")
    return None if mode is None else _MODES.get(as_int(mode), "")


def as_sides(box: Any, form: str) -> Any:
    """x, y, width and height of a box; what is no box stays as it is."""
    numbers = _numbers(box)
    if numbers is None or form != CORNERS:
        return box
    left, top, right, bottom = numbers
    return [left, top, right - left, bottom - top]


def fault(form: str, annotation: Mapping[str, Any]) -> str:
    """Why boxes of a form are not read, "" for those that are."""
    if not form:
        return f"boxes: bbox_mode {brief_value(annotation.get('bbox_mode'))}, which is not read; 0 and 1 are"
    return IN_SHARES if form == SHARES else ""


def _form(box: _Box, size_of: SizeOf) -> str | None:
    first, second, third, fourth = box.numbers
    if third < first or fourth < second:
        return SIDES
    by_sides, by_corners = third * fourth, (third - first) * (fourth - second)
    if box.area and (_is_same(box.area, by_sides) != _is_same(box.area, by_corners)):
        return SIDES if _is_same(box.area, by_sides) else CORNERS
    size = size_of()
    if size is None:
        return None
    height, width = size
    most_x, most_y = (side * (1 + OUTSIDE_SHARE) + OUTSIDE_PX for side in (width, height))
    leaves = first + third > most_x or second + fourth > most_y
    return CORNERS if leaves and third <= width + OUTSIDE_PX and fourth <= height + OUTSIDE_PX else None


def _is_same(area: float, other: float) -> bool:
    return abs(area - other) <= SAME_AREA * max(area, other)


def _boxes_in(record: Any, depth: int = 0) -> Iterator[_Box]:
    """The boxes of a row, an annotation, or a list or struct of them."""
    record = found if (found := parsed(record)) is not None else record
    if depth > MAX_DEPTH:
        return
    if isinstance(record, list):
        for entry in record:
            yield from _boxes_in(entry, depth + 1)
    elif isinstance(record, Mapping):
        for name in BOXES:
            yield from _boxes_of(record.get(name), record.get("area"), name in OF_COCO)
        for value in record.values():
            yield from _boxes_in(value, depth + 1)


def _boxes_of(cell: Any, area: Any, named: bool) -> Iterator[_Box]:
    cell = found if (found := parsed(cell)) is not None else cell
    if (numbers := _numbers(cell)) is not None:
        yield _Box(numbers, as_float(as_list(area)[0] if as_list(area) else area), named)
        return
    cells, areas = as_list(cell), as_list(area)
    for place, one in enumerate(cells):
        if (numbers := _numbers(one)) is not None:
            yield _Box(numbers, as_float(areas[place]) if len(areas) == len(cells) else None, named)


def _numbers(box: Any) -> tuple[float, ...] | None:
    found = [as_float(value) for value in as_list(box)]
    known = tuple(value for value in found if value is not None)
    return known if len(known) == len(found) == 4 else None
