"""Split-then-merge of semantic masks (SAMRefiner, ICLR 2025): one class's mask -> regions that can be refined alone.

A class's mask holds several objects, or one object in pieces. `split` takes it apart into 8-connected components, drops
specks, and joins again, in one greedy pass, the pieces that look like parts of one object: those whose boxes fill much
of their common box, as densely as each fills its own. `highest` puts refined regions together again.

`without_small` takes small islands and holes from any mask.

Pure functions; a mask is (H, W) uint8 {0, 1}. What refines the regions: `refiners/semantic.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask
from pipeline.masks.frames import FloatArray

MIN_REGION_PX = 5
MAX_REGIONS = 256  # the largest are kept; a mask of more pieces is noise, and every piece costs a pass of the decoder
BOX_SHARE = 0.5
DENSITY_MARGIN = 0.1
LARGE = 10  # times a small region: from there on a mask is large enough that such a region is none of its parts

Labels = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Claim = tuple[int, Mask, FloatArray]
"""Who claims, which pixels (H, W), and how strongly each (H, W)."""


def split(mask: Mask) -> Labels:
    """(H, W) uint8 -> (H, W) int32: 0 for background and dropped specks, 1, 2, ... n for the regions.

    Regions are numbered by the top, then the left side of their first component's box.
    """
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    left, top, width, height, areas = statistics.T.astype(np.int64)
    areas[0] = 0  # the background
    kept = np.flatnonzero(areas >= MIN_REGION_PX)
    kept = kept[np.argsort(-areas[kept], kind="stable")[:MAX_REGIONS]]
    kept = kept[np.lexsort((areas[kept], left[kept], top[kept]))]
    boxes = np.stack([left, top, left + width - 1, top + height - 1], axis=1)
    numbers = np.zeros(count, np.int32)
    numbers[kept] = group(boxes[kept], areas[kept]) + 1
    return np.asarray(numbers[labels], np.int32)


def group(boxes_xyxy: Ints, areas: Ints) -> Ints:
    """Which region each component belongs to: (N, 4) inclusive boxes and (N,) pixels -> (N,) numbers from 0.

    One greedy pass in the order given: a component takes in every later one that belongs to it as it has grown so far.
    """
    boxes, areas = boxes_xyxy.copy(), areas.copy()
    region = np.arange(len(boxes))
    free = np.ones(len(boxes), bool)
    for first in range(len(boxes)):
        other = first + 1
        while free[first] and other < len(boxes):
            fits = free[other:] & _belong(boxes[first], areas[first], boxes[other:], areas[other:])
            if not fits.any():
                break
            other += int(np.argmax(fits))
            region[other], free[other] = first, False
            boxes[first] = _joined(boxes[first], boxes[other])
            areas[first] += areas[other]
            other += 1
    return np.unique(region, return_inverse=True)[1].reshape(-1)


def highest(claims: Iterable[Claim], size_hw: tuple[int, int]) -> Labels:
    """(H, W) int32: who claims each pixel with the highest strength, -1 where nobody does; ties go to the first."""
    owner, best = np.full(size_hw, -1, np.int32), np.full(size_hw, -np.inf, np.float32)
    for name, mask, strength in claims:
        wins = (mask > 0) & (strength > best)
        owner[wins], best[wins] = name, strength[wins]
    return owner


def _belong(box: Ints, area: np.int64, boxes: Ints, areas: Ints) -> npt.NDArray[np.bool_]:
    """Which of N components a region should take in, (N,) bool.

    Both must hold: the sum of the two boxes is more than BOX_SHARE of the common box; and the two fill the common box
    more densely than min(BOX_SHARE, the thinner one's density - DENSITY_MARGIN). As in the published code, the common
    box's area is that between its outermost pixels' centres.
    """
    common = _joined(box, boxes)
    common_area = (common[:, 2] - common[:, 0]) * (common[:, 3] - common[:, 1])
    box_area, box_areas = _box_area(box), _box_area(boxes)
    density = np.minimum(area / box_area, areas / box_areas)
    dense_enough = area + areas > np.minimum(BOX_SHARE, density - DENSITY_MARGIN) * common_area
    return np.asarray((box_area + box_areas > BOX_SHARE * common_area) & dense_enough)


def _joined(box: Ints, boxes: Ints) -> Ints:
    """Smallest boxes that hold both."""
    return np.concatenate([np.minimum(box[..., :2], boxes[..., :2]), np.maximum(box[..., 2:], boxes[..., 2:])], axis=-1)


def _box_area(boxes: Ints) -> Ints:
    return np.asarray((boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1))


def without_small(mask: Mask, least_px: int) -> Mask:
    """(H, W) {0, 1} without islands (8-connected) and holes (4-connected) of fewer than `least_px` pixels.

    Masks of up to LARGE times as many pixels stay as they are, and so does the largest island of each.
    """
    if np.count_nonzero(mask) <= LARGE * least_px:
        return mask
    islands = _small(mask, least_px, connectivity=8)
    mask = np.where(islands, 0, mask).astype(np.uint8)
    background = np.pad(1 - mask, 1, constant_values=1)  # all that touches the border is one
    return np.where(_small(background, least_px, connectivity=4)[1:-1, 1:-1], 1, mask).astype(np.uint8)


def _small(mask: Mask, least_px: int, connectivity: int) -> Mask:
    """(H, W) {0, 1}: the components of fewer than `least_px` pixels, but for the largest of all."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask), connectivity=connectivity)
    areas = statistics[:, cv2.CC_STAT_AREA].copy()
    small = areas < least_px
    small[0] = False
    if len(areas) > 1:
        small[1 + int(areas[1:].argmax())] = False
    return np.asarray(small[labels], np.uint8)
