"""Encoded raster image -> a decoded Pillow image: which formats, how many pixels, and what in a file does not matter.

Only the formats named here are tried: others start programs (PostScript), or are no rasters. Who asks decides what the
pixels mean: `decode.py` for photographs, `label_image.py` for masks.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from functools import cache

from PIL import Image

from pipeline.errors import ImageError

SUFFIXES_BY_FORMAT = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "MPO": (".mpo",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "QOI": (".qoi",),
    "DDS": (".dds",),
    "ICO": (".ico",),
    "SUN": (".ras",),
}
SUFFIXES = frozenset(suffix for suffixes in SUFFIXES_BY_FORMAT.values() for suffix in suffixes)
_NOT_DECODED = """
    heic heif jxl svg eps ps pdf psd xcf kra ai wmf emf exr hdr dcm nii nrrd mha svs ndpi czi lif fits
    dng cr2 cr3 nef arw orf rw2 raf raw
"""
NOT_DECODED = frozenset(f".{suffix}" for suffix in _NOT_DECODED.split())
"""Suffixes of images that are not decoded here."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")

Prepare = Callable[[Image.Image], None]


def read(data: bytes, max_pixels: int, prepare: Prepare = lambda _image: None) -> Image.Image:
    """The first frame, decoded. Raises ImageError where there are too many pixels, else whatever Pillow raises.

    prepare: called once the header is read, before pixels are.
    """
    try:
        return _read(data, max_pixels, prepare)
    except ValueError as error:
        if "MAX_TEXT" not in str(error):
            raise
        return _read(without_text(data), max_pixels, prepare)


def size_hw(data: bytes, look: Prepare = lambda _image: None) -> tuple[int, int] | None:
    """(H, W) by the header alone; None for what is no image. look: called once the header is read."""
    try:
        return _size_hw(data, look)
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        is_text = "MAX_TEXT" in str(error)
    try:
        return _size_hw(without_text(data), look) if is_text else None
    except Exception:
        return None


def _size_hw(data: bytes, look: Prepare) -> tuple[int, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            look(image)
            return image.height, image.width


@cache
def formats() -> list[str]:
    """Those of SUFFIXES_BY_FORMAT that this Pillow was built with."""
    Image.init()
    return [name for name in SUFFIXES_BY_FORMAT if name in Image.OPEN]


def without_text(data: bytes) -> bytes:
    """A PNG without its text, of which Pillow takes only so much: workflows of megabytes are written there."""
    parts, at = [data[: len(PNG_SIGNATURE)]], len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind not in _TEXT_CHUNKS:
            parts.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(parts)


def _read(data: bytes, max_pixels: int, prepare: Prepare) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large images; `max_pixels` decides here
        image = Image.open(io.BytesIO(data), formats=formats())
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError("image_too_large", f"{width}x{height} pixels, more than {max_pixels}")
        prepare(image)
        image.load()
        return image
