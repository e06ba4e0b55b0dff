"""At which size images are loaded for a method, and as which each of several models sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.masks.frames import resize_to_input
from pipeline.models import frame_for
from pipeline.refiners.types import RefineImage
from schemas.config import Method


def load_side(method: Method, input_side: int) -> int:
    """The long side at which images are loaded for a model of `input_side`; for crops, at most, or ORIGINAL_SIZE."""
    return method.crop_sides * input_side if looks_closer(method) else input_side


def looks_closer(method: Method) -> bool:
    """Whether crops are looked at: images are loaded with more pixels than a model sees, where they have them."""
    return method.crop_ratio > 0


def load_pixels(
    method: Method,
    pixels: npt.NDArray[np.uint8],
    input_side: int,
    stretched: bool = False,
    size_hw: tuple[int, int] | None = None,
) -> npt.NDArray[np.uint8]:
    """An image's pixels (H, W, 3) uint8 as they are loaded for a model of `input_side`. size_hw: the image's, where
    `pixels` are a reduction of it."""
    return resize_to_input(pixels, load_side(method, input_side), size_hw, stretched, looks_closer(method))


def seen_by(model: Any, images: Sequence[RefineImage], method: Method) -> list[tuple[Any, Sequence[RefineImage]]]:
    """Each model that is to be asked, with the images as they are loaded for it: one, or an Ensemble's members."""
    members = getattr(model, "members", ())
    return [(member, [_for(member, image, method) for image in images]) for member in members] or [(model, images)]


def _for(member: Any, image: RefineImage, method: Method) -> RefineImage:
    frame = frame_for(member, image.frame.size_hw)
    pixels = load_pixels(method, image.pixels, frame.input_side, frame.stretched, frame.size_hw)
    return image._replace(pixels=pixels, frame=frame)
