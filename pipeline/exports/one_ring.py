"""A mask as one polygon, its holes and parts included, that different ways to draw polygons turn into the same pixels.

The ring runs along the edges of pixels, INSET_PX inside. Who fills by area (pycocotools) then gets exactly the pixels
of the mask; who cuts coordinates to integers and draws outlines too (OpenCV, so Ultralytics) gets them as well, since
each corner is cut to the pixel that it belongs to. A hole is entered and left along a row of the mask, which changes
nothing; a further part along a line from the largest part, which is one pixel wide where outlines are drawn. A part
with fewer pixels than its line is left out. Pure: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask
from pipeline.masks.outlines import Outline, outlines, signed_area

INSET_PX = 0.1

Points = npt.NDArray[np.float64]
Point = tuple[float, float]


@dataclass
class _Ring:
    """One outline; entry: the point at which another ring reaches it; branches: what it reaches itself.

    after: of each corner, the point that the edge after it starts from.
    """

    points: list[Point]
    after: list[int]
    entry: int = 0
    branches: list[_Branch] = field(default_factory=list)


class _Branch(NamedTuple):
    """The way to another ring: after which point, after how many pixels there, from where to where."""

    point: int
    pixels: int
    leave: Point
    arrive: Point
    ring: _Ring


def one_ring(mask: Mask) -> Points:
    """(H, W) {0, 1}, not empty -> (N, 2) float64 corners (x, y) in pixels, (0, 0) the image's upper left corner."""
    outer, holes = outlines(mask)
    rings = _rings([*outer, *holes])
    root = rings[int(np.argmax([signed_area(outline) for outline in outer]))]
    if holes:
        _branch_to_holes(mask, [*outer, *holes], rings, len(outer))
    if len(outer) > 1:
        _branch_to_parts(mask, root, rings[: len(outer)])
    return np.asarray(list(_walk(root)) if len(rings) > 1 else root.points, np.float64)


def draw(ring: Points, size_hw: tuple[int, int]) -> Mask:
    """(N, 2) (x, y) in pixels -> (H, W) {0, 1}: drawn with its outline, coordinates cut to integers."""
    pixels = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(pixels, [ring.astype(np.int32)], 1)
    return pixels


def inset(outline: Outline, touching: npt.NDArray[np.bool_]) -> list[list[Point]]:
    """(N, 2) corners along the edges of pixels -> each INSET_PX to the right of its direction, where the mask is.

    touching: (N,) corners at which two pixels of the mask touch: two points each, one in either pixel.
    """
    corners = outline.astype(np.float64)
    ahead = np.sign(np.roll(corners, -1, axis=0) - corners)
    behind = np.roll(ahead, 1, axis=0)
    single = corners + INSET_PX * (_right_of(ahead) + _right_of(behind))
    first = corners + INSET_PX * (_right_of(behind) - behind)
    second = corners + INSET_PX * (_right_of(ahead) + ahead)
    found = zip(touching.tolist(), *(map(tuple, points.tolist()) for points in (single, first, second)), strict=True)
    return [[before, after] if is_touching else [alone] for is_touching, alone, before, after in found]


def _right_of(directions: Points) -> Points:
    return np.stack([-directions[:, 1], directions[:, 0]], axis=1)


def _rings(outlined: Sequence[Outline]) -> list[_Ring]:
    """Every corner is there once, but those at which pixels touch."""
    _, place, times = np.unique(np.concatenate(outlined), axis=0, return_inverse=True, return_counts=True)
    touching = np.split(times[place.ravel()] > 1, np.cumsum([len(outline) for outline in outlined])[:-1])
    found = [inset(outline, mark) for outline, mark in zip(outlined, touching, strict=True)]
    ends = [(np.cumsum([len(points) for points in corners]) - 1).tolist() for corners in found]
    return [_Ring([p for points in corners for p in points], end) for corners, end in zip(found, ends, strict=True)]


def _branch_to_holes(mask: Mask, outlined: Sequence[Outline], rings: Sequence[_Ring], first_hole: int) -> None:
    """Reach each hole along a row of the mask, from what is left of it."""
    upwards: dict[tuple[int, int], tuple[_Ring, int, int]] = {}  # edges that have the mask at their right
    for ring, outline in zip(rings, outlined, strict=True):
        ends = np.roll(outline, -1, axis=0)[:, 1].tolist()
        for corner, ((x, y), end) in enumerate(zip(outline.tolist(), ends, strict=True)):
            upwards.update({(x, row): (ring, ring.after[corner], y) for row in range(end, y)})
    for ring, outline in zip(rings[first_hole:], outlined[first_hole:], strict=True):
        corner = _leftmost(outline)
        x, row = outline[corner].tolist()
        left = x - int(np.argmin(np.pad(mask[row, :x], (1, 0))[::-1]))
        parent, at, start = upwards[left, row]
        ring.entry = ring.after[corner]
        leave, arrive = (left + INSET_PX, row + 0.5), (x - INSET_PX, row + 0.5)
        parent.branches.append(_Branch(at, start - row, leave, arrive, ring))


def _leftmost(outline: Outline) -> int:
    """The corner of a hole from which its leftmost edge runs down."""
    downwards = np.roll(outline, -1, axis=0)[:, 1] > outline[:, 1]
    return int(np.argmin(np.where(downwards, outline[:, 0], np.iinfo(np.int32).max)))


def _branch_to_parts(mask: Mask, root: _Ring, parts: Sequence[_Ring]) -> None:
    """Reach each part from the nearest point of the largest, where its pixels outnumber those of the line."""
    from scipy.spatial import KDTree  # it takes longer than all else that a command needs

    labels = cv2.connectedComponents(mask, connectivity=8)[1]
    areas = np.bincount(labels.ravel())
    tree = KDTree(root.points)
    for part in (part for part in parts if part is not root):
        distances, nearest = tree.query(part.points)
        part.entry = int(np.argmin(distances))
        x, y = part.points[part.entry]
        if areas[labels[int(y), int(x)]] > distances[part.entry]:
            point = int(nearest[part.entry])
            root.branches.append(_Branch(point, 0, root.points[point], (x, y), part))


def _walk(root: _Ring) -> Iterator[Point]:
    """All points of a ring and of what it reaches, each branch there and back."""
    open_rings = [_steps(root)]
    while open_rings:
        step = next(open_rings[-1], None)
        if step is None:
            open_rings.pop()
        elif isinstance(step, _Ring):
            open_rings.append(_steps(step))
        else:
            yield step


def _steps(ring: _Ring) -> Iterator[Point | _Ring]:
    """A ring from its entry back to it: points, and other rings between those that they are reached from."""
    branches: dict[int, list[_Branch]] = {}
    for branch in sorted(ring.branches, key=lambda branch: branch.pixels):
        branches.setdefault(branch.point, []).append(branch)
    for point in (*range(ring.entry, len(ring.points)), *range(ring.entry)):
        yield ring.points[point]
        for branch in branches.get(point, []):
            yield from (branch.leave, branch.arrive, branch.ring, branch.arrive, branch.leave)
    yield ring.points[ring.entry]
