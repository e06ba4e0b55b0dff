"""Pixels of more than 8 bits, or of floats -> 8 bits, as a model expects them. Pure.

An image of 12 bits in a file of 16 is told by its highest value: levels are those of the smallest usual depth that
holds it. Floats in [0, 1] are shares, other ranges are stretched from their lowest to their highest value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DEPTHS = (8, 10, 12, 14, 16)


class Stretched(NamedTuple):
    """(H, W) or (H, W, C) uint8, and what was done to get there; "" where nothing was."""

    pixels: npt.NDArray[np.uint8]
    how: str


def to_8_bits(values: npt.NDArray[Any]) -> Stretched:
    """Numbers of any type -> uint8. NaN becomes 0; infinities are the ends of the range."""
    if values.dtype == np.uint8:
        return Stretched(values, "")
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    bottom, top, how = _range(low, high, np.issubdtype(values.dtype, np.floating))
    scaled = (np.nan_to_num(numbers, nan=bottom, posinf=top, neginf=bottom) - bottom) * (255.0 / (top - bottom))
    return Stretched(np.clip(scaled, 0, 255).astype(np.uint8), how)


def _range(low: float, high: float, floating: bool) -> tuple[float, float, str]:
    """The values that become 0 and 255."""
    if floating and low >= 0 and high <= 1:
        return 0.0, 1.0, "values from 0 to 1 were multiplied by 255"
    depth = next((bits for bits in DEPTHS if low >= 0 and high < 2**bits), None)
    if depth is not None:
        how = "" if depth in (8, 16) else f"values of {depth} bits (up to {high:g}) were scaled to 8"
        return 0.0, 2.0**depth - 1, how
    return low, max(high, low + 1), f"values from {low:g} to {high:g} were stretched to 0 to 255"
