"""Outlines of masks as polygons along the edges of their pixels.

A corner (x, y) is a point between pixels, (0, 0) the upper left corner of the image, so pycocotools draws an outline
as exactly the pixels inside it. Pure: arrays in, arrays out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask

Outline = npt.NDArray[np.int32]


def outlines(mask: Mask) -> tuple[list[Outline], list[Outline]]:
    """(H, W) {0, 1} -> (outer outlines, holes), each (N, 2) int32 corners (x, y); only where the direction changes.

    Foreground pixels that touch at a corner are one part, background pixels are not. The foreground lies right of
    the direction of travel (y points down), so outer outlines run clockwise and holes the other way. An outline may
    touch itself at a corner. Order: by the first corner in reading order.
    """
    across, down = _edges(np.pad(np.asarray(mask, bool), 1))
    outer: list[Outline] = []
    holes: list[Outline] = []
    for start in sorted(across):
        if start not in across:
            continue  # belongs to an outline that was walked before
        corners = []
        at, direction = start
        while (at, direction) in across or (at, -direction) in across:
            corners.append(at)
            at, direction = _leave(across, at, direction)
            corners.append(at)
            at, direction = _leave(down, at, -direction)
        outline = np.asarray(corners, np.int32)[:, ::-1]  # (y, x) -> (x, y)
        (outer if signed_area(outline) > 0 else holes).append(outline)
    return outer, holes


def signed_area(outline: npt.NDArray[np.generic]) -> float:
    """Area inside a polygon of (x, y) points; positive for clockwise on the screen (y points down)."""
    x, y = np.asarray(outline, np.float64).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


Corner = tuple[int, int]  # y, x
Edges = dict[tuple[Corner, int], Corner]  # (from, +1 rightwards or downwards, -1 back) -> to


def _leave(edges: Edges, at: Corner, direction: int) -> tuple[Corner, int]:
    """Along the edge that leaves a corner; where two do, so that pixels that touch there stay together."""
    direction = direction if (at, direction) in edges else -direction
    return edges.pop((at, direction)), direction


def _edges(padded: npt.NDArray[np.bool_]) -> tuple[Edges, Edges]:
    """Horizontal and vertical edges between corners: points whose four pixels are not all alike nor in two halves."""
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    count = above_left.astype(np.int8) + above_right + below_left + below_right
    crossing = (count == 2) & (above_left == below_right)
    # an edge ends at each corner, and at a crossing another begins: it counts twice
    ends = np.where(crossing, 2, (count % 2).astype(np.int8))
    ys, xs = np.nonzero(ends)
    times = ends[ys, xs]
    rows = np.stack([np.repeat(ys, times), np.repeat(xs, times)], axis=1)
    columns = rows[np.lexsort((rows[:, 0], rows[:, 1]))]
    return _pairs(rows, below_right), _pairs(columns, below_left)


def _pairs(corners: npt.NDArray[np.int64], forwards: npt.NDArray[np.bool_]) -> Edges:
    """Corners in order along their lines: each two are the ends of one edge."""
    first, second = corners[::2], corners[1::2]
    ahead = forwards[first[:, 0], first[:, 1]].tolist()
    edges: Edges = {}
    for (y1, x1), (y2, x2), is_ahead in zip(first.tolist(), second.tolist(), ahead, strict=True):
        if is_ahead:
            edges[(y1, x1), 1] = (y2, x2)
        else:
            edges[(y2, x2), -1] = (y1, x1)
    return edges
