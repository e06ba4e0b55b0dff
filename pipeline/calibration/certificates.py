"""What can be promised of masks above a quality: Learn then Test (Angelopoulos et al., 2021), images as the sample.

For each quality of a grid fixed beforehand, the null hypothesis is that among masks of at least that quality more than
1 - share fall short of an IoU. Each image counts once, by the share of its masks that do, so masks of one image
are not taken for independent evidence. Its p-value is Hoeffding's and Bentkus' bound (valid for any distribution on
[0, 1] and any number of images); Bonferroni over the whole grid makes all certificates hold together. What this cannot
show is called not certifiable, never true or false.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.calibration import Certificate

Floats = npt.NDArray[np.float64]

QUALITY_GRID = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
DEFAULT_IOUS = (0.7, 0.8, 0.9)
DEFAULT_SHARE, DEFAULT_CONFIDENCE = 0.9, 0.9


def certify(
    quality: Floats,
    iou: Floats,
    image: npt.NDArray[np.int64],
    *,
    ious: Sequence[float] = DEFAULT_IOUS,
    share: float = DEFAULT_SHARE,
    confidence: float = DEFAULT_CONFIDENCE,
) -> list[Certificate]:
    """One certificate for each IoU and each quality of the grid.

    quality, iou: (N,) of the masks that were kept; image: (N,) equal for masks of one image. The three must not have
    been used to fit `quality`, and images must be a random sample of those that the promise is about.
    """
    limit = _limit(len(ious), confidence)
    certificates = []
    for wanted in ious:
        for threshold in QUALITY_GRID:
            chosen = quality >= threshold
            short = shares_by_image(iou[chosen] < wanted, image[chosen])
            p_value = hoeffding_bentkus(float(short.mean()), len(short), 1 - share) if len(short) else 1.0
            certificates.append(
                Certificate(
                    quality=threshold,
                    share=share,
                    iou=wanted,
                    images=len(short),
                    masks=int(chosen.sum()),
                    observed=round(1 - float(short.mean()), 4) if len(short) else None,
                    p_value=round(p_value, 6),
                    certified=p_value <= limit,
                )
            )
    return certificates


def images_needed(ious: int, share: float, confidence: float) -> int:
    """How many images a certificate takes at least, if none of their masks falls short. ious: how many are asked."""
    return math.ceil(math.log(_limit(ious, confidence)) / math.log(share))


def _limit(ious: int, confidence: float) -> float:
    return (1 - confidence) / max(1, len(QUALITY_GRID) * ious)


def shares_by_image(happened: npt.NDArray[np.bool_], image: npt.NDArray[np.int64]) -> Floats:
    """For each image that has masks, the share of them for which it happened."""
    _, index = np.unique(image, return_inverse=True)
    return np.bincount(index, weights=happened) / np.maximum(np.bincount(index), 1)


def hoeffding_bentkus(mean: float, count: int, risk: float) -> float:
    """p-value of "the expected loss exceeds `risk`" from `count` independent losses in [0, 1] with this mean."""
    from scipy.special import bdtr  # the binomial distribution function; slow to import

    below = min(mean, risk)
    hoeffding = math.exp(-count * _divergence(below, risk))
    bentkus = math.e * float(bdtr(math.ceil(count * mean - 1e-9), count, risk))
    return min(1.0, hoeffding, bentkus)


def _divergence(a: float, b: float) -> float:
    """Kullback-Leibler divergence of Bernoulli(a) from Bernoulli(b), 0 < b < 1."""
    first = a * math.log(a / b) if a > 0 else 0.0
    second = (1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0
    return first + second
