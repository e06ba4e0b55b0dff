"""A planned mask's geometry -> its coarse mask: the decoding half of the sources, run where the images are loaded.

`geometry` is JSON text, one of
    [[x1, y1, x2, y2, ...], ...]                       COCO polygons
    {"size": [h, w], "counts": [..] or "..."}          COCO RLE, uncompressed or compressed
    {"file": "relative/path.png", "value": 3 or null}  pixels of a mask image equal to `value`, or all non-zero ones
    {"file": ..., "value": 70000, "packed": true}      the same, where the value is always R + 256 G + 65536 B
    {"normalized": [[x1, y1, ...], ...]}               polygons in shares of the image's width and height
    {"file": ..., "channel": 3, "cam": {...}}          pixels where that channel of class scores wins (`cams.py`)
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import MaskError
from pipeline.masks import binary, cams
from pipeline.masks.binary import Rle
from pipeline.masks.cams import CamRule

MaskFiles = Mapping[str, bytes | MaskError]
"""Content of mask files by path, or why one could not be read."""


def mask_file(geometry: str) -> str | None:
    """The mask file that a geometry names, if any."""
    if '"file"' not in geometry:
        return None
    try:
        content = json.loads(geometry)
    except (ValueError, RecursionError):
        return None
    path = content.get("file") if isinstance(content, dict) else None
    return path if isinstance(path, str) else None


def coarse_rle(geometry: str, size_hw: tuple[int, int], declared_hw: tuple[int, int], files: MaskFiles) -> Rle:
    """Geometry JSON -> Rle of exactly `size_hw`; raises MaskError with a reason code.

    size_hw: the decoded image; declared_hw: what the source says it is, the frame of polygons; files: of `mask_file`.
    An Rle of another size or with no pixel travels in the error's `rle`, so that what came in is kept.
    """
    rle = _decode(geometry, size_hw, declared_hw, files)
    if tuple(rle["size"]) != size_hw:
        raise UnusableMaskError("mask_size_mismatch", f"mask {_by(rle['size'])}, image {_by(size_hw)}", rle)
    if binary.area(rle) == 0:
        raise UnusableMaskError("mask_empty", "no pixel is set", rle)
    return rle


class UnusableMaskError(MaskError):
    """A mask that can be decoded and yet not be refined."""

    def __init__(self, reason: str, detail: str, rle: Rle) -> None:
        super().__init__(reason, detail)
        self.rle = rle


@lru_cache(maxsize=2)
def read_label_image(data: bytes, packed: bool = False) -> npt.NDArray[np.int64]:
    """A mask image -> (H, W) int64 labels, read-only: palette indices, grey values, or packed RGB where they differ.

    packed: RGB is R + 256 G + 65536 B even where the three are equal. Raises MaskError when it cannot be decoded. The
    last images are remembered: each mask of an image asks for the same file.
    """
    labels = _read_label_image(data, packed)
    labels.flags.writeable = False
    return labels


def _read_label_image(data: bytes, packed: bool) -> npt.NDArray[np.int64]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode == "RGBA":
                image = image.convert("RGB")  # noqa: PLW2901 - the same picture without its alpha
            pixels = np.asarray(image).astype(np.int64)
    except MemoryError:  # no property of the file
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise MaskError("mask_unreadable", f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]) from None
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 2:
        return np.asarray(pixels[..., 0])
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    grey = not packed and bool((red == green).all() and (green == blue).all())
    return np.asarray(red if grey else red + 256 * green + 65536 * blue)


def _decode(geometry: str, size_hw: tuple[int, int], declared_hw: tuple[int, int], files: MaskFiles) -> Rle:
    try:
        content = json.loads(geometry)
    except (ValueError, RecursionError) as error:
        raise MaskError("mask_unreadable", f"geometry is not JSON: {error}") from None
    try:
        if isinstance(content, list):
            return binary.from_polygons(content, declared_hw)
        if isinstance(content, dict) and "file" in content:
            return _from_file(content, size_hw, files)
        if isinstance(content, dict) and "normalized" in content:
            sides = np.asarray(declared_hw[::-1], np.float64)
            rings = [(np.asarray(ring, np.float64).reshape(-1, 2) * sides).ravel() for ring in content["normalized"]]
            return binary.from_polygons([ring.tolist() for ring in rings], declared_hw)
        if isinstance(content, dict):
            return _from_rle(content)
    except MaskError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise MaskError("mask_unreadable", f"{type(error).__name__}: {error}"[:200]) from None
    raise MaskError("mask_unreadable", f"no polygons, RLE or file, but {type(content).__name__}")


def _from_rle(content: dict[str, Any]) -> Rle:
    height, width = (int(side) for side in content["size"])
    counts = content["counts"]
    if isinstance(counts, list):
        return binary.from_run_lengths(counts, (height, width))
    rle: Rle = {"size": [height, width], "counts": counts}
    binary.check(rle)
    return rle


def _from_file(content: dict[str, Any], size_hw: tuple[int, int], files: MaskFiles) -> Rle:
    data = files.get(content["file"], MaskError("mask_missing", str(content["file"])))
    if isinstance(data, MaskError):
        raise data
    if "cam" in content:
        rule = CamRule(**content["cam"])
        return binary.encode(
            cams.class_map(cams.read(data, rule.layout).scores, rule, size_hw) == content["channel"] + 1
        )
    labels, value = read_label_image(data, bool(content.get("packed"))), content.get("value")
    return binary.encode(labels != 0 if value is None else labels == int(value))


def _by(size_hw: tuple[int, ...] | list[int]) -> str:
    return "x".join(str(side) for side in size_hw)
