"""Damage: from an accurate mask to a coarse one, as pseudo-labelers, weak supervision and annotators make them.

Every kind is (image_rgb (H, W, 3) uint8, mask (H, W) uint8 {0, 1}, rng) -> (H, W) uint8 {0, 1}; it may return an
empty mask or one far from the truth: `damage` tries again. Sizes are relative to the square root of the mask's area.
Kinds that do not look at the image are written without it.

Two kinds are absent on purpose, so that they can be measured as damage never seen: shifted masks and other models'
masks (GrabCut). Whatever could move a mask as a whole (`warp`) keeps its mean displacement at zero.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask, iou

Image = npt.NDArray[np.uint8]
Damage = Callable[[Image, Mask, np.random.Generator], Mask]
ShapeDamage = Callable[[Mask, np.random.Generator], Mask]

MIN_IOU, MAX_IOU = 0.45, 0.97
NEAR_PERFECT_SHARE = 0.15
COMPOSED_SHARE = 0.25
TRIES = 4
REGIONAL = ("superpixels", "majority", "leak", "patches")  # only the image can tell what is wrong: drawn twice as often


def damage(image: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """A coarse mask of a mask that has an outline: one or two kinds of damage; now and then almost none."""
    if rng.random() < NEAR_PERFECT_SHARE:
        return near_perfect(mask, rng)
    names = (*KINDS, *REGIONAL)
    for _ in range(TRIES):
        coarse = KINDS[names[rng.integers(len(names))]](image, mask, rng)
        if coarse.any() and not coarse.all() and rng.random() < COMPOSED_SHARE:
            coarse = KINDS[names[rng.integers(len(names))]](image, coarse, rng)
        if coarse.any() and MIN_IOU <= iou(coarse, mask) <= MAX_IOU:
            return coarse
    return near_perfect(mask, rng)


def near_perfect(mask: Mask, rng: np.random.Generator) -> Mask:
    """The mask itself, or the mask moved by about a pixel here and there."""
    if rng.random() < 0.5:
        return mask.copy()
    return _nonempty((_smooth(mask.astype(np.float32), 0.8) + 0.2 * _noise(mask.shape, 3, rng) > 0.5), mask)


def superpixels(image: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """Regions of similar colour near the outline flipped until the IoU falls below a random target."""
    labels = watershed_regions(image, _cell(mask, rng, 0.12, 0.45), rng)
    near = np.unique(labels[_band(mask, _length(mask, rng, 0.06, 0.2)) > 0])
    rng.shuffle(near)
    coarse, target = mask.copy(), rng.uniform(0.65, 0.9)
    for label in near:
        region = labels == label
        value = np.uint8(rng.random() < 0.5)
        trial = coarse.copy()
        trial[region] = value
        overlap = iou(trial, mask)
        if overlap >= target - 0.05:
            coarse = trial
        if overlap <= target:
            break
    return coarse


def majority(image: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """The mask snapped to colour regions: each wholly in or out, by a random share of the mask in it."""
    labels = watershed_regions(image, _cell(mask, rng, 0.15, 0.5), rng)
    counts = np.maximum(np.bincount(labels.ravel()), 1)
    share = np.bincount(labels.ravel(), mask.ravel()) / counts
    return (share > rng.uniform(0.3, 0.7))[labels].astype(np.uint8)


def leak(image: Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """Colour floods from points near the outline, added when they start outside and cut away when inside."""
    coarse, blurred = mask.copy(), cv2.GaussianBlur(image, (5, 5), 0)
    starts = np.argwhere(_band(mask, _length(mask, rng, 0.05, 0.15)))
    reach = _length(mask, rng, 0.15, 0.5)
    for row, column in starts[rng.integers(len(starts), size=rng.integers(1, 5))]:
        filled = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.uint8)
        tolerance = (int(rng.integers(4, 20)),) * 3
        flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE * int(rng.random() < 0.7) | (1 << 8)
        cv2.floodFill(blurred, filled, (int(column), int(row)), 0, tolerance, tolerance, flags)
        near = _disc(mask.shape, (int(column), int(row)), (reach, reach), 0)
        coarse[(filled[1:-1, 1:-1] & near) > 0] = 1 - mask[row, column]
    return coarse


def morphology(mask: Mask, rng: np.random.Generator) -> Mask:
    """Dilated, eroded, opened or closed."""
    radius = _length(mask, rng, 0.03, 0.13)
    shape = cv2.MORPH_ELLIPSE if rng.random() < 0.7 else cv2.MORPH_RECT
    kernel = cv2.getStructuringElement(shape, (2 * radius + 1, 2 * radius + 1))
    operation = [cv2.MORPH_DILATE, cv2.MORPH_DILATE, cv2.MORPH_ERODE, cv2.MORPH_OPEN, cv2.MORPH_CLOSE][rng.integers(5)]
    padded = cv2.copyMakeBorder(mask, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.morphologyEx(padded, operation, kernel)[radius:-radius, radius:-radius], np.uint8)


def polygon(mask: Mask, rng: np.random.Generator) -> Mask:
    """Few vertices, each off by a little."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    coarse, jitter = np.zeros_like(mask), rng.uniform(0, 0.04) * np.sqrt(mask.sum())
    for contour in contours:
        kept = cv2.approxPolyDP(contour, cv2.arcLength(contour, True) * rng.uniform(0.008, 0.05), True)
        moved = kept + rng.normal(0, jitter, kept.shape)
        cv2.fillPoly(coarse, [moved.round().astype(np.int32)], 1)
    return coarse


def hull(mask: Mask, rng: np.random.Generator) -> Mask:
    """Convex hull, ellipse, box, or holes filled: what lazy tools draw; partly mixed with the mask."""
    points = cv2.findNonZero(mask)
    coarse = np.zeros_like(mask)
    choice = rng.random()
    if choice < 0.5:
        cv2.fillConvexPoly(coarse, cv2.convexHull(points), 1)
    elif choice < 0.75:
        cv2.ellipse(coarse, cv2.minAreaRect(points), 1, -1)
    else:
        cv2.fillPoly(coarse, [cv2.boxPoints(cv2.minAreaRect(points)).round().astype(np.int32)], 1)
    mix = _noise(mask.shape, _length(mask, rng, 0.2, 0.5), rng) > rng.uniform(-1, 1)
    return np.where(mix, coarse, mask).astype(np.uint8)


def low_resolution(mask: Mask, rng: np.random.Generator) -> Mask:
    """Thresholded noisy grid of few cells, as class activation maps give."""
    height, width = mask.shape
    cell = _cell(mask, rng, 0.08, 0.35)
    size = (max(2, round(width / cell)), max(2, round(height / cell)))
    field = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    field = cv2.GaussianBlur(field, (3, 3), 0) if rng.random() < 0.6 else field
    field = field + np.float32(rng.uniform(0, 0.1)) * rng.normal(0, 1, field.shape)
    enlarge = [cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_NEAREST][rng.choice(3, p=[0.5, 0.35, 0.15])]
    return (cv2.resize(field, (width, height), interpolation=enlarge) > rng.uniform(0.25, 0.6)).astype(np.uint8)


def blurred(mask: Mask, rng: np.random.Generator) -> Mask:
    """Smoothed and cut at another level: soft outputs of a network."""
    field = _smooth(mask.astype(np.float32), _length(mask, rng, 0.04, 0.2))
    return np.asarray(field > rng.uniform(0.25, 0.7), np.uint8)


def rough(mask: Mask, rng: np.random.Generator) -> Mask:
    """Smooth noise added before the cut, at one or two scales: outlines that wander in and out."""
    field = _smooth(mask.astype(np.float32), _length(mask, rng, 0.04, 0.12))
    for _ in range(int(rng.integers(1, 3))):
        field = field + rng.uniform(0.1, 0.35) * _noise(mask.shape, _length(mask, rng, 0.02, 0.2), rng)
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8), iterations=_length(mask, rng, 0.1, 0.25))
    return ((field > rng.uniform(0.4, 0.6)) * near).astype(np.uint8)


def patches(mask: Mask, rng: np.random.Generator) -> Mask:
    """Ellipses added or removed, centred on the mask or just beside it."""
    coarse = mask.copy()
    centres = np.argwhere(cv2.dilate(mask, np.ones((5, 5), np.uint8)))
    for row, column in centres[rng.integers(len(centres), size=rng.integers(1, 5))]:
        axes = (_length(mask, rng, 0.1, 0.42), _length(mask, rng, 0.06, 0.35))
        coarse[_disc(mask.shape, (int(column), int(row)), axes, rng.uniform(0, 180)) > 0] = rng.random() < 0.5
    return coarse


def cut(mask: Mask, rng: np.random.Generator) -> Mask:
    """A straight or wavy cut takes away one side: only the discriminative part is left."""
    rows, columns = np.nonzero(mask)
    angle = rng.uniform(0, 2 * np.pi)
    grid_y, grid_x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    position = grid_x * np.cos(angle) + grid_y * np.sin(angle)
    position = position + _length(mask, rng, 0.0, 0.12) * _noise(mask.shape, _length(mask, rng, 0.1, 0.3), rng)
    return (mask * (position > np.quantile(position[rows, columns], rng.uniform(0.08, 0.35)))).astype(np.uint8)


def warp(mask: Mask, rng: np.random.Generator) -> Mask:
    """A smooth elastic warp whose mean displacement under the mask is zero (a shift is never trained on)."""
    height, width = mask.shape
    wavelength, strength = _length(mask, rng, 0.1, 0.35), rng.uniform(0.04, 0.16) * np.sqrt(mask.sum())
    grid_y, grid_x = np.mgrid[:height, :width].astype(np.float32)
    inside = mask > 0
    moved = []
    for grid in (grid_x, grid_y):
        field = _noise(mask.shape, wavelength, rng)
        moved.append((grid + strength * (field - field[inside].mean())).astype(np.float32))
    return np.asarray(cv2.remap(mask, moved[0], moved[1], cv2.INTER_NEAREST), np.uint8)


def scaled(mask: Mask, rng: np.random.Generator) -> Mask:
    """Larger or smaller about its centroid, along each axis apart."""
    rows, columns = np.nonzero(mask)
    centre_y, centre_x = rows.mean(), columns.mean()
    factor_x, factor_y = rng.uniform(0.8, 1.25, 2)
    matrix = np.array([[factor_x, 0, centre_x * (1 - factor_x)], [0, factor_y, centre_y * (1 - factor_y)]])
    return np.asarray(cv2.warpAffine(mask, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST), np.uint8)


def _shape_only(change: ShapeDamage) -> Damage:
    def applied(_: Image, mask: Mask, rng: np.random.Generator) -> Mask:
        return change(mask, rng)

    return applied


KINDS: dict[str, Damage] = {
    "superpixels": superpixels,
    "majority": majority,
    "leak": leak,
    "morphology": _shape_only(morphology),
    "polygon": _shape_only(polygon),
    "hull": _shape_only(hull),
    "low_resolution": _shape_only(low_resolution),
    "blurred": _shape_only(blurred),
    "rough": _shape_only(rough),
    "patches": _shape_only(patches),
    "cut": _shape_only(cut),
    "warp": _shape_only(warp),
    "scaled": _shape_only(scaled),
}


def watershed_regions(image: Image, cell_px: float, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """(H, W) int32 labels 0..n-1 of regions that follow edges, one per cell of a jittered grid (markers, watershed)."""
    height, width = image.shape[:2]
    rows, columns = max(2, round(height / cell_px)), max(2, round(width / cell_px))
    markers = np.zeros((height, width), np.int32)
    y = (np.arange(rows)[:, None] + rng.uniform(0.15, 0.85, (rows, columns))) * height / rows
    x = (np.arange(columns)[None] + rng.uniform(0.15, 0.85, (rows, columns))) * width / columns
    markers[y.astype(int), x.astype(int)] = np.arange(1, rows * columns + 1).reshape(rows, columns)
    cv2.watershed(cv2.GaussianBlur(image, (3, 3), 0), markers)
    # Ridges are -1: the largest neighbour takes them.
    filled = cv2.dilate(markers.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    return np.maximum(np.where(markers > 0, markers, filled) - 1, 0)


def _length(mask: Mask, rng: np.random.Generator, low: float, high: float) -> int:
    """Random share of the mask's size (square root of its area) in pixels, at least 1."""
    return max(1, round(float(np.sqrt(mask.sum()) * rng.uniform(low, high))))


def _cell(mask: Mask, rng: np.random.Generator, low: float, high: float) -> float:
    return float(max(4, _length(mask, rng, low, high)))


def _band(mask: Mask, radius: int) -> Mask:
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return np.asarray(cv2.dilate(mask, kernel) - cv2.erode(mask, kernel), np.uint8)


def _disc(size_hw: tuple[int, ...], centre_xy: tuple[int, int], axes: tuple[int, int], angle: float) -> Mask:
    disc = np.zeros(size_hw, np.uint8)
    cv2.ellipse(disc, centre_xy, axes, angle, 0, 360, 1, -1)
    return disc


def _smooth(field: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def _noise(size_hw: tuple[int, ...], wavelength: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Smooth noise of unit variance, about `wavelength` pixels from bump to bump."""
    height, width = size_hw
    coarse_hw = max(3, round(height / wavelength) + 1), max(3, round(width / wavelength) + 1)
    field = rng.normal(0, 1, coarse_hw).astype(np.float32)
    return np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _nonempty(candidate: npt.NDArray[np.bool_], otherwise: Mask) -> Mask:
    return candidate.astype(np.uint8) if candidate.any() else otherwise.copy()
