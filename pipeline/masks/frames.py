"""Frames: how an image's pixels, a model's input and its mask logits map to one another.

A model sees an image with its long side resized to `input_side` and zero-padded to a square at the bottom and right
(segment-anything, `ResizeLongestSide`), or stretched to the whole square (SAM 2 and 3). Coordinate systems follow:

    image    the original pixels, (H, W)
    input    the resized image, `input_hw` inside (input_side, input_side)
    prompt   coordinates of points and boxes, 1024 on a side whatever the model's input is
    mask     the model's mask logits and mask prompts, (mask_side, mask_side)

Pure functions on arrays; the models do their own normalisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

PROMPT_SIDE = 1024
ORIGINAL_SIZE = 0
"""As `input_side`: the model takes images as they are."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """One image's place in a model's square: `size_hw` original pixels, `input_hw` resized pixels."""

    size_hw: tuple[int, int]
    input_side: int
    stretched: bool = False

    @property
    def input_hw(self) -> tuple[int, int]:
        """Resized (h, w): the long side (stretched: both) is `input_side`, the short one rounded half up, not 0."""
        if self.stretched:
            return self.input_side, self.input_side
        height, width = self.size_hw
        scale = self.input_side / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    @property
    def prompt_scale_xy(self) -> FloatArray:
        """(2,) float32: prompt coordinates per image pixel, along x and y."""
        (height, width), (input_h, input_w) = self.size_hw, self.input_hw
        return np.array([input_w / width, input_h / height], np.float32) * np.float32(PROMPT_SIDE / self.input_side)

    @property
    def shrinks_hw(self) -> tuple[bool, bool]:
        """Whether the image has more pixels than the model sees of it, along y and x."""
        (height, width), (input_h, input_w) = self.size_hw, self.input_hw
        return input_h < height, (input_w < width if self.stretched else input_h < height)

    @property
    def input_scale(self) -> float:
        """Input pixels per image pixel along a side; of a stretched image, that of a square of the same area."""
        (height, width), (input_h, input_w) = self.size_hw, self.input_hw
        return math.sqrt(input_h * input_w / (height * width)) if self.stretched else input_h / height

    def to_image_px(self, input_px: float) -> float:
        """A length in input pixels -> image pixels."""
        return input_px / self.input_scale if self.stretched else input_px * self.size_hw[0] / self.input_hw[0]

    def points_to_prompt(self, points_xy: npt.ArrayLike) -> FloatArray:
        """(..., 2) image pixels -> (..., 2) float32 in the prompt frame."""
        return np.asarray(points_xy, np.float32) * self.prompt_scale_xy

    def box_to_prompt(self, box_xyxy: npt.ArrayLike) -> FloatArray:
        """(..., 4) image pixels -> (..., 4) float32 in the prompt frame."""
        return np.asarray(box_xyxy, np.float32) * np.tile(self.prompt_scale_xy, 2)

    def field_to_mask(self, field: npt.ArrayLike, mask_side: int) -> FloatArray:
        """(H, W) float image-sized field -> (mask_side, mask_side) float32, area-averaged, padding 0."""
        input_h, input_w = self.input_hw
        resized = self._resized(np.asarray(field, np.float32))
        square = np.zeros((self.input_side, self.input_side), np.float32)
        square[:input_h, :input_w] = resized
        return np.asarray(cv2.resize(square, (mask_side, mask_side), interpolation=cv2.INTER_AREA), np.float32)

    def _resized(self, field: FloatArray) -> FloatArray:
        """(H, W) -> `input_hw`; an axis at a time where one shrinks and one grows: OpenCV averages both or none."""
        input_h, input_w = self.input_hw
        shrinks_y, shrinks_x = self.shrinks_hw
        if shrinks_y != shrinks_x:
            field = _resize(field, (field.shape[0], input_w), shrinks_x)
        return _resize(field, (input_h, input_w), shrinks_y)

    def logits_to_image(self, logits: npt.ArrayLike) -> FloatArray:
        """(mask_side, mask_side) logits -> (H, W) float32, bilinear, padding cropped (as Sam.postprocess_masks).

        Stretched ones in one step (as SAM 2's SAM2Transforms.postprocess_masks).
        """
        (height, width), (input_h, input_w) = self.size_hw, self.input_hw
        if self.stretched:
            return _resize(np.asarray(logits, np.float32), self.size_hw, shrinks=False)
        square = cv2.resize(
            np.asarray(logits, np.float32), (self.input_side, self.input_side), interpolation=cv2.INTER_LINEAR
        )
        cropped = square[:input_h, :input_w]
        return np.asarray(cv2.resize(cropped, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _resize(field: FloatArray, size_hw: tuple[int, int], shrinks: bool) -> FloatArray:
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(field, size_hw[::-1], interpolation=how), np.float32)


def resized_hw(
    size_hw: tuple[int, int], input_side: int, stretched: bool = False, at_most: bool = False
) -> tuple[int, int]:
    """(h, w) of an image (H, W) whose long side (stretched: each side) is made `input_side`; its own for ORIGINAL_SIZE.

    at_most: where its long side is not that already; it keeps its shape then.
    """
    if input_side == ORIGINAL_SIZE or (at_most and max(size_hw) <= input_side):
        return size_hw
    return Frame(size_hw, input_side, stretched and not at_most).input_hw


def resize_to_input(
    image_rgb: npt.NDArray[np.uint8],
    input_side: int,
    size_hw: tuple[int, int] | None = None,
    stretched: bool = False,
    at_most: bool = False,
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (h, w, 3) uint8 whose long side (stretched: each side) is `input_side`; unchanged for
    ORIGINAL_SIZE.

    size_hw: the image's own size, where the pixels are a reduction of it. at_most: see `resized_hw`. Resized by
    Pillow's bilinear filter (which averages when it shrinks), as segment-anything's reference does.
    """
    height, width = image_rgb.shape[:2]
    input_h, input_w = resized_hw(size_hw or (height, width), input_side, stretched, at_most)
    if (input_h, input_w) == (height, width):
        return image_rgb
    resized = Image.fromarray(image_rgb).resize((input_w, input_h), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8)


def tight_box_xyxy(mask: npt.NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """Inclusive box (x1, y1, x2, y2) of the foreground of an (H, W) mask in pixels; None when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
