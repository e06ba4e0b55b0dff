"""Whether pixels of 255 are void, as class maps have it (nobody vouches for them), or one more object. Pure.

VOC, Cityscapes' train ids and COCO-stuff write ids from 1 on, and 255 where there is none. Who draws objects by hand
spreads them over the greys instead, 85, 170, 255, and there 255 is the last of them, unless it is a line around others.
It takes three values to tell: 128 and 255 may be a class and what is unlabelled as well.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.decoding.label_image import VOID, LabelImage

TAKEN_AS_VOID = f"pixels of {VOID} taken as void"
FEWEST_SPREAD = 3
SMALLEST_STEP = 16  # of greys that are spread
LINE_WIDTH, BESIDE = 4, 3  # pixels: of a line at most, and how near to others they lie along them
MOST_TOUCHING = 0.5


def is_void(image: LabelImage) -> bool:
    """Whether a label image has pixels of 255 that are void: 255 is the highest of several grey values or indices."""
    labels = image.labels
    if image.colours or image.greys or image.cut is not None or int(labels.max(initial=0)) != VOID:
        return False
    void, labelled = np.asarray(labels == VOID), np.asarray(labels != 0)
    if (void == labelled).all():  # no other value
        return False
    values = image.values
    is_counted = len(values) == VOID  # ids from 1 on, without a gap
    return not is_counted and (not _are_spread(values) or _is_outline(void, labelled))


def _are_spread(values: list[int]) -> bool:
    """Whether values are steps of one size up to 255, half of the steps or more, and not just two."""
    if len(values) < FEWEST_SPREAD:
        return False
    for steps in range(FEWEST_SPREAD, (VOID + 1) // SMALLEST_STEP + 1):
        nearest = {round(value * steps / VOID) for value in values}
        is_even = all(abs(round(value * steps / VOID) * VOID / steps - value) < 1 for value in values)
        if is_even and len(nearest) == len(values) and len(values) * 2 >= steps:
            return True
    return False


def _is_outline(void: npt.NDArray[np.bool_], labelled: npt.NDArray[np.bool_]) -> bool:
    """Whether (H, W) void is a line, and lies along other labels for the most part."""
    if cv2.erode(void.astype(np.uint8), np.ones((LINE_WIDTH + 1, LINE_WIDTH + 1), np.uint8), borderValue=0).any():
        return False
    others = cv2.dilate((labelled & ~void).astype(np.uint8), np.ones((2 * BESIDE + 1, 2 * BESIDE + 1), np.uint8)) > 0
    return bool(np.count_nonzero(void & others) >= MOST_TOUCHING * np.count_nonzero(void))
