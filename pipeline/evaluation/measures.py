"""The pixels: how far one mask is from the truth, and the same for a data set as columns.

All counts leave out ignored pixels. So that the rim of an ignore region is not mistaken for an outline, a mask is
first made equal to the truth inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.evaluation.pairing import Pair, Truth
from pipeline.masks import binary
from pipeline.masks.binary import Mask, Rle

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Texts = npt.NDArray[np.str_]

SIDES = ("coarse", "refined", "mask")  # what came in; always refine; what the gate kept
SMALLEST_RADIUS_PX = 3.0
LARGEST_RADIUS_RATIO = 1 / 300  # of width + height
RADII = 5


@dataclass(frozen=True)
class Side:
    """One version of N masks against the truth; arrays (N,).

    intersection, union   pixels
    boundary_iou          IoU of the bands along the outlines, 2 % of the diagonal wide (Cheng et al., CVPR 2021)
    boundary_accuracy     see `boundary_accuracy`; NaN where the truth has no outline
    """

    intersection: Floats
    union: Floats
    boundary_iou: Floats
    boundary_accuracy: Floats

    @property
    def iou(self) -> Floats:
        """(N,) in [0, 1]. The union is never empty: a truth without pixels is not measured."""
        return self.intersection / self.union

    def take(self, rows: Integers) -> Side:
        """The masks at `rows`."""
        return Side(self.intersection[rows], self.union[rows], self.boundary_iou[rows], self.boundary_accuracy[rows])


@dataclass(frozen=True)
class Measures:
    """N measured masks as columns.

    image      (N,) int64, equal for masks of one image
    area       (N,) pixels of the truth
    decision   (N,) text, empty where the predictions carry none; `reason` likewise
    scores     by name, (N,) in [0, 1], NaN where a mask has none
    sides      by name of SIDES; `coarse` and `refined` only where the predictions carry them
    """

    image: Integers
    source: Texts
    category: Texts
    area: Integers
    decision: Texts
    reason: Texts
    scores: dict[str, Floats]
    sides: dict[str, Side]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Integers) -> Measures:
        """The masks at `rows`."""
        return Measures(
            self.image[rows],
            self.source[rows],
            self.category[rows],
            self.area[rows],
            self.decision[rows],
            self.reason[rows],
            {name: values[rows] for name, values in self.scores.items()},
            {name: side.take(rows) for name, side in self.sides.items()},
        )

    def oracle(self) -> Side | None:
        """For each mask the better of coarse and refined, by IoU: the best any gate could do. None without both."""
        if not {"coarse", "refined"} <= self.sides.keys():
            return None
        coarse, refined = self.sides["coarse"], self.sides["refined"]
        better = refined.iou > coarse.iou
        return Side(
            np.where(better, refined.intersection, coarse.intersection),
            np.where(better, refined.union, coarse.union),
            np.where(better, refined.boundary_iou, coarse.boundary_iou),
            np.where(better, refined.boundary_accuracy, coarse.boundary_accuracy),
        )


def measure(pairs: Sequence[Pair]) -> Measures:
    """Compare every pair. A side is there if any prediction carries it; a mask that lacks it counts as empty.

    (A missing coarse mask cannot be told from one that was never given, so `coarse` needs all of them.)
    """
    truths = [pair.truth for pair in pairs]
    predictions = [pair.prediction for pair in pairs]
    _, image = np.unique([truth.image_id for truth in truths], return_inverse=True)
    names = sorted({name for prediction in predictions for name in prediction.scores})
    present = {
        "coarse": all(prediction.coarse is not None for prediction in predictions),
        "refined": any(prediction.refined is not None for prediction in predictions),
        "mask": True,
    }
    rows = [_measure_one(pair, [side for side in SIDES if present[side]]) for pair in pairs]
    return Measures(
        image=image.astype(np.int64),
        source=np.array([truth.source for truth in truths]),
        category=np.array([truth.category for truth in truths]),
        area=np.array([binary.area(truth.mask) for truth in truths], dtype=np.int64),
        decision=np.array([prediction.decision or "" for prediction in predictions]),
        reason=np.array([prediction.reason or "" for prediction in predictions]),
        scores={name: np.array([p.scores.get(name, np.nan) for p in predictions], dtype=np.float64) for name in names},
        sides={side: Side(*np.array([row[side] for row in rows], dtype=np.float64).T) for side in rows[0]},
    )


def _measure_one(pair: Pair, sides: Sequence[str]) -> dict[str, tuple[float, float, float, float]]:
    """(intersection, union, boundary IoU, boundary accuracy) of each side; equal masks are measured once."""
    truth, counted = decode_truth(pair.truth)
    band = binary.boundary(truth)
    known: dict[str, tuple[float, float, float, float]] = {}
    results = {}
    for side in sides:
        rle: Rle | None = getattr(pair.prediction, side)
        key = rle["counts"] if rle else ""
        if key not in known:
            mask = outside(binary.decode(rle) if rle else np.zeros_like(truth), truth, counted)
            inside = counted.astype(bool)
            known[key] = (
                float(np.count_nonzero(truth & mask & counted)),
                float(np.count_nonzero((truth | mask) & counted)),
                binary.iou(band[inside], binary.boundary(mask)[inside]),
                boundary_accuracy(truth, mask, counted),
            )
        results[side] = known[key]
    return results


def decode_truth(truth: Truth) -> tuple[Mask, Mask]:
    """-> the truth (H, W) uint8 {0, 1}, and the pixels that count (H, W) uint8: 1 outside the ignore region."""
    pixels = binary.decode(truth.mask)
    counted = np.ones_like(pixels) if truth.ignore is None else 1 - binary.decode(truth.ignore)
    return pixels, counted


def outside(mask: Mask, truth: Mask, counted: Mask) -> Mask:
    """`mask`, made equal to `truth` where pixels do not count; all (H, W) uint8 {0, 1}."""
    return np.where(counted, mask, truth).astype(np.uint8)


def boundary_accuracy(truth: Mask, mask: Mask, counted: Mask | None = None) -> float:
    """Share of pixels near the true outline that `mask` has right, averaged over five radii.

    The mean boundary accuracy of CascadePSP (Cheng et al., CVPR 2020): the radii are spaced evenly from 3 px to
    1/300 of width + height (rounded to pixels; all 3 on images where that is less), and the region of a radius is
    every pixel within a disk of that radius of both foreground and background of the truth. The image border is not
    an outline. NaN where no counted pixel is near one.
    """
    height, width = truth.shape
    largest = max(SMALLEST_RADIUS_PX, (height + width) * LARGEST_RADIUS_RATIO)
    radii, times = np.unique(np.linspace(SMALLEST_RADIUS_PX, largest, RADII).round().astype(int), return_counts=True)
    around = binary.box_around(truth, margin_px=2 * int(radii[-1]))  # no pixel beyond is near an outline
    right = (mask == truth)[around]
    counts = np.ones_like(right) if counted is None else counted[around].astype(bool)
    accuracies = []
    for radius in radii:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        near = cv2.morphologyEx(truth[around], cv2.MORPH_GRADIENT, disk).astype(bool) & counts
        accuracies.append(right[near].mean() if near.any() else np.nan)
    return float(np.average(accuracies, weights=times))
