"""Boxes without masks: whether their four numbers are x, y, width and height, as COCO has them, or two corners. Pure.

Names do not tell: torchvision's `boxes` are corners, and many a `bbox` is. The numbers do, of a file's first rows
together. An `area` beside a box is that of one form; a second corner left of or above the first is none; boxes that
would leave their images by their sides, and lie in them by their corners, have corners. detectron2 says it in
`bbox_mode`. Where nothing tells, a `bbox` is COCO's, and any other name is told to be taken for it; where other files
of the source show corners, either is named as not read. `boxes=corners` or `boxes=sides`, an option of the sources,
says it for all files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from pipeline.errors import RefusedError
from pipeline.sources.cell_fields import BOXES, MAX_DEPTH, parsed
from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_float, as_int, as_list, brief_value
from pipeline.sources.grids import SizeOf

CORNERS, SIDES, SHARES, UNCLEAR, BY_NAME = "corners", "sides", "shares", "unclear", "sides by the name of the field"
OPTION = "boxes"
Rows = Callable[[], Iterable[tuple[Any, SizeOf]]]
"""The records of a file, with the (H, W) of their images."""
FormOf = Callable[[], str]
"""Which form the boxes of a file have."""
READ_AS_CORNERS = "its four numbers are read as two corners"
TAKEN_AS_SIDES = "boxes taken as x, y, width, height: two corners would fit, too"
IN_SHARES = "boxes: shares of the image's sides, in an order that nothing says: store x, y, width, height in pixels"
ELSEWHERE = (
    "boxes taken as x, y, width, height, where other files have two corners: boxes=corners or boxes=sides, an option "
    "of --source, says which"
)
MIXED = "boxes read as two corners, where other files show x, y, width, height"
OF_COCO = ("bbox", "bboxes")
LOOKED_AT = 256  # rows
OUTSIDE_PX, OUTSIDE_SHARE = 2.0, 0.05  # of its image's side, beyond which no box is drawn by its sides
SAME_AREA = 0.01
_MODES: dict[int | str | None, str] = {
    0: CORNERS,
    "XYXY_ABS": CORNERS,
    "XYXY": CORNERS,
    1: SIDES,
    "XYWH_ABS": SIDES,
    "XYWH": SIDES,
}


class _Box(NamedTuple):
    """numbers: four; area: what its annotation states, None for nothing; named: whether COCO's name says what it is."""

    numbers: tuple[float, ...]
    area: float | None
    named: bool


def unstated() -> str:
    """The form where no file can be asked: COCO's."""
    return SIDES


def parse(options: Mapping[str, str]) -> str | None:
    """The form that options say, None where they do not. Raises RefusedError for one that is none."""
    form = options.get(OPTION)
    if form not in (None, CORNERS, SIDES):
        raise RefusedError(f"{OPTION} is {CORNERS} or {SIDES}, not {form}")
    return form


def parse_alone(options: Mapping[str, str]) -> None:
    """Of a source without other options. Raises RefusedError."""
    if not options.keys() <= {OPTION}:
        raise RefusedError(f"the source takes {OPTION}={CORNERS} and {OPTION}={SIDES}, not {dict(options)}")
    parse(options)


def of_file(rows: Rows, path: str, options: Mapping[str, str], coverage: Coverage) -> FormOf:
    """The form of a file's boxes, once it is asked for: what options say, or its rows, which the coverage is told."""

    @cache
    def find() -> str:
        if (form := parse(options)) is None:
            form = form_of(rows())
            coverage.boxes(path, form)
        return form

    return find


def compare(coverage: Coverage) -> None:
    """Once all files are read: name those of which nothing told the form of the boxes, where others have corners."""
    found = coverage.forms
    corners = sorted(found.get(CORNERS, ()))
    if corners:
        for path in (*found.get(BY_NAME, ()), *found.get(UNCLEAR, ())):
            coverage.leave(f"{path}, boxes", ELSEWHERE, f"two corners in {corners[0]}", kind="field")
    if found.get(SIDES):
        for path in corners:
            coverage.remark(path, MIXED)


def form_of(rows: Iterable[tuple[Any, SizeOf]]) -> str:
    """The form of the boxes in records, with the (H, W) of their images."""
    boxes = [(box, size_of) for record, size_of in islice(rows, LOOKED_AT) for box in _boxes_in(record)]
    numbers = [value for box, _ in boxes for value in box.numbers]
    if numbers and 0 <= min(numbers) <= max(numbers) <= 1 and any(value not in (0, 1) for value in numbers):
        return SHARES
    told = [_form(box, size_of) for box, size_of in boxes]
    areas = [_by_area(box) for box, _ in boxes if box.area and not _is_upside_down(box)]
    of_masks = areas.count(None) > areas.count(CORNERS)  # areas of what is in the boxes: some are any number
    corners = sum(form == CORNERS for form in told) + (0 if of_masks else areas.count(CORNERS))
    sides = sum(form == SIDES for form in told) + areas.count(SIDES)
    if corners or sides:
        return CORNERS if corners > sides else SIDES
    return BY_NAME if all(box.named for box, _ in boxes) else UNCLEAR


def stated(annotation: Mapping[str, Any]) -> str | None:
    """The form that the `bbox_mode` of an annotation says, "" for one that is not read; None where it has none."""
    mode = annotation.get("bbox_mode")
    if isinstance(mode, str) and as_int(mode) is None:
        return _MODES.get(mode.upper().rpartition(".")[2], "")
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
    """What its numbers tell, in its image; not its area."""
    first, second, third, fourth = box.numbers
    if _is_upside_down(box):
        return SIDES
    if box.area and _by_area(box):
        return None
    size = size_of()
    if size is None:
        return None
    height, width = size
    most_x, most_y = (side * (1 + OUTSIDE_SHARE) + OUTSIDE_PX for side in (width, height))
    leaves = first + third > most_x or second + fourth > most_y
    return CORNERS if leaves and third <= width + OUTSIDE_PX and fourth <= height + OUTSIDE_PX else None


def _is_upside_down(box: _Box) -> bool:
    """Whether it has no second corner right of and below the first."""
    first, second, third, fourth = box.numbers
    return third < first or fourth < second


def _by_area(box: _Box) -> str | None:
    """The one form that a box has the stated area by; None where that is none, or both."""
    first, second, third, fourth = box.numbers
    area = box.area or 0.0
    is_of_sides, is_of_corners = (
        _is_same(area, other) for other in (third * fourth, (third - first) * (fourth - second))
    )
    return None if is_of_sides == is_of_corners else SIDES if is_of_sides else CORNERS


def _is_same(area: float, other: float) -> bool:
    return abs(area - other) <= SAME_AREA * max(area, other)


def _boxes_in(record: Any, depth: int = 0) -> Iterator[_Box]:
    """The boxes of a row, an annotation, or a list or struct of them."""
    record = found if (found := parsed(record)) is not None else record
    if depth > MAX_DEPTH:
        return
    if isinstance(record, list):
        for entry in [] if record and isinstance(record[0], int | float) else record:  # of pixels there are many
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
