"""What refiners take and give."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Rle
from pipeline.masks.frames import FloatArray, Frame


class RefineImage(NamedTuple):
    """One image: `pixels` (h, w, 3) uint8 RGB at the model's input size, its Frame, and non-empty coarse masks."""

    pixels: npt.NDArray[np.uint8]
    frame: Frame
    coarse: list[Rle]


class RefinedMask(NamedTuple):
    """A refined mask in original pixels (it may be empty) and its score components (schemas/records.py, SCORES).

    A component that the refiner cannot know is NaN, or absent. logits: (mask_side, mask_side) float32 of the whole
    image, by which masks that claim the same pixel are compared; None unless the method asks for it
    (`refiners/semantic.py`).
    """

    rle: Rle
    scores: dict[str, float]
    logits: FloatArray | None = None
