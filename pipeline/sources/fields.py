"""Fields as files have them -> what the plan takes: one place that knows how far each type goes.

Ids and numbers come as integers, as floats (pandas makes 3.0 of 3 beside a gap), as text, as NaN or not at all. What
makes no sense is None, never an exception: one entry must not stop a plan.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

INT64 = 2**63
INT32 = 2**31
MAX_DIGITS = 40
MAX_EXTRA_CHARACTERS = 1 << 16
MAX_LABEL_CHARACTERS = 1000


def as_int(value: Any) -> int | None:
    """A whole number that int64 holds, however it is written: 3, 3.0, "3", "3.0"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = _number(value)
    if isinstance(value, float | Decimal):
        value = int(value) if _is_whole(value) else None
    return value if isinstance(value, int) and -INT64 <= value < INT64 else None


def as_float(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    if isinstance(value, str) and "_" in value:  # of Python alone: to anybody else, 6_20 is no 620
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_id(value: Any) -> str:
    """An id as text; whole numbers are the same written as integer or float."""
    return str(int(value)) if isinstance(value, float | Decimal) and _is_whole(value) else str(value)


def as_side(value: Any) -> int | None:
    """A height or width in pixels that int32 holds, or None."""
    number = as_int(value)
    return number if number is not None and 0 < number < INT32 else None


def as_size(height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width), or None where one of them is none."""
    sides = as_side(height), as_side(width)
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def as_name(value: Any) -> str:
    """Text of a name; "" for what is none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else ""


def as_label(value: Any) -> str:
    """The name of a class, which stands in every mask's row: cut where it is no name but a document."""
    return as_name(value)[:MAX_LABEL_CHARACTERS]


def as_list(value: Any) -> list[Any]:
    """The list, or an empty one for what is none."""
    return value if isinstance(value, list) else []


def as_flag(value: Any) -> bool:
    """1, 1.0, "1", true -> True."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true") or as_int(value) == 1


def extra_of(entry: Mapping[str, Any], used: Collection[str]) -> str:
    """JSON of an entry's fields but for those that are `used`; "" where there is none, or too much of it."""
    left = {str(name): value for name, value in entry.items() if name not in used}
    if not left:
        return ""
    try:
        text = json.dumps(left, separators=(",", ":"), default=str)
    except (ValueError, RecursionError):
        return ""
    return text if len(text) <= MAX_EXTRA_CHARACTERS else ""


def brief_value(value: Any) -> str:
    """A value as a message shows it."""
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_whole(value: float | Decimal) -> bool:
    try:
        return math.isfinite(value) and -2 * INT64 < value < 2 * INT64 and value == int(value)
    except (ValueError, InvalidOperation):  # a signalling NaN
        return False


def _number(text: str) -> Decimal | None:
    text = text.strip()
    if not text.isascii() or "_" in text or not 0 < len(text) <= MAX_DIGITS:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
