"""Small hand-made cases: rectangles on a 40 x 60 canvas, whose measures can be worked out on paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation.pairing import Prediction, Truth
from pipeline.masks import binary
from pipeline.masks.binary import Mask, Rle

SIZE_HW = (40, 60)


def rectangle(x: int, y: int, width: int, height: int, size_hw: tuple[int, int] = SIZE_HW) -> Mask:
    """(H, W) uint8 mask of one rectangle."""
    mask = np.zeros(size_hw, np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def rle(x: int, y: int, width: int, height: int) -> Rle:
    return binary.encode(rectangle(x, y, width, height))


def truth(annotation_id: str = "1", **changes: Any) -> Truth:
    fields = {
        "annotation_id": annotation_id,
        "image_id": "1",
        "image_name": "a.jpg",
        "source": "all",
        "category": "box",
        "mask": rle(10, 10, 20, 20),
    }
    return Truth(**{**fields, **changes})


def prediction(annotation_id: str = "1", **changes: Any) -> Prediction:
    fields = {"source_mask_id": annotation_id, "image_name": "a.jpg", "mask": rle(10, 10, 20, 20)}
    return Prediction(**{**fields, **changes})
