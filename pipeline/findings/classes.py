"""Masks that look like another class than their own, told by their embeddings. Pure.

A class is the mean of its masks' embeddings, where directions in which masks of one class differ count less (linear
discriminant analysis, its covariance shrunk). A mask is held against the mean of the others of its class: where another
class's mean is nearer, in cosines, one of the two is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FEWEST = 5
"""Masks of a class, without which nothing is said of it."""

SHRINKAGE = 0.1  # of the covariance within classes, towards one that is the same in all directions
ROWS = 8192  # at once

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Misfit(NamedTuple):
    """Mask number `mask` looks like class `other`: cosines with that and with the others of its own."""

    mask: int
    other: str
    alike: float
    own: float


def misfits(embeddings: Floats, names: Sequence[str]) -> Iterator[Misfit]:
    """Of N masks, in order. embeddings: (N, C), read some thousand rows at once; names: of their classes."""
    classes = sorted(name for name, count in Counter(names).items() if count >= FEWEST)
    if len(classes) < 2:
        return
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([places.get(name, -1) for name in names], np.int64)
    centre, whiten = _discriminant(embeddings, labels, len(classes))
    sums = np.zeros((len(classes), len(centre)))
    for rows, own in _known(labels):
        np.add.at(sums, own, _unit((embeddings[rows] - centre) @ whiten))
    for rows, own in _known(labels):
        vectors = _unit((embeddings[rows] - centre) @ whiten)
        alike = vectors @ _unit(sums).T
        at = np.arange(len(rows)), own
        alike[at] = (vectors * _unit(sums[own] - vectors)).sum(axis=1)  # without itself
        for row, best, cosines, mine in zip(rows, alike.argmax(axis=1), alike, alike[at], strict=True):
            if cosines[best] > mine:
                yield Misfit(int(row), classes[best], float(cosines[best]), float(mine))


def _known(labels: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Numbers and classes of the masks whose class has one, ROWS at once."""
    for start in range(0, len(labels), ROWS):
        rows = start + np.flatnonzero(labels[start : start + ROWS] >= 0)
        if len(rows):
            yield rows, labels[rows]


def _discriminant(embeddings: Floats, labels: Integers, count: int) -> tuple[Doubles, Doubles]:
    """(C,) mean and (C, C) map, after which masks of one class differ as much in all directions."""
    channels = embeddings.shape[1]
    sums, products, masks = np.zeros((count, channels)), np.zeros((channels, channels)), np.zeros(count)
    for rows, own in _known(labels):
        vectors = np.asarray(embeddings[rows], np.float64)
        np.add.at(sums, own, vectors)
        np.add.at(masks, own, 1)
        products += vectors.T @ vectors
    within = (products - (sums / masks[:, None]).T @ sums) / masks.sum()
    even = np.eye(channels) * max(float(np.trace(within)) / channels, 1e-12)
    scales, directions = np.linalg.eigh((1 - SHRINKAGE) * within + SHRINKAGE * even)
    return sums.sum(axis=0) / masks.sum(), directions / np.sqrt(scales)


def _unit(vectors: Doubles) -> Doubles:
    """(N, C), each of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
