"""What colour says of a mask: GrabCut with the model's logits as its prior.

Where the model is sure its answer is the colour models' example; in between, GrabCut decides by colours and edges of
this very image. It errs elsewhere than a network does, so it is worth a small vote, and where it disagrees a mask
is less certain. Small objects have too few pixels to tell colours from: there the coarse mask has the vote.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask, box_around
from pipeline.masks.canvas import Canvas
from pipeline.masks.frames import FloatArray
from pipeline.masks.resampling import Floats, bilinear, resampled

SURE_LOGIT = 3.0
MARGIN_RATIO = 0.25  # of the longer side of the masks' box: what is looked at around them
SMALLEST_MARGIN_PX = 8  # of the picture
LONGEST_SIDE_PX = 400  # larger crops are worked on at this size
FEWEST_PIXELS = 10  # of either class; OpenCV fits five colours to each
SMALLEST_OBJECT_PX = 2500  # in the model's input; on training photographs colours gained above it and lost below it
ROUNDS = 1  # where the model is not sure; further ones hardly move the refined mask
SEED = 0


def vote(logits: FloatArray, coarse: Mask, coloured: Mask, scale: float) -> FloatArray:
    """Who has the vote says object (+1) or not (-1), (h, w): colours; the coarse mask where the object is small.

    logits, coarse, coloured: (h, w) of a canvas, the latter of `colour_cut`; scale: model pixels a cell.
    """
    small = np.count_nonzero(logits > 0) * scale**2 < SMALLEST_OBJECT_PX
    return np.where((coarse if small else coloured) > 0, 1, -1).astype(np.float32)


def colour_cut(
    image_rgb: npt.NDArray[np.uint8], size_hw: tuple[int, int], logits: FloatArray, coarse: Mask, canvas: Canvas
) -> Mask:
    """What colours say of (h, w) logits and a coarse mask on a canvas of the image: (h, w) uint8 {0, 1}.

    image_rgb: (_, _, 3) uint8 RGB, the image (H, W) at any size. Deterministic. The logits' own mask where there is too
    little to tell apart.
    """
    own = (logits > 0).astype(np.uint8)
    either = own | coarse
    cell_px = canvas.cell * image_rgb.shape[0] / size_hw[0]  # of the picture's pixels
    longer = max(cv2.boundingRect(either)[2:])
    around = box_around(either, round(SMALLEST_MARGIN_PX / cell_px + MARGIN_RATIO * longer))
    if not either.any():
        return own
    found = _cut(image_rgb, size_hw, logits[around], canvas.part(*around))
    if found is None:
        return own
    own[...] = 0
    own[around] = found
    return own


def _cut(image_rgb: npt.NDArray[np.uint8], size_hw: tuple[int, int], logits: FloatArray, canvas: Canvas) -> Mask | None:
    """As `colour_cut`, of a canvas around the object; None where colours cannot tell."""
    rows, columns = (
        _Axis.of(start, start + count * canvas.cell, there, extent)
        for start, count, there, extent in zip(
            (canvas.y, canvas.x), (canvas.height, canvas.width), image_rgb.shape, size_hw, strict=False
        )
    )
    shrunk = min(1.0, LONGEST_SIDE_PX / max(rows.size, columns.size))
    height, width = (max(1, round(axis.size * shrunk)) for axis in (rows, columns))
    labels = _labels(
        resampled(
            logits,
            bilinear((rows.places(height) + 0.5 - canvas.y) / canvas.cell - 0.5, canvas.height),
            bilinear((columns.places(width) + 0.5 - canvas.x) / canvas.cell - 0.5, canvas.width),
        )
    )
    objects = int(np.count_nonzero(labels % 2))
    if min(objects, labels.size - objects) < FEWEST_PIXELS:
        return None
    cv2.setRNGSeed(SEED)  # the colour models start from k-means
    models = np.zeros((1, 65)), np.zeros((1, 65))
    shown = np.ascontiguousarray(image_rgb[rows.first : rows.last, columns.first : columns.last])
    try:
        shown = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)
        cv2.grabCut(shown, labels, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # an image of too few colours to fit
        return None
    found = resampled(
        (labels % 2).astype(np.float32),
        bilinear(rows.back(canvas.rows_px, height), height),
        bilinear(columns.back(canvas.columns_px, width), width),
    )
    return (found > 0.5).astype(np.uint8)


class _Axis(NamedTuple):
    """Rows or columns `first` to `last` (exclusive) of a picture that has `scale` of them to each one of the image."""

    first: int
    last: int
    scale: float

    @classmethod
    def of(cls, start: int, stop: int, there: int, extent: int) -> _Axis:
        """Those that show the image's from `start` to `stop`, of `extent`; the picture has `there`."""
        scale = there / extent
        return cls(int(start * scale), min(there, int(np.ceil(stop * scale))), scale)

    @property
    def size(self) -> int:
        return self.last - self.first

    def places(self, count: int) -> Floats:
        """(count,) places in the image of `count` even stretches of these."""
        return (self.first + (np.arange(count) + 0.5) * (self.size / count)) / self.scale - 0.5

    def back(self, places_px: Floats, count: int) -> Floats:
        """Which of `count` even stretches places of the image are at, as `places` counts them."""
        return ((places_px + 0.5) * self.scale - self.first) * (count / self.size) - 0.5


def _labels(logits: FloatArray) -> Mask:
    """GrabCut's labels; those of the object are odd."""
    labels = np.where(logits > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    labels[logits > SURE_LOGIT] = cv2.GC_FGD
    labels[logits < -SURE_LOGIT] = cv2.GC_BGD
    return labels.astype(np.uint8)
