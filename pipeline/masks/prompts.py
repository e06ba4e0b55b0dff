"""Prompts from a coarse mask: distance-guided points, tight and elastic box, Gaussian mask.

The method is SAMRefiner (ICLR 2025, sections 3.2 and 3.3), written from its description. Where the paper and the
published code disagree both forms exist by name; where the published code is at fault (an absent negative point
becomes (0, 0), distance transforms ignore the image border) this module does what the paper says.

All functions are pure; a mask is (H, W) uint8 {0, 1} in original image pixels, and so are points and boxes. Frames are
`masks/frames.py`'s business.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask
from pipeline.masks.frames import FloatArray, tight_box_xyxy

GaussianForm = Literal["paper", "code"]
POSITIVE, NEGATIVE, NO_POINT = 1, 0, -1

ELASTIC_STEP_SHARE = 0.1  # of the side that grows
ELASTIC_STEP_PX = 10

EXACT_DISTANCE_PX = 1200  # beyond it float32 may be half an integer off in the square; it counts integers to 4096 ** 2


class Points(NamedTuple):
    """`points_xy` (2, 2) float32 in pixels and their `labels` (2,) int64: POSITIVE, then NEGATIVE or NO_POINT."""

    points_xy: FloatArray
    labels: npt.NDArray[np.int64]


class Prompts(NamedTuple):
    """What a refiner may show a model about one mask, in image pixels."""

    points: Points
    box_xyxy: FloatArray  # (4,)
    gaussian: FloatArray  # (H, W) in [0, 1], 0 outside the mask


def inside_distance(mask: Mask, box_xyxy: tuple[int, int, int, int]) -> FloatArray:
    """Euclidean distance of each pixel in the box to the mask's complement, (h, w) float32.

    The image border counts as complement, so that a mask cut by it peaks in its own middle. Only the tight box is
    transformed: no foreground lies outside it.
    """
    x1, y1, x2, y2 = box_xyxy
    boxed = np.asarray(mask[y1 : y2 + 1, x1 : x2 + 1], np.uint8)
    framed = np.asarray(cv2.copyMakeBorder(boxed, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), np.uint8)
    return distance_to_background(framed)[1:-1, 1:-1]


def distance_to_background(mask: Mask) -> FloatArray:
    """Euclidean distance of each foreground pixel to the nearest background pixel, (H, W) float32, exact.

    OpenCV's transform is fast, but its last bit depends on where the array happens to lie in memory. Squared distances
    are integers, so rounding them gives the exact value again, as long as float32 can tell them apart.
    """
    distances = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if distances.max() > EXACT_DISTANCE_PX:
        from scipy.ndimage import distance_transform_edt  # slow to import, and rarely needed

        return np.asarray(distance_transform_edt(mask), np.float32)
    squared = np.square(distances, out=distances)
    return np.asarray(np.sqrt(np.rint(squared, out=squared), out=squared), np.float32)


def distance_points(mask: Mask) -> Points:
    """Positive: the pixel farthest from the complement. Negative: the background pixel of the tight box farthest
    from the mask, or (0, 0) with NO_POINT when the box holds none. Ties go to the first in row-major order.

    Raises ValueError on an empty mask.
    """
    box = _box(mask)
    return _points(mask, box, inside_distance(mask, box))


def gaussian_mask(mask: Mask, form: GaussianForm, gamma: float) -> FloatArray:
    """(H, W) float32 in [0, 1]: how central each foreground pixel is, 0 outside the mask.

    paper: exp(-r^2 / (|M| gamma)), r the distance to the distance transform's peak.
    code:  exp(-(d - d_max)^2 gamma / |M|), d the distance transform.
    """
    box = _box(mask)
    return _gaussian(mask, box, inside_distance(mask, box), form, gamma)


def build_prompts(mask: Mask, form: GaussianForm, gamma: float) -> Prompts:
    """Points, tight box and Gaussian mask of a non-empty mask, from one distance transform."""
    box = _box(mask)
    inside = inside_distance(mask, box)
    return Prompts(
        points=_points(mask, box, inside),
        box_xyxy=np.array(box, np.float32),
        gaussian=_gaussian(mask, box, inside, form, gamma),
    )


def gaussian_logits(gaussian_in_mask_frame: FloatArray, strength: float) -> FloatArray:
    """Gaussian field in the model's mask frame -> mask prompt: `strength` times it, -`strength` where it is 0."""
    field = gaussian_in_mask_frame
    return np.where(field > 0, strength * field, -strength).astype(np.float32)


def grow_box(
    box_xyxy: npt.ArrayLike,
    similar: npt.NDArray[np.bool_],
    threshold: float,
    size_hw: tuple[int, int] | None = None,
    cell: int = 1,
) -> tuple[FloatArray, bool]:
    """Context-aware elastic box: grow each side once where the strip added looks like the object.

    box_xyxy: inclusive pixels of an image of `size_hw` (None: as `similar`); similar: bool, of cells of `cell` pixels a
    side, whether their embedding resembles the mask's mean; threshold: the share of such cells in a strip above which
    that side grows (lambda; 0 turns growing off). A side moves by the smaller of 10 % of its extent and 10 px; a step
    that would reach the border is refused. Returns box and "grew".
    """
    x1, y1, x2, y2 = (int(value) for value in np.asarray(box_xyxy))
    height, width = size_hw or similar.shape
    step_x = min(int((x2 - x1) * ELASTIC_STEP_SHARE), ELASTIC_STEP_PX)
    step_y = min(int((y2 - y1) * ELASTIC_STEP_SHARE), ELASTIC_STEP_PX)
    rows, columns = slice(y1, y2 + 1), slice(x1, x2 + 1)

    def grows(step: int, in_bounds: bool, strip: tuple[slice, slice]) -> bool:
        cells = tuple(slice(side.start // cell, (side.stop - 1) // cell + 1) for side in strip)
        return step > 0 and in_bounds and float(similar[cells].mean()) > threshold

    if threshold <= 0:
        return np.array([x1, y1, x2, y2], np.float32), False
    left = grows(step_x, x1 - step_x > 0, (rows, slice(x1 - step_x, x1)))
    top = grows(step_y, y1 - step_y > 0, (slice(y1 - step_y, y1), columns))
    right = grows(step_x, x2 + step_x < width - 1, (rows, slice(x2 + 1, x2 + 1 + step_x)))
    bottom = grows(step_y, y2 + step_y < height - 1, (slice(y2 + 1, y2 + 1 + step_y), columns))
    grown = [x1 - step_x * left, y1 - step_y * top, x2 + step_x * right, y2 + step_y * bottom]
    return np.array(grown, np.float32), left or top or right or bottom


def upsampled_norm(features: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Norm of each cell's embedding after bilinear upsampling: (C, h, w) float32 -> (H, W) float32.

    The same for all masks of an image, and the costly half of `similar_pixels`.
    """
    height, width = size_hw
    squared = np.zeros((height, width), np.float32)
    for channel in features:
        upsampled = cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR)
        squared += upsampled * upsampled
    return np.sqrt(squared)


def similar_pixels(features: FloatArray, norm: FloatArray, on_grid: Mask, cut: float) -> npt.NDArray[np.bool_]:
    """Cells whose embedding has a cosine above `cut` with the mean embedding under the mask, (H, W) bool.

    features: (C, h, w) float32, an image embedding cropped of padding; norm: its `upsampled_norm` (H, W); on_grid: the
    mask at (h, w), by nearest neighbour (nothing is similar where that left it empty). Features are upsampled
    bilinearly, then normalised.
    """
    height, width = norm.shape
    inside = on_grid > 0
    if not inside.any():
        return np.zeros((height, width), bool)
    mean = features[:, inside].mean(axis=1)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
    # Upsampling is linear, so the product may be taken on the grid.
    product = cv2.resize(np.tensordot(mean, features, axes=1), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(product > cut * norm + 1e-12)


def _box(mask: Mask) -> tuple[int, int, int, int]:
    box = tight_box_xyxy(mask)
    if box is None:
        raise ValueError("an empty mask has no prompts")
    return box


def _points(mask: Mask, box: tuple[int, int, int, int], inside: FloatArray) -> Points:
    x1, y1, x2, y2 = box
    positive = _peak(inside)
    background = 1 - np.minimum(mask[y1 : y2 + 1, x1 : x2 + 1], 1)
    if not background.any():
        return Points(
            np.array([[positive[0] + x1, positive[1] + y1], [0, 0]], np.float32),
            np.array([POSITIVE, NO_POINT], np.int64),
        )
    # Every foreground pixel lies in the box, so distances to the mask are exact inside the crop.
    negative = _peak(distance_to_background(background))
    return Points(
        np.array([[positive[0] + x1, positive[1] + y1], [negative[0] + x1, negative[1] + y1]], np.float32),
        np.array([POSITIVE, NEGATIVE], np.int64),
    )


def _gaussian(
    mask: Mask, box: tuple[int, int, int, int], inside: FloatArray, form: GaussianForm, gamma: float
) -> FloatArray:
    x1, y1, x2, y2 = box
    foreground = mask[y1 : y2 + 1, x1 : x2 + 1] > 0
    mask_area = float(np.count_nonzero(foreground))
    if form == "paper":
        peak_x, peak_y = _peak(inside)
        rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]
        squared = (rows - peak_y) ** 2 + (columns - peak_x) ** 2
        values = np.exp(-squared[foreground] / (mask_area * gamma))
    else:
        values = np.exp(-((inside[foreground] - inside.max()) ** 2) * gamma / mask_area)
    field = np.zeros(mask.shape, np.float32)
    field[y1 : y2 + 1, x1 : x2 + 1][foreground] = values
    return field


def _peak(distances: npt.NDArray[np.float32]) -> tuple[int, int]:
    """(x, y) of the largest value, the first in row-major order."""
    row, column = divmod(int(np.argmax(distances)), distances.shape[1])
    return column, row
