"""Label Studio's run-length code of brush regions. Pure; `pipeline/exports/label_studio.py` writes it.

A stream of bits: 32 number of values, 5 word size - 1, four times 4 run size - 1; then for each run a bit that says
whether one value is repeated or as many follow, two that choose the run size, length - 1, value or values. The values
are an image's R, G, B, A, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import MaskError

WORD_BITS = 8
CHANNELS = 4
MAX_VALUES = 1 << 28


def decode(code: Sequence[Any], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Bytes -> (H, W) uint8, alpha. Raises MaskError for what is no code of an image of that size."""
    try:
        bits = _Bits(bytes(code))
    except (TypeError, ValueError):
        raise MaskError("mask_unreadable", "rle: it is no list of bytes") from None
    count, word_bits = bits.take(32), bits.take(5) + 1
    if count != CHANNELS * size_hw[0] * size_hw[1] or word_bits != WORD_BITS or count > MAX_VALUES:
        raise MaskError("mask_unreadable", f"rle: {count} values of {word_bits} bits for {size_hw[0]}x{size_hw[1]}")
    sizes = [bits.take(4) + 1 for _ in range(4)]
    values, at = np.zeros(count, np.uint8), 0
    while at < count:
        repeated, size = bits.take(1), sizes[bits.take(2)]
        end = at + bits.take(size) + 1
        if end > count:
            raise MaskError("mask_unreadable", f"rle: its runs cover more than {count} values")
        values[at:end] = bits.take(WORD_BITS) if repeated else bits.take_bytes(end - at)
        at = end
    return np.ascontiguousarray(values.reshape(*size_hw, CHANNELS)[..., -1])


class _Bits:
    """A stream of bits, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> int:
        """The next `count` bits as a number. Raises MaskError at the end."""
        end = self._at + count
        self._check(end)
        part = int.from_bytes(self._data[self._at >> 3 : (end + 7) >> 3], "big")
        self._at = end
        return (part >> (-end % 8)) & ((1 << count) - 1)

    def take_bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """The next `count` bytes, wherever they begin."""
        start, end = self._at, self._at + 8 * count
        self._check(end)
        bits = np.unpackbits(np.frombuffer(self._data[start >> 3 : (end + 7) >> 3], np.uint8))
        self._at = end
        return np.packbits(bits[start % 8 : start % 8 + 8 * count])

    def _check(self, end: int) -> None:
        if end > 8 * len(self._data):
            raise MaskError("mask_unreadable", "rle: it ends inside a run")
