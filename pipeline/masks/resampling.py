"""Separable resampling by sums of few terms: the same sums in the same order on every machine.

A product with a matrix would do, but BLAS sums in an order that depends on its threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.masks.frames import FloatArray

LEAST_MEAN = 1e-9
"""A smaller mean of cells is what rounding left of nothing; whether one is above 0 matters (gaussian_logits)."""

Floats = npt.NDArray[np.floating[Any]]


class Taps(NamedTuple):
    """Along one axis, each new value is a sum of old ones: `source` and `weight`, (new values, terms) both."""

    source: npt.NDArray[np.int64]
    weight: FloatArray


def upsampling(places_px: Floats, extent: int, within: int, input_side: int, side: int) -> Taps:
    """From `side` logits to `input_side` pixels of the model's input, of which `within` show the image's `extent`.

    As two bilinear interpolations, at places of the image, (N,).
    """
    outer = bilinear((places_px + 0.5) * (within / extent) - 0.5, within)
    inner = bilinear((outer.source + 0.5) * (side / input_side) - 0.5, side)
    return Taps(inner.source.reshape(len(places_px), -1), (inner.weight * outer.weight[..., None]).reshape(-1, 4))


def bilinear(places: Floats, size: int) -> Taps:
    """Interpolation between `size` values, the outermost of which go on for ever; places (...,), terms last."""
    inside = np.clip(places, 0, size - 1)
    first = np.floor(inside).astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    share = (inside - first).astype(np.float32)
    return Taps(np.stack([first, second], -1), np.stack([1 - share, share], -1))


def resampled(values: FloatArray, rows: Taps, columns: Taps) -> FloatArray:
    """(h, w) float32 -> (new rows, new columns) float32."""
    first, last = int(columns.source.min()), int(columns.source.max()) + 1
    by_row = _summed(values[:, first:last], rows)
    by_column = _summed(np.ascontiguousarray(by_row.T), columns._replace(source=columns.source - first))
    return np.ascontiguousarray(by_column.T)


def means(values: FloatArray, edges: Floats) -> FloatArray:
    """(n, m) -> (stretches, m): means of rows, 0 outside, between edges in rows that are equally far apart."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    inside = np.clip(edges, 0, len(values))
    whole = np.minimum(inside.astype(np.int64), len(values) - 1)
    until = sums[whole] + values[whole] * (inside - whole)[:, None]
    means = np.diff(until, axis=0) / (edges[1] - edges[0])
    return np.where(means < LEAST_MEAN, 0, means).astype(np.float32)


def _summed(values: FloatArray, taps: Taps) -> FloatArray:
    terms = zip(taps.source.T, taps.weight.T, strict=True)
    index, weight = next(terms)
    total = values[index] * weight[:, None]
    for index, weight in terms:
        total += values[index] * weight[:, None]
    return total
