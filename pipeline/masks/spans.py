"""Run lengths without pixels: what a mask covers of a coarser grid, and the runs of a mask that is given by its box.

A mask of millions of pixels has some thousands of runs. Reading them costs the same whatever lies between, so masks
come to their canvases (`canvas.py`) from here and are never decoded at the photograph's size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pipeline.masks.binary import Mask, Rle, checked_runs
from pipeline.masks.frames import FloatArray

LEAST_SHARE = 1e-9  # less is what rounding left of nothing

Ints = npt.NDArray[np.int64]


class Spans(NamedTuple):
    """Vertical stretches of foreground: `column`, first row `top` and last row + 1 `bottom`, (N,) int64 all three."""

    column: Ints
    top: Ints
    bottom: Ints


def of(rle: Rle) -> Spans:
    """The stretches of an Rle, column by column. Raises MaskError as binary.decode."""
    height = rle["size"][0]
    ends = np.cumsum(checked_runs(rle))
    start, stop = ends[0 : len(ends) // 2 * 2 : 2], ends[1::2]
    there = stop > start
    start, stop = start[there], stop[there]
    first, last = start // height, (stop - 1) // height
    each = last - first + 1
    run = np.repeat(np.arange(len(start)), each)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(each) - each, each)
    top = np.where(column == first[run], start[run] - first[run] * height, 0)
    bottom = np.where(column == last[run], stop[run] - last[run] * height, height)
    return Spans(column, top, bottom)


def tight_box_xyxy(drawn: Spans) -> tuple[int, int, int, int] | None:
    """Inclusive box in pixels; None of an empty mask."""
    if not drawn.column.size:
        return None
    sides = drawn.column[0], drawn.top.min(), drawn.column[-1], drawn.bottom.max() - 1
    return int(sides[0]), int(sides[1]), int(sides[2]), int(sides[3])


def coverage(
    drawn: Spans, corner_yx: tuple[float, float], cell_yx: tuple[float, float], size_hw: tuple[int, int]
) -> FloatArray:
    """How much of each cell of a grid is foreground, (h, w) float32 in [0, 1].

    corner_yx: where in the image the grid of `size_hw` cells begins; cell_yx: height and width of a cell, in pixels, at
    least 1 both.
    """
    (down, across), (cell_y, cell_x) = size_hw, cell_yx
    left = (drawn.column - corner_yx[1]) / cell_x
    column = np.floor(left).astype(np.int64)
    beside = np.maximum(left + 1 / cell_x - column - 1, 0) * cell_x  # a column's share in the next cell
    edges = [np.clip((edge - corner_yx[0]) / cell_y, 0, down) for edge in (drawn.top, drawn.bottom)]
    total = np.zeros((down + 2) * across)
    for columns, share in ((column, 1 - beside), (column + 1, beside)):
        seen = (columns >= 0) & (columns < across) & (share > LEAST_SHARE)
        # A stretch fills the rest of the cell it begins in and all after it, less the same from where it ends on.
        for edge, sign in zip(edges if seen.any() else (), (1.0, -1.0), strict=False):
            row = np.floor(edge[seen]).astype(np.int64)
            within, weight = edge[seen] - row, sign * share[seen]
            first = row * across + columns[seen]
            total += np.bincount(first, weight * (1 - within), len(total))
            total += np.bincount(first + across, weight * within, len(total))
    found = np.cumsum(total.reshape(-1, across)[:down], axis=0) / cell_x
    return np.where(found < LEAST_SHARE, 0, found).astype(np.float32)


def encode(mask: Mask, x: int, y: int, size_hw: tuple[int, int]) -> Rle:
    """A mask's box -> the Rle of the whole mask.

    mask: (w, h) uint8 {0, 1}, a row for each *column* of the box, whose first pixel is at (x, y) of the image (H, W).
    """
    height, width = size_hw
    padded = np.zeros((mask.shape[0], mask.shape[1] + 1), bool)  # a stretch ends where its column does
    padded[:, :-1] = mask
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], edges]) if flat.size and flat[0] else edges
    column, row = np.divmod(edges, mask.shape[1] + 1)
    places = (column + x) * height + row + y
    joined = np.flatnonzero(places[2::2] == places[1:-1:2])  # columns of the whole height
    places = np.delete(places, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    counts = np.diff(np.concatenate([[0], places, [height * width]]))
    counts = counts if counts[-1] else counts[:-1]
    found = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": found["counts"].decode("ascii")}
