"""A COCO `segmentation` in all the forms that tools write -> Rle.

Beside COCO's three (polygons, run lengths, compressed RLE): one flat polygon; polygons as lists of points, or one list
too deep; RLE as JSON text, its counts as the text of a Python `bytes` or as floats; a list of RLEs, which are one mask.
"""

from __future__ import annotations

import ast
import json
from typing import Any, NamedTuple

from pycocotools import mask as coco_mask

from pipeline.decoding.python_parser import ONE_AT_A_TIME
from pipeline.errors import MaskError
from pipeline.masks import binary
from pipeline.masks.binary import Rle

MAX_DEPTH = 4
POLYGON_NUMBERS = 6


class Drawn(NamedTuple):
    """A decoded mask, and what of its segmentation was left out, "" for nothing."""

    rle: Rle
    detail: str = ""


def draw(segmentation: Any, size_hw: tuple[int, int]) -> Drawn:
    """Polygons are drawn in `size_hw`; a run-length encoding says its own size. Raises MaskError."""
    if isinstance(segmentation, str):
        segmentation = _parsed(segmentation)
    if isinstance(segmentation, dict):
        return Drawn(_from_rle(segmentation))
    if not isinstance(segmentation, list):
        raise MaskError("mask_unreadable", f"no polygons, RLE or file, but {_name(segmentation)}")
    if segmentation and all(isinstance(part, dict) for part in segmentation):
        return Drawn(_merged([_from_rle(part) for part in segmentation]))
    polygons = rings(segmentation)
    usable = [ring for ring in polygons if len(ring) >= POLYGON_NUMBERS]
    wrong = [
        f"polygon {number} has {_points(ring)}"
        for number, ring in enumerate(polygons, 1)
        if len(ring) < POLYGON_NUMBERS or len(ring) % 2
    ]
    if not usable or any(len(ring) % 2 for ring in usable):
        raise MaskError("mask_unreadable", "; ".join(wrong[:3]) or "an empty list: no polygon")
    if _are_shares(usable):
        raise MaskError("mask_unreadable", "polygons within one pixel: shares of the image's sides? Store pixels")
    return Drawn(binary.from_polygons(usable, size_hw), "; ".join(wrong[:3]))


def rings(polygons: list[Any], depth: int = 0) -> list[list[float]]:
    """Polygons in any nesting -> [x1, y1, x2, y2, ...] each. Raises MaskError for what is no number."""
    if depth > MAX_DEPTH:
        raise MaskError("mask_unreadable", "polygons are nested too deep")
    if polygons and all(_is_number(value) for value in polygons):
        return [polygons]
    if not all(isinstance(part, list) for part in polygons):
        others = (part for part in polygons if not isinstance(part, list) and not _is_number(part))
        odd = next(others, "a number beside a list")
        raise MaskError("mask_unreadable", f"{str(odd)[:40]!r} where a polygon should be")
    if _is_points(polygons):
        return [[value for point in polygons for value in point]]
    return [
        ring
        for part in polygons
        for ring in ([part] if all(_is_number(value) for value in part) else rings(part, depth + 1))
    ]


def _is_points(polygons: list[Any]) -> bool:
    """Whether it is one list of (x, y)."""
    return bool(polygons) and all(len(part) == 2 and all(_is_number(value) for value in part) for part in polygons)


def _are_shares(polygons: list[list[float]]) -> bool:
    """Whether all coordinates lie between 0 and 1, and not just on them."""
    numbers = [value for ring in polygons for value in ring]
    return 0 <= min(numbers) <= max(numbers) <= 1 and not all(value in (0, 1) for value in numbers)


def _points(ring: list[float]) -> str:
    if len(ring) % 2:
        return f"{len(ring)} numbers, an odd number"
    return f"{len(ring) // 2} point{'' if len(ring) == 2 else 's'}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise MaskError("mask_unreadable", f"a segmentation that is text, and no JSON: {text[:40]!r}") from None


def _from_rle(content: dict[str, Any]) -> Rle:
    try:
        height, width = (int(side) for side in content["size"])
        counts = content["counts"]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MaskError(
            "mask_unreadable", f"no RLE of size and counts, but {', '.join(content) or 'nothing'}"[:200]
        ) from None
    if max(height, width) >= 2**31:
        raise MaskError("mask_unreadable", f"RLE of size {height}x{width}")
    if isinstance(counts, list):
        return binary.from_run_lengths([_run(value) for value in counts], (height, width))
    if not isinstance(counts, str):
        raise MaskError("mask_unreadable", f"RLE counts are {_name(counts)}")
    rle: Rle = {"size": [height, width], "counts": _bytes_text(counts)}
    binary.check(rle)
    return rle


def _run(value: Any) -> Any:
    """A float that is a whole number as an integer: pandas and some JSON writers make floats of all numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bytes_text(counts: str) -> str:
    """`b'...'` as Python prints bytes -> what they hold."""
    if counts[:2] not in ("b'", 'b"'):
        return counts
    try:
        with ONE_AT_A_TIME:
            return bytes(ast.literal_eval(counts)).decode("ascii", "replace")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return counts


def _merged(parts: list[Rle]) -> Rle:
    if len({tuple(part["size"]) for part in parts}) != 1:
        raise MaskError("mask_unreadable", "a list of RLEs of different sizes")
    merged = coco_mask.merge([{"size": part["size"], "counts": part["counts"].encode()} for part in parts])
    return {"size": parts[0]["size"], "counts": merged["counts"].decode("ascii")}
