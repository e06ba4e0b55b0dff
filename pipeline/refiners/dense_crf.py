"""A fully connected conditional random field over the pixels (Krähenbühl and Koltun, NIPS 2011).

The coarse mask is taken as a noisy vote at each pixel; pixels that are near, and pixels that are near and alike in
colour, prefer the same label. Needs the extra `dense-crf` (package pydensecrf2).
The weights were chosen on part A of the dev set; those of the package's example (80 px, 13 levels, weight 10) let the
larger of object and surroundings swallow the other.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask, box_around

TRUST = 0.8  # probability that the coarse mask is right at a pixel
SMOOTH_PX, SMOOTH_WEIGHT = 3.0, 3.0  # the Gaussian kernel
NEAR_PX, ALIKE, COLOUR_WEIGHT = 20.0, 6.0, 4.0  # the bilateral kernel; `ALIKE` in grey levels of 255
ROUNDS = 5
CONTEXT_RATIO = 0.5  # of the longer side of the mask's box: what is looked at around it
LONGEST_SIDE_PX = 400  # larger crops are worked on at this size


def refine(image_rgb: npt.NDArray[np.uint8], coarse: Mask) -> Mask:
    """(H, W, 3) uint8 RGB and (H, W) uint8 {0, 1} -> (H, W) uint8 {0, 1}; it may be empty."""
    _, _, width, height = cv2.boundingRect(coarse)
    rows, columns = box_around(coarse, margin_px=round(CONTEXT_RATIO * max(width, height)))
    mask = coarse[rows, columns]
    height, width = mask.shape
    scale = min(1.0, LONGEST_SIDE_PX / max(height, width))
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(image_rgb[rows, columns], size_wh, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask, size_wh, interpolation=cv2.INTER_NEAREST)
    probability = _infer(np.asarray(image, np.uint8), np.asarray(small, np.uint8))
    refined = np.zeros_like(coarse)
    refined[rows, columns] = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return refined


def _infer(image_rgb: npt.NDArray[np.uint8], mask: Mask) -> npt.NDArray[np.float32]:
    """(h, w) float32 probability of foreground after mean-field inference."""
    from pydensecrf.densecrf import DenseCRF2D  # an extra

    height, width = mask.shape
    votes = np.stack([np.where(mask > 0, 1 - TRUST, TRUST), np.where(mask > 0, TRUST, 1 - TRUST)])
    field = DenseCRF2D(width, height, 2)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(votes).reshape(2, -1), np.float32))
    field.addPairwiseGaussian(sxy=SMOOTH_PX, compat=SMOOTH_WEIGHT)
    field.addPairwiseBilateral(sxy=NEAR_PX, srgb=ALIKE, rgbim=np.ascontiguousarray(image_rgb), compat=COLOUR_WEIGHT)
    return np.asarray(field.inference(ROUNDS), np.float32)[1].reshape(height, width)
