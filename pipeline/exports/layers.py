"""The masks of one image, one upon another, where a pixel can have one of them: the smaller is on top.

So a segment that lies inside another one is seen, an eye in a face. Crowd regions are at the bottom; among equals, the
mask of the higher quality is on top. Pure: rows in, an array out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.dataset.by_image import Row
from pipeline.exports.types import Piece
from pipeline.masks import binary

Layers = npt.NDArray[np.uint32]


def paint(masks: Sequence[Row], size_hw: tuple[int, int]) -> Layers:
    """(H, W) uint32: the place of the mask on top among `masks`, from 1; 0 where there is none."""
    places = np.zeros(size_hw, np.uint32)
    for place, mask in sorted(enumerate(masks, 1), key=lambda pair: rank(pair[1])):
        places[binary.decode(mask["mask_rle"]) > 0] = place
    return places


def rank(mask: Row) -> tuple[bool, int, float, str]:
    """What is painted first."""
    quality = -1.0 if mask["quality"] is None else mask["quality"]
    return not mask.get("crowd"), -mask["area"], quality, mask["mask_id"]


def visible_areas(places: Layers, count: int) -> list[int]:
    """Pixels of each of `count` masks that are seen."""
    found: list[int] = np.bincount(places.ravel(), minlength=count + 1)[1:].tolist()
    return found


def count_hidden(masks: Sequence[Row], places: Layers, piece: Piece) -> None:
    """Count in `piece` what is not seen."""
    visible = visible_areas(places, len(masks))
    piece.lose("pixels under another mask", sum(mask["area"] for mask in masks) - sum(visible))
    piece.lose("masks wholly under others", visible.count(0))
