"""Masks as nested lists of their pixels, H rows of W numbers (`Array2D` of Hugging Face), told apart from polygons.

Both are lists of lists of numbers. Rows of one length are pixels where most neighbours in them are equal, which the
corners of no polygon are, or where they are as many and as long as the image's; a ring of a polygon stays one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.decoding import label_image
from pipeline.decoding.label_image import LabelImage
from pipeline.errors import MaskError

Size = tuple[int, int]
SizeOf = Callable[[], Size | None]

MIN_COLUMNS = 6  # fewer are no polygon, but a point
MIN_ROWS = 3  # two are rings, padded to one length
MIN_SIDE = 9  # of an image that is asked for its size, to save that for polygons
MIN_FLAT = 64
HALF = 0.5


def is_grid(cell: Any, size_of: SizeOf) -> bool:
    """Whether a list is the pixels of a mask. size_of: asked for the (H, W) of the image where only that can tell."""
    rows = _array(cell)
    if rows is None:
        return False
    height, width = rows.shape
    if _is_binary(rows) or _is_flat(rows):
        return True
    return min(height, width) >= MIN_SIDE and size_of() == (height, width)


def is_stack(cell: Any, size_of: SizeOf) -> bool:
    """Whether a list is (N, H, W), the pixels of a mask each."""
    is_deep = isinstance(cell, list) and bool(cell) and all(isinstance(plane, list) for plane in cell)
    return is_deep and all(is_grid(plane, size_of) for plane in cell)


def read(cell: Any) -> LabelImage:
    """(H, W) as a mask image of these values: black and white, or labels; shares of a pixel are cut at a half.

    Raises MaskError.
    """
    rows = _array(cell)
    if rows is None:
        raise MaskError("mask_unreadable", "no rows of pixels")
    if rows.dtype.kind == "f" and not (rows == np.rint(rows)).all() and 0 <= rows.min() <= rows.max() <= 1:
        soft = int(np.count_nonzero((rows > 0) & (rows < 1)))
        labels = np.asarray(rows >= HALF, np.uint8)
        return LabelImage(labels, note=f"soft edges: {soft} pixels are neither 0 nor 1, cut at {HALF}")
    return label_image.of_values(rows)


def fault(cell: Any) -> str:
    """What is wrong with numbers that are pixels, and yet no mask of H rows of W; "" for nothing, and for polygons."""
    if not isinstance(cell, list) or not cell:
        return ""
    if all(isinstance(row, list) for row in cell):
        values = [value for row in cell for value in row] if len(cell) > 1 else []
        said = f"{len(cell)} rows of several lengths, where those of a mask have one"
    else:
        values, said = cell, f"{len(cell)} values in one row: which H and W have they? Store H rows of W"
    return f"pixels: {said}" if len(values) >= MIN_FLAT and _all_binary(values) else ""


def _array(cell: Any) -> npt.NDArray[Any] | None:
    """(H, W) booleans, integers or floats; None for anything else."""
    if not isinstance(cell, list) or len(cell) < MIN_ROWS or not all(isinstance(row, list) for row in cell):
        return None
    if len(cell[0]) < MIN_COLUMNS or any(len(row) != len(cell[0]) for row in cell):
        return None
    try:
        rows = np.asarray(cell)
    except (ValueError, OverflowError):
        return None
    return rows if rows.ndim == 2 and rows.dtype.kind in "biuf" else None


def _is_flat(rows: npt.NDArray[Any]) -> bool:
    """Whether most neighbours are equal, but for those at a row's end, with which rings are padded to one length."""
    equal = rows[:, 1:] == rows[:, :-1]
    before_end = ~np.logical_and.accumulate(equal[:, ::-1], axis=1)[:, ::-1]
    counted = np.count_nonzero(before_end)
    return bool(counted == 0 or np.count_nonzero(equal & before_end) * 2 > counted)


def _is_binary(rows: npt.NDArray[Any]) -> bool:
    return bool(((rows == 0) | (rows == 1)).all() or ((rows == 0) | (rows == label_image.VOID)).all())


def _all_binary(values: list[Any]) -> bool:
    return all(value in (0, 1) for value in values) or all(value in (0, label_image.VOID) for value in values)
