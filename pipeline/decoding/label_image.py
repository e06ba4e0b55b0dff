"""A mask image -> labels, and what its pixels are: one mask with hard or soft edges, labels, or colours.

Soft edges (anti-aliasing, JPEG) are levels between background and object. Such an image is one mask, cut half-way;
its levels are no labels. They are told by shape: between the two extremes lie thin bands only, while a label fills
areas. Where the format itself loses pixels (JPEG, lossy WebP) no label can be trusted, only black and white.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.decoding import raster
from pipeline.decoding.decode import short
from pipeline.errors import ImageError, MaskError

MAX_MASK_PIXELS = 120_000_000
LARGE_PIXELS = 16_000_000  # images above it are decoded one at a time
MAX_LABELS = 1000  # of an image whose labels cover hardly a pixel each
CUT = 128
NEAR_WHITE = 240
VOID = 255
THIN_SHARE = 0.02  # of the pixels of soft edges, at most so many lie inside an area of one level
FEW_LEVELS = 3
PHOTOGRAPH_LEVELS, PHOTOGRAPH_SHARE = 100, 0.1
_ONE_LARGE = threading.Lock()

Labels = npt.NDArray[Any]


class LabelImage(NamedTuple):
    """labels: (H, W) integers of any width, not negative, read-only.

    cut: where one mask has soft edges, the level from which on a pixel belongs to it; else None. colours: the labels
    are packed colours (R + 256 G + 65536 B). note: what a person may want to know of how it was read, "" for nothing.
    """

    labels: Labels
    cut: int | None = None
    colours: bool = False
    note: str = ""

    @property
    def values(self) -> list[int]:
        """The labels that occur, sorted, without 0."""
        return [int(value) for value in np.unique(self.labels) if value != 0]

    def mask(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool: every pixel that is not background."""
        return np.asarray(self.labels != 0 if self.cut is None else self.labels >= self.cut)


@lru_cache(maxsize=2)
def read(data: bytes, packed: bool = False) -> LabelImage:
    """A mask image -> its labels: palette indices of a PNG, grey values, alpha, or packed colours.

    packed: RGB is R + 256 G + 65536 B even where the three are equal. Raises MaskError when it cannot be decoded. The
    last images are remembered: each mask of an image asks for the same file.
    """
    found = _read(data, packed)
    found.labels.flags.writeable = False
    return found


def _read(data: bytes, packed: bool) -> LabelImage:
    size = raster.size_hw(data) or (0, 0)
    try:
        with _ONE_LARGE if size[0] * size[1] > LARGE_PIXELS else nullcontext():
            image = raster.read(data, MAX_MASK_PIXELS, _check_frames)
            return _interpret(image, _is_lossy(image, data), packed)
    except (MaskError, MemoryError):  # the second is no property of the file
        raise
    except ImageError as error:
        raise MaskError("mask_unreadable", error.detail) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise MaskError("mask_unreadable", short(error)) from None


def _interpret(image: Image.Image, lossy: bool, packed: bool) -> LabelImage:
    pixels, alpha = _pixels(image)
    if alpha is not None and _is_flat(pixels) and not packed:
        return _levels(alpha, lossy, "alpha: the mask is the alpha channel")
    if image.mode == "P" and pixels.ndim == 2:
        return LabelImage(pixels)  # places in a palette: no levels
    if pixels.ndim == 2:
        return _levels(_whole(pixels), lossy, "")
    red, green, blue = (pixels[..., channel] for channel in range(3))
    if not packed and bool((red == green).all() and (green == blue).all()):
        return _levels(red, lossy, "")
    if lossy:
        raise MaskError("mask_unreadable", f"colours in {image.format}, which does not keep them: no labels")
    labels = red.astype(np.uint32) + (green.astype(np.uint32) << 8) + (blue.astype(np.uint32) << 16)
    _check_is_no_photograph(labels)
    return LabelImage(labels, colours=True)


def _check_frames(image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "PNG":
        raise MaskError("mask_unreadable", f"{image.format} of {frames} frames: which of them is the mask?")


def _pixels(image: Image.Image) -> tuple[Labels, Labels | None]:
    """(H, W) or (H, W, 3), and the alpha channel where there is one."""
    if image.mode == "P" and image.format != "PNG":  # the order of the palette is the encoder's business
        image = image.convert("RGB")
    if image.mode in ("RGBA", "LA"):
        return np.asarray(image.convert("RGB")), np.asarray(image.getchannel("A"))
    if image.mode in ("1", "L", "P", "I", "F", "RGB") or image.mode.startswith("I;16"):
        return np.asarray(image), None
    return np.asarray(image.convert("RGB")), None


def _is_flat(pixels: Labels) -> bool:
    """Whether there is one colour and no other."""
    return bool((pixels == pixels[:1, :1]).all())


def _whole(values: Labels) -> Labels:
    """Floats as integers: levels of [0, 1] times 255 where they are no whole numbers. Raises MaskError."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=-1.0, neginf=-1.0)
        low, high = float(numbers.min(initial=0)), float(numbers.max(initial=0))
        if not (numbers == np.rint(numbers)).all():
            if not 0 <= low <= high <= 1:
                raise MaskError("mask_unreadable", f"values from {low:g} to {high:g}: neither labels nor shares")
            numbers = np.rint(numbers * 255)
        values = numbers.astype(np.int64)
    if values.size and int(values.min()) < 0:
        raise MaskError("mask_unreadable", f"a label below 0: {int(values.min())}")
    return values


def _levels(values: Labels, lossy: bool, note: str) -> LabelImage:
    """Grey values as a mask with soft edges, or as labels."""
    if lossy:
        return _cut_lossy(values, note)
    if values.size and int(values.max()) <= VOID:
        grey = values.astype(np.uint8)
        between = (grey > 0) & (grey < VOID)
        number = int(np.count_nonzero(between))
        if number and _is_soft(grey, between, number):
            soft = f"soft edges: {number} pixels are neither 0 nor 255, cut at {CUT}"
            return LabelImage(grey, CUT, note="; ".join(filter(None, (note, soft))))
    return LabelImage(values, note=note)


def _cut_lossy(values: Labels, note: str) -> LabelImage:
    """JPEG and its like: black and white with artefacts, or nothing that can be told apart."""
    top = int(values.max(initial=0))
    between = int(np.count_nonzero((values > 0) & (values < VOID)))
    if between == 0:
        return LabelImage(values, note=note)
    if top < NEAR_WHITE:
        raise MaskError(
            "mask_unreadable",
            f"grey values up to {top} in a lossy format: labels are not kept by it, only black and white",
        )
    lossy = f"artefacts of a lossy format: {between} pixels are neither 0 nor 255, cut at {CUT}"
    return LabelImage(values, CUT, note="; ".join(filter(None, (note, lossy))))


def _is_soft(grey: npt.NDArray[np.uint8], between: npt.NDArray[np.bool_], number: int) -> bool:
    """Whether the levels between are edges: white has an area of its own, and no level between has one.

    Raises MaskError for a photograph: many levels, and areas of none.
    """
    levels = int(np.count_nonzero(np.bincount(grey[between], minlength=256)))
    if levels < FEW_LEVELS and not (grey[between] >= NEAR_WHITE).any():
        return False
    kernel = np.ones((3, 3), np.uint8)
    inside = np.asarray(cv2.erode(grey, kernel) == cv2.dilate(grey, kernel))  # the eight around have its value
    if levels >= PHOTOGRAPH_LEVELS and np.count_nonzero(inside) < PHOTOGRAPH_SHARE * grey.size:
        raise MaskError("mask_unreadable", f"{levels} levels of grey and hardly an area of one: a photograph, no mask")
    is_white = bool(inside[grey == VOID].any())
    return is_white and int(np.count_nonzero(inside & between)) <= THIN_SHARE * number


def _check_is_no_photograph(labels: Labels) -> None:
    """Raise MaskError for colours of which nearly every pixel has one of its own."""
    number = len(np.unique(labels))
    if number > MAX_LABELS and number * 4 > labels.size:
        raise MaskError("mask_unreadable", f"{number} colours in {labels.size} pixels: a photograph, no mask")


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    return image.format in ("JPEG", "MPO", "AVIF") or (image.format == "WEBP" and b"VP8L" not in data[:64])
