"""Image bytes -> RGB pixels, with a bound on their number and a reason code for each way it can fail.

Not here: fetching (`storage.py`), resizing (`masks/frames.py`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.decoding import raster
from pipeline.decoding.levels import Stretched, to_8_bits
from pipeline.errors import ImageError

EXIF_ORIENTATION = 0x0112
_ADDRESS = re.compile(r" ?<[\w.]+ object at 0x[0-9a-f]+>")
_TURNS = range(2, 9)
_SWAPS_SIDES = {5, 6, 7, 8}
_PNG_BIT_DEPTH, _PNG_COLOUR_TYPE = 24, 25  # offsets in the file
_PNG_COLOURED = (2, 6)

ImageArray = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    """pixels (h, w, 3) uint8 RGB; size_hw: the image's own (H, W), of which the pixels may be a reduction.

    detail: what was done to the pixels that a person may want to know, "" for nothing.
    """

    pixels: ImageArray
    size_hw: tuple[int, int]
    detail: str = ""


def decode_image(data: bytes, max_pixels: int, declared_hw: tuple[int, int] | None = None) -> ImageArray:
    """Encoded image -> (H, W, 3) uint8 RGB. Raises ImageError with a reason code.

    The first frame of an animation; grey and palette are expanded; alpha is laid on white; more than 8 bits and floats
    are scaled to 8 (`levels.py`). EXIF orientation is applied, except where the size declared for the masks is that of
    the stored pixels only.
    """
    return decode_reduced(data, max_pixels, declared_hw, 0).pixels


def decode_reduced(
    data: bytes, max_pixels: int, declared_hw: tuple[int, int] | None, side: int, each_side: bool = False
) -> Decoded:
    """As decode_image, for who needs only `side` pixels on the long side, or on each (0: all of them).

    JPEGs with at least twice as many are decoded at 1/2, 1/4 or 1/8 of their size, with no less than `side` left.
    """
    stored_hw = (0, 0)

    def prepare(image: Image.Image) -> None:
        nonlocal stored_hw
        stored_hw = (image.height, image.width)
        if side and image.format == "JPEG":
            shrink = max(1.0, (min if each_side else max)(stored_hw) / side)
            image.draft(None, (max(1, int(image.width / shrink)), max(1, int(image.height / shrink))))

    try:
        image = raster.read(data, max_pixels, prepare)
        turns = _turns(image, stored_hw, declared_hw)
        size_hw = stored_hw[::-1] if turns in _SWAPS_SIDES else stored_hw
        pixels, detail = _deep_colours(data) or _rgb(ImageOps.exif_transpose(image) if turns else image)
        return Decoded(pixels, size_hw, detail)
    except (ImageError, MemoryError):  # too little memory is no property of the file: see isolate.py
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        too_large = isinstance(error, Image.DecompressionBombError)
        raise ImageError("image_too_large" if too_large else "image_unreadable", short(error)) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        text = short(error)
        raise ImageError("image_truncated" if "truncated" in text.lower() else "image_unreadable", text) from None


def size_by_header(data: bytes, declared_hw: tuple[int, int]) -> tuple[int, int] | None:
    """(H, W) that decode_image gives the image, by its header alone; None for what is no image.

    declared_hw: the size that its masks have; only images of another one are looked at for their orientation.
    """
    turns = 0

    def look(image: Image.Image) -> None:
        nonlocal turns
        if declared_hw == (image.width, image.height) != (image.height, image.width):
            turns = _turns(image, (image.height, image.width), declared_hw)

    stored_hw = raster.size_hw(data, look)
    return stored_hw[::-1] if stored_hw and turns in _SWAPS_SIDES else stored_hw


def short(error: Exception) -> str:
    """What a decoder says, in one line, without addresses in memory: the same for the same file."""
    text = _ADDRESS.sub("", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200]


def _turns(image: Image.Image, stored_hw: tuple[int, int], declared_hw: tuple[int, int] | None) -> int:
    """The EXIF orientation that is to be applied; 0 where the stored pixels are what the masks belong to."""
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if orientation in _SWAPS_SIDES and declared_hw == stored_hw and stored_hw[0] != stored_hw[1]:
        return 0
    return orientation if orientation in _TURNS else 0  # the tag may hold anything


def _rgb(image: Image.Image) -> Stretched:
    """Any mode -> (H, W, 3) uint8."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey, how = to_8_bits(np.asarray(image))
        return Stretched(np.repeat(grey[..., None], 3, axis=2), how)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return Stretched(np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8)), "")


def _deep_colours(data: bytes) -> Stretched | None:
    """A PNG of 16 bits a colour that uses fewer: Pillow keeps the upper 8 alone, which would be next to black."""
    is_png = data.startswith(raster.PNG_SIGNATURE) and len(data) > _PNG_COLOUR_TYPE
    if not is_png or data[_PNG_BIT_DEPTH] != 16 or data[_PNG_COLOUR_TYPE] not in _PNG_COLOURED:
        return None
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if deep is None or deep.dtype != np.uint16:
        return None
    pixels, how = to_8_bits(deep[..., ::-1])
    return Stretched(np.ascontiguousarray(pixels), how) if how else None
