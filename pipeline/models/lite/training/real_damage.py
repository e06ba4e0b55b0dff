"""Damage as tools and detectors make it, beside the random kinds of `damage.py`; same form, for training alone.

Validation and the correction of the predicted IoU keep to `damage.py`, so that curves of different runs compare. What
is here looks at the image, or does what `damage.py` leaves out so that it can be measured unseen: moved masks.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.masks.binary import Mask, iou
from pipeline.models.lite.training.damage import Damage, Image, damage, near_perfect

MIN_IOU, MAX_IOU = 0.4, 0.98
NEAR_PERFECT_SHARE, REAL_SHARE = 0.12, 0.35  # `damage` gives more of the former
HEAD_CELLS = 28  # of a detector's mask head
TRIES = 2
BOX_MARGIN = (0.0, 0.12)  # of a side of the tight box
GRABCUT_SIDE = 96  # its time goes by pixels


def mixed_damage(image: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """A coarse mask of a mask that has an outline: near-perfect, of a real kind, or one of `damage`."""
    chance = rng.random()
    if chance < NEAR_PERFECT_SHARE:
        return near_perfect(mask, rng)
    if chance < NEAR_PERFECT_SHARE + REAL_SHARE:
        kinds = list(REAL_KINDS.values())
        for _ in range(TRIES):
            coarse = kinds[rng.integers(len(kinds))](image, mask, rng)
            if coarse.any() and MIN_IOU <= iou(coarse, mask) <= MAX_IOU:
                return coarse
    return damage(image, mask, rng)


def mask_head(_: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """A grid of 28 x 28 soft values in a detector's box, a little wrong, enlarged and cut at a half."""
    x1, y1, x2, y2 = _window(mask, rng)
    cells = (HEAD_CELLS, HEAD_CELLS)
    field = cv2.resize(mask[y1:y2, x1:x2].astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.4, 1.6))
    wave = cv2.resize(rng.normal(0, 1, (7, 7)).astype(np.float32), cells, interpolation=cv2.INTER_CUBIC)
    field = field + rng.uniform(0.05, 0.3) * wave
    coarse = np.zeros_like(mask)
    coarse[y1:y2, x1:x2] = cv2.resize(field, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 0.5
    return coarse


def moved(_: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """Shifted and scaled as a whole: a mask of a moment earlier, or of an annotation that was placed by hand."""
    size, factor = float(np.sqrt(mask.sum())), rng.uniform(0.85, 1.18)
    rows, columns = np.nonzero(mask)
    shift = rng.normal(0, 0.09 * size, 2)
    x, y = columns.mean() * (1 - factor) + shift[0], rows.mean() * (1 - factor) + shift[1]
    matrix = np.array([[factor, 0, x], [0, factor, y]])
    return np.asarray(cv2.warpAffine(mask, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST), np.uint8)


def without_thin_parts(_: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """Opened, and the largest part alone kept: legs, handles and stems are lost."""
    radius = max(1, round(float(np.sqrt(mask.sum()) * rng.uniform(0.04, 0.14))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel), np.uint8)
    count, labels, statistics, _centres = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return opened
    return (labels == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)


def two_colours(image: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """Pixels of the box that k-means puts with the mask's colours rather than with those around."""
    x1, y1, x2, y2 = _window(mask, rng)
    scale = min(1.0, 64 / max(x2 - x1, y2 - y1))
    size = (max(4, round((x2 - x1) * scale)), max(4, round((y2 - y1) * scale)))
    pixels = cv2.resize(image[y1:y2, x1:x2], size, interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    inside = cv2.resize(mask[y1:y2, x1:x2], size, interpolation=cv2.INTER_NEAREST).ravel()
    clusters = min(int(rng.integers(2, 7)), len(pixels))
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 6, 0.0)
    _, labels, _ = cv2.kmeans(pixels, clusters, np.empty(0, np.int32), stop, 1, cv2.KMEANS_RANDOM_CENTERS)
    labels = labels.ravel()
    share = np.bincount(labels, inside, clusters) / np.maximum(np.bincount(labels, minlength=clusters), 1)
    field = (share > 0.5)[labels].reshape(size[::-1]).astype(np.float32)
    coarse = np.zeros_like(mask)
    smooth = cv2.medianBlur(field.astype(np.uint8), 3).astype(np.float32)
    coarse[y1:y2, x1:x2] = cv2.resize(smooth, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 0.5
    return coarse


def grabcut(image: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """GrabCut from a detector's box, one round, on a small copy."""
    height, width = mask.shape
    scale = min(1.0, GRABCUT_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    x1, y1, x2, y2 = (np.array(_window(mask, rng)) * scale).round().astype(int)
    labels = np.full(size[::-1], cv2.GC_BGD, np.uint8)
    labels[y1:y2, x1:x2] = cv2.GC_PR_FGD
    if (labels == cv2.GC_PR_FGD).sum() < 10 or (labels == cv2.GC_BGD).sum() < 10:
        return np.zeros_like(mask)
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    model = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, labels, None, *model, 1, cv2.GC_INIT_WITH_MASK)
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5, np.uint8)


REAL_KINDS: dict[str, Damage] = {
    "mask_head": mask_head,
    "moved": moved,
    "without_thin_parts": without_thin_parts,
    "two_colours": two_colours,
    "grabcut": grabcut,
}


def _window(mask: Mask, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A detector's box around the mask, (x1, y1, x2, y2) with exclusive maxima, each side off by a little."""
    x, y, width, height = cv2.boundingRect(mask)
    left, top, right, bottom = rng.uniform(*BOX_MARGIN, 4) * rng.choice([-0.3, 1.0], 4, p=[0.25, 0.75])
    x1, y1 = max(0, round(x - left * width)), max(0, round(y - top * height))
    x2 = min(mask.shape[1], max(x1 + 2, round(x + width + right * width)))
    y2 = min(mask.shape[0], max(y1 + 2, round(y + height + bottom * height)))
    return min(x1, x2 - 2), min(y1, y2 - 2), x2, y2
