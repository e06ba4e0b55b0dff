"""Image bytes -> RGB pixels, with a bound on their number and a reason code for each way it can fail.

Not here: fetching (`storage.py`), resizing (`masks/frames.py`).
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import ImageError

EXIF_ORIENTATION = 0x0112
_TURNS = range(2, 9)
_SWAPS_SIDES = {5, 6, 7, 8}

ImageArray = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    """pixels (h, w, 3) uint8 RGB; size_hw: the image's own (H, W), of which the pixels may be a reduction."""

    pixels: ImageArray
    size_hw: tuple[int, int]


def decode_image(data: bytes, max_pixels: int, declared_hw: tuple[int, int] | None = None) -> ImageArray:
    """Encoded image -> (H, W, 3) uint8 RGB. Raises ImageError with a reason code.

    The first frame of an animation; grey and palette are expanded; alpha is laid on white; 16 bits are scaled to 8.
    EXIF orientation is applied, except where the size declared for the masks is that of the stored pixels only.
    """
    return decode_reduced(data, max_pixels, declared_hw, 0).pixels


def decode_reduced(data: bytes, max_pixels: int, declared_hw: tuple[int, int] | None, side: int) -> Decoded:
    """As decode_image, for who needs only `side` pixels on the long side (0: all of them).

    JPEGs with at least twice as many are decoded at 1/2, 1/4 or 1/8 of their size, with no less than `side` left.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; `max_pixels` decides here
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageError("image_too_large", f"{width}x{height} pixels, more than {max_pixels}")
                if side and image.format == "JPEG":
                    shrink = max(1.0, max(width, height) / side)
                    image.draft(None, (max(1, int(width / shrink)), max(1, int(height / shrink))))
                image.load()
                turns = _turns(image, (height, width), declared_hw)
                size_hw = (width, height) if turns in _SWAPS_SIDES else (height, width)
                return Decoded(_rgb(ImageOps.exif_transpose(image) if turns else image), size_hw)
    except (ImageError, MemoryError):  # too little memory is no property of the file: see isolate.py
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        too_large = isinstance(error, Image.DecompressionBombError)
        raise ImageError("image_too_large" if too_large else "image_unreadable", _short(error)) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        text = _short(error)
        raise ImageError("image_truncated" if "truncated" in text.lower() else "image_unreadable", text) from None


def _turns(image: Image.Image, stored_hw: tuple[int, int], declared_hw: tuple[int, int] | None) -> int:
    """The EXIF orientation that is to be applied; 0 where the stored pixels are what the masks belong to."""
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if orientation in _SWAPS_SIDES and declared_hw == stored_hw and stored_hw[0] != stored_hw[1]:
        return 0
    return orientation if orientation in _TURNS else 0  # the tag may hold anything


def _rgb(image: Image.Image) -> ImageArray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        grey = np.clip(np.nan_to_num(values) * (255.0 / top), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
