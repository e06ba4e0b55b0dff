"""A mask image -> labels, and what its pixels are: one mask with hard or soft edges, labels, or colours.

Soft edges (anti-aliasing, JPEG) are levels between background and object. Such an image is one mask, cut half-way;
its levels are no labels. They are told by shape: between the two extremes lie thin bands only, while a label fills
areas. Where the format itself loses pixels (JPEG, lossy WebP) no label can be trusted, only black and white. What
palettes and transparency say is in `palettes.py`, what 255 means beside other labels in `void.py`.
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

from pipeline.decoding import palettes, raster
from pipeline.decoding.decode import short
from pipeline.decoding.levels import DEPTHS
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
DEEP_WHITE = frozenset((*(2**bits - 1 for bits in DEPTHS if bits > 8), VOID << 8))  # of more than 8 bits
LOSSY_BLACK, LOSSY_FLAT, LOSSY_SHARP = 24, 12, 96  # artefacts on black and in an area of one grey; a drawn edge
LOSSY_LEVEL, LOSSY_AROUND, LOSSY_PEAK = 17, 65, 4  # levels of one grey, of it and those around, and how many times them
LOSSY_AREA = 32
_ONE_LARGE = threading.Lock()

Labels = npt.NDArray[Any]


class LabelImage(NamedTuple):
    """labels: (H, W) integers of any width, not negative, read-only.

    cut: where one mask has soft edges, the level from which on a pixel belongs to it; else None. colours: the labels
    are packed colours (R + 256 G + 65536 B). note: what a person may want to know of how it was read, "" for nothing.
    greys: the labels are the greys of a palette, not the places in it. odd: as note, of what the masks do not show.
    """

    labels: Labels
    cut: int | None = None
    colours: bool = False
    note: str = ""
    greys: bool = False
    odd: str = ""

    @property
    def values(self) -> list[int]:
        """The labels that occur, sorted, without 0."""
        return [int(value) for value in np.unique(self.labels) if value != 0]

    def mask(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool: every pixel that is not background."""
        return np.asarray(self.labels != 0 if self.cut is None else self.labels >= self.cut)


@lru_cache(maxsize=2)
def read(data: bytes, packed: bool = False, greys: bool = False) -> LabelImage:
    """A mask image -> its labels: palette indices of a PNG, grey values, alpha, or packed colours.

    packed: RGB is R + 256 G + 65536 B even where the three are equal. greys: a palette of greys is a grey image, where
    black is the background; else its indices count. Raises MaskError when it cannot be decoded. The last images are
    remembered: each mask of an image asks for the same file.
    """
    found = _read(data, packed, greys)
    found.labels.flags.writeable = False
    return found


def of_values(values: Labels) -> LabelImage:
    """(H, W) numbers that came as such, as those of a grey mask image. Raises MaskError."""
    return _levels(_whole(values), lossy=False, note="")


def _read(data: bytes, packed: bool, greys: bool) -> LabelImage:
    size = raster.size_hw(data) or (0, 0)
    try:
        with _ONE_LARGE if size[0] * size[1] > LARGE_PIXELS else nullcontext():
            image = raster.read(data, MAX_MASK_PIXELS, _check_frames)
            lossy = _is_lossy(image, data)
            if image.mode == "P" and image.format == "PNG":
                return _indexed(image, packed, greys)
            return _interpret(image, lossy, packed)
    except (MaskError, MemoryError):  # the second is no property of the file
        raise
    except ImageError as error:
        raise MaskError("mask_unreadable", error.detail) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise MaskError("mask_unreadable", short(error)) from None


def _indexed(image: Image.Image, packed: bool, by_greys: bool) -> LabelImage:
    """Places in a palette, or its greys where these are what was drawn."""
    places = np.asarray(image)
    palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    shades = palettes.greys(places, palette)
    if shades is None or packed or not by_greys:
        odd = palettes.BLACK_ELSEWHERE if palettes.is_black_elsewhere(places, palette) else ""
        return LabelImage(places, odd=odd)
    if shades.is_ordered:
        found = _soft(shades.pixels, "")
        return LabelImage(places) if found is None else found._replace(greys=True)
    if "transparency" in image.info:
        return _interpret(image.convert("RGBA"), False, packed)._replace(greys=True)
    return _levels(shades.pixels, False, "")._replace(greys=True)


def _interpret(image: Image.Image, lossy: bool, packed: bool) -> LabelImage:
    pixels, alpha = _pixels(image)
    if alpha is None or packed:
        return _of_pixels(pixels, image, lossy, packed)
    shown = None if _is_flat(pixels) else palettes.without_hidden(pixels, alpha)
    if shown is None:
        return _levels(alpha, lossy, "alpha: the mask is the alpha channel")
    found = _of_pixels(shown.pixels, image, lossy, packed)
    return found._replace(note="; ".join(filter(None, (shown.note, found.note))), odd=shown.odd)


def _of_pixels(pixels: Labels, image: Image.Image, lossy: bool, packed: bool) -> LabelImage:
    """(H, W) levels, or (H, W, 3) colours, as labels."""
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
    if image.mode == "P":  # the order of the palette is the encoder's business
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("RGBA", "LA", "PA"):
        return np.asarray(image.convert("RGB")), np.asarray(image.getchannel("A"))
    if image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16"):
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
    """Grey values as a mask with soft edges, or as labels. Raises MaskError for a photograph."""
    if lossy:
        return _cut_lossy(values, note)
    _check_is_no_grey_photograph(values)
    return _soft(values, note) or LabelImage(values, note=note)


def _soft(values: Labels, note: str) -> LabelImage | None:
    """Grey values of 8 bits or more as one mask, where its edges are soft."""
    scaled = _in_8_bits(values)
    if scaled is None:
        return None
    grey, white = scaled
    between = (grey > 0) & (grey < VOID)
    number = int(np.count_nonzero(between))
    if not number or not _is_soft(grey, between, number):
        return None
    cut = -(-CUT * white // VOID)
    soft = f"soft edges: {number} pixels are neither 0 nor {white}, cut at {cut}"
    return LabelImage(values, cut, note="; ".join(filter(None, (note, soft))))


def _in_8_bits(values: Labels) -> tuple[npt.NDArray[np.uint8], int] | None:
    """(H, W) levels, and what white is; None for what is no grey of a usual depth."""
    top = int(values.max()) if values.size else 0
    if top <= VOID:
        return values.astype(np.uint8), VOID
    if top not in DEEP_WHITE:
        return None
    return (values.astype(np.uint32) * VOID // top).astype(np.uint8), top


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
    level = _level_of_an_area(values)
    if level is not None:
        raise MaskError(
            "mask_unreadable",
            f"an area of grey, about {level}, beside white in a lossy format: labels are not kept by it, only black "
            "and white; save it as PNG",
        )
    lossy = f"artefacts of a lossy format: {between} pixels are neither 0 nor 255, cut at {CUT}"
    return LabelImage(values, CUT, note="; ".join(filter(None, (note, lossy))))


def _level_of_an_area(values: Labels) -> int | None:
    """The grey between black and white that fills an area of a lossy image with sharp edges; None where none does.

    The greys of wide gradients are spread, and those of artefacts lie along edges.
    """
    grey = values.astype(np.uint8)
    if np.count_nonzero(_range(grey, 3) >= LOSSY_SHARP) < LOSSY_AREA:
        return None
    flat = (grey > LOSSY_BLACK) & (grey < VOID - LOSSY_BLACK) & (_range(grey, 5) <= LOSSY_FLAT)
    levels = np.bincount(grey[flat], minlength=VOID + 1)
    near = np.convolve(levels, np.ones(LOSSY_LEVEL), "same")
    around = np.convolve(levels, np.ones(LOSSY_AROUND), "same") - near
    peak = near / LOSSY_LEVEL > LOSSY_PEAK * around / (LOSSY_AROUND - LOSSY_LEVEL)
    found = np.where(peak & (near >= LOSSY_AREA), near, 0)
    return int(np.median(np.flatnonzero(found == found.max()))) if found.any() else None


def _range(grey: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """(H, W): the highest minus the lowest level in the square around each pixel."""
    kernel = np.ones((side, side), np.uint8)
    return np.asarray(cv2.dilate(grey, kernel) - cv2.erode(grey, kernel), np.uint8)


def _is_soft(grey: npt.NDArray[np.uint8], between: npt.NDArray[np.bool_], number: int) -> bool:
    """Whether the levels between are edges: white has an area of its own, and no level between has one."""
    if _number_of_levels(grey[between]) < FEW_LEVELS and not (grey[between] >= NEAR_WHITE).any():
        return False
    inside = _range(grey, 3) == 0  # the eight around have its value
    is_white = bool(inside[grey == VOID].any())
    return is_white and int(np.count_nonzero(inside & between)) <= THIN_SHARE * number


def _number_of_levels(grey: npt.NDArray[np.uint8]) -> int:
    return int(np.count_nonzero(np.bincount(grey.ravel(), minlength=VOID + 1)))


def _check_is_no_grey_photograph(values: Labels) -> None:
    """Raise MaskError for many levels of 8 bits or a usual depth, and areas of none."""
    scaled = _in_8_bits(values)
    if scaled is None:
        return
    grey = scaled[0]
    levels = _number_of_levels(grey[(grey > 0) & (grey < VOID)])
    if levels >= PHOTOGRAPH_LEVELS and np.count_nonzero(_range(grey, 3) == 0) < PHOTOGRAPH_SHARE * grey.size:
        raise MaskError("mask_unreadable", f"{levels} levels of grey and hardly an area of one: a photograph, no mask")


def _check_is_no_photograph(labels: Labels) -> None:
    """Raise MaskError for colours of which nearly every pixel has one of its own."""
    number = len(np.unique(labels))
    if number > MAX_LABELS and number * 4 > labels.size:
        raise MaskError("mask_unreadable", f"{number} colours in {labels.size} pixels: a photograph, no mask")


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    return image.format in ("JPEG", "MPO", "AVIF") or (image.format == "WEBP" and b"VP8L" not in data[:64])
