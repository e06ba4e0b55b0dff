"""How sure a figure is: images are drawn again with replacement, and every mask goes with its image.

Masks of one image share its difficulty, so they are no independent evidence. All figures of one data set are
computed on the same draws: the difference of two of them is a paired difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.measures import Floats, Integers

INTERVAL = (2.5, 97.5)  # percentiles: a 95 % interval


@dataclass(frozen=True)
class Figure:
    """A figure and what it became on each of B draws of the images; NaN where it is undefined.

    value   on the data as they are
    draws   (B,) float64
    """

    value: float
    draws: Floats

    def __sub__(self, other: Figure) -> Figure:
        return Figure(self.value - other.value, self.draws - other.draws)

    def __truediv__(self, other: Figure) -> Figure:
        with np.errstate(invalid="ignore", divide="ignore"):
            return Figure(float(np.divide(self.value, other.value)), self.draws / other.draws)

    def interval(self) -> tuple[float, float]:
        """Percentile interval (low, high), 95 %; NaN when no draw defines the figure."""
        defined = self.draws[np.isfinite(self.draws)]
        if not len(defined):
            return float("nan"), float("nan")
        low, high = np.percentile(defined, INTERVAL)
        return float(low), float(high)


def mean_figure(figures: Sequence[Figure]) -> Figure:
    """The mean of the same figure of independent data sets, each drawn on its own; undefined ones are left out."""
    defined = [figure for figure in figures if np.isfinite(figure.value)]
    if not defined:
        return figures[0]
    return Figure(
        float(np.mean([figure.value for figure in defined])), np.mean([figure.draws for figure in defined], axis=0)
    )


class ImageBootstrap:
    """B draws of the images of N masks. `image`: (N,) int64, equal for masks of one image."""

    def __init__(self, image: Integers, replicates: int = 1000, seed: int = 0) -> None:
        images, self._image = np.unique(image, return_inverse=True)
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(images), size=(replicates, len(images)))
        drawn += np.arange(replicates)[:, None] * len(images)  # so that one bincount counts each draw by itself
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        # how often each image is in each draw: (B, images)
        self._times: npt.NDArray[np.float32] = times.astype(np.float32)

    def ratio(self, numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Figure:
        """Sum of `numerator` over sum of `denominator`, (N,) each; masks where either is NaN are left out."""
        above, below = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
        defined = np.isfinite(above) & np.isfinite(below)
        above, below = np.where(defined, above, 0.0), np.where(defined, below, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return Figure(
                float(np.divide(above.sum(), below.sum())),
                (self._times @ self._per_image(above)) / (self._times @ self._per_image(below)),
            )

    def mean(self, values: npt.ArrayLike) -> Figure:
        """Mean of (N,) `values` over masks; NaN is left out."""
        values = np.asarray(values, np.float64)
        return self.ratio(values, np.ones_like(values))

    def statistic(self, function: Callable[[Integers], float]) -> Figure:
        """Any `function` of the rows drawn (with repeats): slower, for what is not a ratio of sums."""
        everything = np.arange(len(self._image))
        draws = [function(np.repeat(everything, times[self._image].astype(np.int64))) for times in self._times]
        return Figure(function(everything), np.array(draws, dtype=np.float64))

    def _per_image(self, values: Floats) -> Floats:
        sums = np.bincount(self._image, weights=values, minlength=self._times.shape[1])
        return np.asarray(sums, dtype=np.float64)
