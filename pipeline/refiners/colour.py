"""What colour says of a mask: GrabCut with the model's logits as its prior.

Where the model is sure its answer is the colour models' example; in between, GrabCut decides by colours and edges of
this very image. It errs elsewhere than a network does, so it is worth a small vote, and where it disagrees a mask
is less certain. Small objects have too few pixels to tell colours from: there the coarse mask has the vote.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask, box_around
from pipeline.masks.frames import FloatArray

SURE_LOGIT = 3.0
MARGIN_RATIO = 0.25  # of the longer side of the masks' box: what is looked at around them
SMALLEST_MARGIN_PX = 8
LONGEST_SIDE_PX = 400  # larger crops are worked on at this size
FEWEST_PIXELS = 10  # of either class; OpenCV fits five colours to each
SMALLEST_OBJECT_PX = 2500  # in the model's input; on training photographs colours gained above it and lost below it
ROUNDS = 2
SEED = 0


def vote(logits: FloatArray, coarse: Mask, coloured: Mask, scale: float) -> FloatArray:
    """Who has the vote says object (+1) or not (-1), (H, W): colours; the coarse mask where the object is small.

    logits, coarse, coloured: (H, W), the latter of `colour_cut`; scale: model pixels per image pixel, along a side.
    """
    small = np.count_nonzero(logits > 0) * scale**2 < SMALLEST_OBJECT_PX
    return np.where((coarse if small else coloured) > 0, 1, -1).astype(np.float32)


def colour_cut(image_rgb: npt.NDArray[np.uint8], logits: FloatArray, coarse: Mask) -> Mask:
    """(h, w, 3) uint8 RGB at any size, (H, W) logits, (H, W) coarse mask -> (H, W) uint8 {0, 1}.

    Deterministic. The logits' own mask where there is too little to tell apart.
    """
    own = (logits > 0).astype(np.uint8)
    (height, width), size_hw = own.shape, (image_rgb.shape[0], image_rgb.shape[1])
    if size_hw == own.shape:
        found = _cut(image_rgb, logits, own | coarse)
        return own if found is None else found
    size_wh = size_hw[::-1]
    shrinks = size_hw[0] < height
    seen = cv2.resize(logits, size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    either = cv2.resize(own | coarse, size_wh, interpolation=cv2.INTER_NEAREST)
    found = _cut(image_rgb, np.asarray(seen, np.float32), np.asarray(either, np.uint8))
    if found is None:
        return own
    smooth = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return (smooth > 0.5).astype(np.uint8)


def _cut(image_rgb: npt.NDArray[np.uint8], logits: FloatArray, either: Mask) -> Mask | None:
    """As `colour_cut`, all of one size, around the mask `either`; None where colours cannot tell."""
    margin_px = SMALLEST_MARGIN_PX + round(MARGIN_RATIO * max(cv2.boundingRect(either)[2:]))
    around = box_around(either, margin_px)
    height, width = either[around].shape
    scale = min(1.0, LONGEST_SIDE_PX / max(height, width))
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    labels = _labels(np.asarray(cv2.resize(logits[around], size_wh, interpolation=cv2.INTER_LINEAR), np.float32))
    objects = int(np.count_nonzero(labels % 2))
    if min(objects, labels.size - objects) < FEWEST_PIXELS:
        return None
    cv2.setRNGSeed(SEED)  # the colour models start from k-means
    models = np.zeros((1, 65)), np.zeros((1, 65))
    part = cv2.resize(np.ascontiguousarray(image_rgb[around]), size_wh, interpolation=cv2.INTER_AREA)
    try:
        cv2.grabCut(part, labels, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # an image of too few colours to fit
        return None
    found = np.zeros_like(either)
    found[around] = cv2.resize((labels % 2).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return found


def _labels(logits: FloatArray) -> Mask:
    """GrabCut's labels; those of the object are odd."""
    labels = np.where(logits > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    labels[logits > SURE_LOGIT] = cv2.GC_FGD
    labels[logits < -SURE_LOGIT] = cv2.GC_BGD
    return labels.astype(np.uint8)
