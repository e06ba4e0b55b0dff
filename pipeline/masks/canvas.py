"""Canvases: windows of an image in so few cells that work on them costs the same whatever the photograph's size.

A cell is a square of whole image pixels, one pixel where the window is small: then a canvas is a cut-out of the image,
and all that is computed on it is exact. Masks come to a canvas from run lengths (`spans.py`), logits from the model's
square; what leaves it is one mask, enlarged to image pixels within its own box and coded.

Pure functions on arrays. Places are in pixels whose centres are whole numbers, as OpenCV counts.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks import spans
from pipeline.masks.binary import Mask, Rle
from pipeline.masks.frames import FloatArray, Frame
from pipeline.masks.resampling import Floats, bilinear, means, resampled, upsampling
from pipeline.masks.spans import Spans

PROMPTED_CELLS = 384
"""A mask is prompted from on a canvas of so many cells a side, at most."""
JUDGED_CELLS = 640
"""A refined mask is made and scored on a canvas of so many cells a side, at most, its surroundings included."""
STRIPE_PIXELS = 1 << 17
"""A mask is enlarged so many pixels at a time: what is in between stays in the cache."""

Window = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in image pixels; maxima exclusive."""


class Canvas(NamedTuple):
    """`height` by `width` cells of `cell` by `cell` image pixels, the first of which is at (x, y).

    Where an image's side is no multiple of `cell`, the last cells may stick out of it.
    """

    x: int
    y: int
    height: int
    width: int
    cell: int

    @property
    def rows_px(self) -> Floats:
        """(height,) the image row of each cell's centre."""
        return self.y + (np.arange(self.height) + 0.5) * self.cell - 0.5

    @property
    def columns_px(self) -> Floats:
        """(width,) the image column of each cell's centre."""
        return self.x + (np.arange(self.width) + 0.5) * self.cell - 0.5

    @property
    def window(self) -> Window:
        """What it shows."""
        return self.x, self.y, self.x + self.width * self.cell, self.y + self.height * self.cell

    def to_image(self, points_xy: FloatArray) -> FloatArray:
        """(..., 2) x and y of cells -> the image pixels at their centres."""
        corner = np.array([self.x, self.y], np.float32)
        return np.asarray(points_xy * self.cell + corner + (self.cell - 1) / 2, np.float32)

    def part(self, rows: slice, columns: slice) -> Canvas:
        """The canvas of some of its cells."""
        top, bottom, _ = rows.indices(self.height)
        left, right, _ = columns.indices(self.width)
        x, y = self.x + left * self.cell, self.y + top * self.cell
        return Canvas(x, y, bottom - top, right - left, self.cell)

    def cells(self, window: Window) -> tuple[slice, slice]:
        """(rows, columns) of the cells whose centres lie in a window."""
        x1, y1, x2, y2 = window
        rows, columns = self.rows_px, self.columns_px
        return (
            slice(*(int(side) for side in np.searchsorted(rows, [y1 - 0.5, y2 - 0.5]))),
            slice(*(int(side) for side in np.searchsorted(columns, [x1 - 0.5, x2 - 0.5]))),
        )


class Patch(NamedTuple):
    """A mask on a canvas.

    mask: (height, width) uint8 {0, 1}; box_xyxy: its tight box in image pixels, inclusive; drawn: the mask itself,
    where it came in run lengths and the canvas is coarser than pixels. Of an empty mask all are empty: `NOTHING`.
    """

    canvas: Canvas
    mask: Mask
    box_xyxy: tuple[int, int, int, int]
    drawn: Spans | None = None

    def at(self, rows_px: Floats, columns_px: Floats) -> Mask:
        """The mask at every pair of image rows and columns, (rows, columns) uint8; 0 outside of the canvas."""
        if not self.mask.size:
            return np.zeros((len(rows_px), len(columns_px)), np.uint8)
        rows, of_rows = _cells_at(rows_px, self.canvas.y, self.canvas.cell, self.canvas.height)
        columns, of_columns = _cells_at(columns_px, self.canvas.x, self.canvas.cell, self.canvas.width)
        found = self.mask.take(rows, 0).take(columns, 1)
        return np.asarray(found * of_rows[:, None] * of_columns, np.uint8)

    def on(self, canvas: Canvas) -> Mask:
        """The mask on another canvas."""
        return self.at(canvas.rows_px, canvas.columns_px)

    def mirrored(self, image_width: int) -> Patch:
        """As in the mirror image."""
        (x1, y1, x2, y2), canvas = self.box_xyxy, self.canvas
        x = image_width - canvas.x - canvas.width * canvas.cell
        box = image_width - 1 - x2, y1, image_width - 1 - x1, y2
        drawn = None if self.drawn is None else self.drawn._replace(column=image_width - 1 - self.drawn.column)
        return Patch(canvas._replace(x=x), np.ascontiguousarray(self.mask[:, ::-1]), box, drawn)

    def moved(self, x: int, y: int) -> Patch:
        """As in a cut-out of the image that begins at (x, y)."""
        x1, y1, x2, y2 = self.box_xyxy
        canvas = self.canvas._replace(x=self.canvas.x - x, y=self.canvas.y - y)
        return Patch(canvas, self.mask, (x1 - x, y1 - y, x2 - x, y2 - y))

    def in_square(self, frame: Frame, mask_side: int) -> FloatArray:
        """(mask_side, mask_side) float32 in the frame's square, area-averaged."""
        if self.drawn is None:
            return field_to_mask(self.mask.astype(np.float32), self.canvas, frame, mask_side)
        height, width = _square_px(frame, mask_side)
        return spans.coverage(self.drawn, (0, 0), (height, width), (mask_side, mask_side))


NOTHING = Patch(Canvas(0, 0, 0, 0, 1), np.zeros((0, 0), np.uint8), (0, 0, -1, -1))


def canvas_of(window: Window, size_hw: tuple[int, int], most_cells: int) -> Canvas:
    """The canvas of a window of an image (H, W), of `most_cells` a side at most; cut at the image border."""
    height, width = size_hw
    x1, y1, x2, y2 = max(0, window[0]), max(0, window[1]), min(width, window[2]), min(height, window[3])
    cell = max(1, -(-max(x2 - x1, y2 - y1) // most_cells))
    across, down = -(-(x2 - x1) // cell), -(-(y2 - y1) // cell)
    return Canvas(max(0, min(x1, width - across * cell)), max(0, min(y1, height - down * cell)), down, across, cell)


def patch_of_spans(drawn: Spans, size_hw: tuple[int, int]) -> Patch:
    """A mask from its run lengths, to be prompted from."""
    box = spans.tight_box_xyxy(drawn)
    if box is None:
        return NOTHING
    canvas = canvas_of((box[0], box[1], box[2] + 1, box[3] + 1), size_hw, PROMPTED_CELLS)
    corner, cell = (canvas.y, canvas.x), (canvas.cell, canvas.cell)
    share = spans.coverage(drawn, corner, cell, (canvas.height, canvas.width))
    share /= _inside(canvas, size_hw)
    mask = share > 0.5
    mask = mask if mask.any() else share > 0  # a line is thinner than a cell
    return Patch(canvas, mask.astype(np.uint8), box, drawn if canvas.cell > 1 else None)


def patch_of_logits(logits: FloatArray, frame: Frame) -> Patch:
    """The mask where (s, s) logits in a frame's square are above 0, to be prompted from."""
    window = support(logits, frame, 0)
    if window is None:
        return NOTHING
    canvas = canvas_of(window, frame.size_hw, PROMPTED_CELLS)
    return tight(canvas, (sampled(logits, frame, canvas) > 0).astype(np.uint8), frame.size_hw)


def tight(canvas: Canvas, mask: Mask, size_hw: tuple[int, int]) -> Patch:
    """A mask on a canvas, without the empty rows and columns around it."""
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return NOTHING
    rows, columns = slice(top, top + height), slice(left, left + width)
    part = canvas.part(rows, columns)
    x1, y1, x2, y2 = part.window
    box = x1, y1, min(x2, size_hw[1]) - 1, min(y2, size_hw[0]) - 1
    return Patch(part, np.ascontiguousarray(mask[rows, columns]), box)


def support(logits: FloatArray, frame: Frame, above: float) -> Window | None:
    """The window of the image outside of which upsampled (s, s) logits are nowhere above a value; None: nowhere."""
    side, input_side = len(logits), frame.input_side
    content = [min(side, -(-extent * side // input_side) + 1) for extent in frame.input_hw]
    hits = logits[: content[0], : content[1]] > above
    rows, columns = np.flatnonzero(hits.any(1)), np.flatnonzero(hits.any(0))
    if not rows.size:
        return None
    edges = []
    for found, extent, within in zip((rows, columns), frame.size_hw, frame.input_hw, strict=True):
        image_px = input_side / side * extent / within
        first, last = (found[0] - 0.5) * image_px - 1, (found[-1] + 1.5) * image_px + 1
        edges.append((max(0, int(np.floor(first))), min(extent, int(np.ceil(last)))))
    (y1, y2), (x1, x2) = edges
    return x1, y1, x2, y2


def sampled(logits: FloatArray, frame: Frame, canvas: Canvas) -> FloatArray:
    """(s, s) logits in a frame's square -> (height, width) float32 at the canvas's cells, as Frame.logits_to_image."""
    side = len(logits)
    if frame.stretched:
        down, across = (side / extent for extent in frame.size_hw)
        rows = bilinear((canvas.rows_px + 0.5) * down - 0.5, side)
        return resampled(logits, rows, bilinear((canvas.columns_px + 0.5) * across - 0.5, side))
    rows = upsampling(canvas.rows_px, frame.size_hw[0], frame.input_hw[0], frame.input_side, side)
    columns = upsampling(canvas.columns_px, frame.size_hw[1], frame.input_hw[1], frame.input_side, side)
    return resampled(logits, rows, columns)


def field_to_mask(field: FloatArray, canvas: Canvas, frame: Frame, mask_side: int) -> FloatArray:
    """A field on a canvas, 0 elsewhere -> (mask_side, mask_side) float32 in the frame's square, area-averaged."""
    found = np.zeros((mask_side, mask_side), np.float32)
    pixels = _square_px(frame, mask_side)
    rows, down = _overlapped(canvas.y, canvas.height, canvas.cell, pixels[0], mask_side)
    columns, across = _overlapped(canvas.x, canvas.width, canvas.cell, pixels[1], mask_side)
    inner = means(means(field, down).T, across).T
    found[rows, columns] = inner
    return found


def encode(field: FloatArray, canvas: Canvas, size_hw: tuple[int, int]) -> Rle:
    """The mask where a field, interpolated between the centres of the canvas's cells, is above 0."""
    left, top, width, height = cv2.boundingRect((field > 0).astype(np.uint8))
    if not width:
        return spans.encode(np.zeros((0, 0), np.uint8), 0, 0, size_hw)
    rows = slice(max(0, top - 1), min(canvas.height, top + height + 1))
    columns = slice(max(0, left - 1), min(canvas.width, left + width + 1))
    part = canvas.part(rows, columns)
    mask = _enlarged(np.ascontiguousarray(field[rows, columns].T), canvas.cell)
    return spans.encode(mask[: size_hw[1] - part.x, : size_hw[0] - part.y], part.x, part.y, size_hw)


def _enlarged(field: FloatArray, cell: int) -> Mask:
    """(w, h) float32 -> (w * cell, h * cell) uint8, 1 where it is above 0."""
    if cell == 1:
        return (field > 0).astype(np.uint8)
    width, height = field.shape
    found = np.empty((width * cell, height * cell), np.uint8)
    step = max(1, STRIPE_PIXELS // (cell * cell * height))
    for first in range(0, width, step):
        before, after = max(0, first - 1), min(width, first + step + 1)
        stripe = cv2.resize(
            field[before:after], (height * cell, (after - before) * cell), interpolation=cv2.INTER_LINEAR
        )
        own = stripe[(first - before) * cell :][: step * cell]
        np.greater(own, 0, out=found[first * cell : first * cell + len(own)].view(bool))
    return found


def _square_px(frame: Frame, mask_side: int) -> tuple[float, float]:
    """Height and width, in image pixels, of a cell of the model's square of `mask_side` cells a side."""
    (height, width), (input_h, input_w), side = frame.size_hw, frame.input_hw, frame.input_side / mask_side
    return side * height / input_h, side * width / input_w


def _inside(canvas: Canvas, size_hw: tuple[int, int]) -> FloatArray:
    """How much of each cell lies in the image, (height, width) float32."""
    sides = zip((canvas.y, canvas.x), (canvas.height, canvas.width), size_hw, strict=True)
    down, across = (
        np.clip((extent - start) / canvas.cell - np.arange(count), 1 / canvas.cell, 1) for start, count, extent in sides
    )
    return np.asarray(down[:, None] * across, np.float32)


def _cells_at(
    places_px: Floats, start: int, cell: int, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Which cell each place is in, and whether it is in one."""
    cells = np.floor((places_px + 0.5 - start) / cell).astype(np.int64)
    return np.clip(cells, 0, count - 1), (cells >= 0) & (cells < count)


def _overlapped(start: int, count: int, cell: int, pixels: float, side: int) -> tuple[slice, Floats]:
    """Which of `side` stretches of `pixels` each `count` cells lie in, and where those begin and end, in cells."""
    first, last = int(start / pixels), min(side, int(np.ceil((start + count * cell) / pixels)))
    return slice(first, last), (np.arange(first, last + 1) * pixels - start) / cell
