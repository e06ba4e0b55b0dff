"""Shapes as annotation tools draw them -> geometry of a planned mask (`pipeline/decoding/coarse.py`). Pure.

Coordinates are in pixels, x to the right and y down. What cannot be drawn is UNREADABLE, with what is wrong in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import MaskError
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.sources.fields import as_float, as_list, brief_value

UNREADABLE = "null"
BOX = "boxes: no segmentation; the box is a prompt alone, and its rectangle stands in for the coarse mask"
"""What is odd about a mask of which nothing but a box is known."""
MAX_CORNERS = 1024
FARTHEST_PX = 1e9
SAGITTA_PX = 0.05
"""How far the outline of a disc may be from the polygon that stands for it."""

MAX_CORNER_PX = 1 << 24
MAX_CROP_PIXELS = 1 << 28

Ring = list[float]


class Drawn(NamedTuple):
    """Geometry as text, and what is odd about it."""

    text: str
    detail: str = ""


def polygons(rings: Iterable[Ring]) -> Drawn:
    """The union of rings [x1, y1, x2, y2, ...]."""
    return Drawn(json.dumps(list(rings), separators=(",", ":")))


def nothing(detail: str) -> Drawn:
    """A shape that fails when it is loaded, and is counted."""
    return Drawn(UNREADABLE, detail)


def ring_of(points: Any) -> Ring | str:
    """[[x, y], ...] -> [x1, y1, ...]; what is wrong with it, in words, where it is none."""
    ring: Ring = []
    for number, point in enumerate(as_list(points), 1):
        x, y = [*(as_float(value) for value in as_list(point)[:2]), None, None][:2]
        if x is None or y is None:
            return f"points: point {number} is {brief_value(point)}, no pair of numbers"
        ring += [x, y]
    if len(ring) < 6:
        return f"points: {len(ring) // 2} of the 3 that a polygon has"
    return ring


def rectangle(x1: float, y1: float, x2: float, y2: float, degrees: float = 0.0) -> Ring:
    """The corners of a box, turned clockwise about its centre."""
    ring = [x1, y1, x2, y1, x2, y2, x1, y2]
    return turned(ring, ((x1 + x2) / 2, (y1 + y2) / 2), degrees) if degrees else ring


def turned(ring: Ring, about: tuple[float, float], degrees: float) -> Ring:
    """A ring turned clockwise (as seen with y down)."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    with np.errstate(all="ignore"):  # what is not finite then fails when it is drawn
        points = (np.asarray(ring, np.float64).reshape(-1, 2) - about) @ turn + about
    return [float(value) for value in points.ravel()]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> Ring:
    """A disc or ellipse as a polygon that nowhere leaves its outline visibly."""
    largest = min(max(abs(radius_x), abs(radius_y), 1.0), FARTHEST_PX)
    corners = min(MAX_CORNERS, max(16, math.ceil(math.pi * math.sqrt(largest / (2 * SAGITTA_PX)))))
    angles = np.arange(corners) * (2 * math.pi / corners)
    with np.errstate(all="ignore"):
        ring = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1).ravel()
    found = [float(value) for value in ring]
    return turned(found, (x, y), degrees) if degrees else found


def filled(outside: Ring, holes: Sequence[Ring], size_hw: tuple[int, int]) -> Rle:
    """Pixels in and on a ring of whole pixels, without those in and on its holes. Raises MaskError."""
    rings = [np.rint(np.asarray(ring, np.float64)).reshape(-1, 2) for ring in (outside, *holes)]
    if any(np.abs(ring).max() > MAX_CORNER_PX for ring in rings):
        raise MaskError("mask_unreadable", "a polygon far larger than its image")
    height, width = size_hw
    corners = np.concatenate(rings)  # of all: OpenCV draws a line that leaves the canvas a little differently
    low = np.maximum(corners.min(axis=0), 0)
    high = np.minimum(corners.max(axis=0), (width - 1, height - 1))
    sides = (high - low + 1).astype(np.int64)
    if (sides <= 0).any() or int(sides.prod()) > MAX_CROP_PIXELS:
        raise MaskError("mask_empty" if (sides <= 0).any() else "mask_unreadable", "a polygon outside of its image")
    crop = np.zeros((int(sides[1]), int(sides[0])), np.uint8)
    for number, ring in enumerate(rings):
        cv2.fillPoly(crop, [(ring - low).astype(np.int32)], (number == 0,))
    return placed(crop, int(low[0]), int(low[1]), size_hw)


def placed(crop: npt.NDArray[Any], left: int, top: int, size_hw: tuple[int, int]) -> Rle:
    """(h, w) bool, a part of an image at (left, top) -> Rle of the whole image; what lies outside is cut off."""
    height, width = size_hw
    columns, rows = np.nonzero(np.asarray(crop, bool).T)
    columns, rows = columns.astype(np.int64) + left, rows.astype(np.int64) + top
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return binary.from_places((columns * height + rows)[inside], size_hw)


def of_rle(rle: Rle) -> Drawn:
    """A run-length encoding."""
    return Drawn(json.dumps(rle, separators=(",", ":")))


def numbers(values: Iterable[Any]) -> list[float] | None:
    """All of them as finite numbers, None where one is none."""
    found = [as_float(value) for value in values]
    return None if any(value is None for value in found) else [value for value in found if value is not None]


def joined(parts: Sequence[str], size_hw: tuple[int, int] | None) -> Drawn:
    """Geometries of the parts of one object as one; those that are run lengths need the image's size."""
    loaded = [json.loads(part) for part in parts]
    if all(isinstance(part, list) for part in loaded):
        return polygons(ring for part in loaded for ring in part)
    if size_hw is None:
        return nothing("group: its parts are masks and polygons, and the image has no size")
    return of_rles([binary.from_polygons(part, size_hw) if isinstance(part, list) else part for part in loaded])


def of_rles(rles: Sequence[Rle]) -> Drawn:
    """Run-length encodings that are one mask together."""
    return Drawn(json.dumps(list(rles), separators=(",", ":")))
