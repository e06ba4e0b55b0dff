"""A planned mask's geometry -> its coarse mask: the decoding half of the sources, run where the images are loaded.

`geometry` is JSON text, one of
    [[x1, y1, x2, y2, ...], ...]                       COCO polygons, or any other form of `segmentation.py`
    {"size": [h, w], "counts": [..] or "..."}          COCO RLE, uncompressed or compressed
    {"file": "relative/path.png", "value": 3 or null}  pixels of a mask image equal to `value`, or all that are set
    {"file": ..., "value": null, "cut": 128}           pixels of that level and more: a mask with soft edges
    {"file": ..., "value": 70000, "packed": true}      as `value`, where that is always R + 256 G + 65536 B
    {"file": ..., "value": 170, "greys": true}         as `value`, of the greys of a palette instead of its indices
    {"normalized": [[x1, y1, ...], ...]}               polygons in shares of the image's width and height
    {"file": ..., "value": null, "fit": true}          as above, of a file that may have another size than its image,
                                                       and the greys of a palette, as below
    {"pairs": "1 3 10 5", "order": "columns"}          starts and lengths of runs, from 1, by columns or rows
    {"file": ..., "channel": 3, "cam": {...}}          pixels where that channel of class scores wins (`cams.py`)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.decoding import cams, label_image, raster, segmentation
from pipeline.decoding.cams import CamRule
from pipeline.decoding.label_image import Labels
from pipeline.decoding.segmentation import Drawn
from pipeline.errors import MaskError
from pipeline.masks import binary
from pipeline.masks.binary import Rle

FIT = '"fit"'
MAX_PAIRS_PIXELS = 1 << 28

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
    """As `coarse_mask`, the mask alone."""
    return coarse_mask(geometry, size_hw, declared_hw, files).rle


def coarse_mask(geometry: str, size_hw: tuple[int, int], declared_hw: tuple[int, int], files: MaskFiles) -> Drawn:
    """Geometry JSON -> Rle of exactly `size_hw`; raises MaskError with a reason code.

    size_hw: the decoded image; declared_hw: what the source says it is, the frame of polygons; files: of `mask_file`.
    An Rle of another size or with no pixel travels in the error's `rle`, so that what came in is kept.
    """
    drawn = _decode(geometry, declared_hw, size_hw, files)
    rle = drawn.rle
    if tuple(rle["size"]) != size_hw:
        raise UnusableMaskError("mask_size_mismatch", f"mask {_by(rle['size'])}, image {_by(size_hw)}", rle)
    if binary.area(rle) == 0:
        raise UnusableMaskError("mask_empty", "no pixel is set", rle)
    return drawn


class UnusableMaskError(MaskError):
    """A mask that can be decoded and yet not be refined."""

    def __init__(self, reason: str, detail: str, rle: Rle) -> None:
        super().__init__(reason, detail)
        self.rle = rle


def read_label_image(data: bytes, packed: bool = False, greys: bool = False) -> Labels:
    """A mask image -> (H, W) labels, read-only: palette indices, grey values, or packed RGB where they differ.

    packed, greys: as of `label_image.read`. A mask with soft edges is 0 and 1. Raises MaskError when it cannot be
    decoded.
    """
    found = label_image.read(data, packed, greys)
    return found.labels if found.cut is None else found.mask().astype(np.uint8)


def frame_of_masks(geometries: Iterable[str], files: MaskFiles) -> tuple[int, int] | None:
    """(H, W) of the masks, where all that have a size of their own have the same: the frame that they were drawn in."""
    sizes = {size for geometry in geometries if (size := _own_size(geometry, files))}
    return sizes.pop() if len(sizes) == 1 else None


def _own_size(geometry: str, files: MaskFiles) -> tuple[int, int] | None:
    path = mask_file(geometry)
    if path is not None:
        data = files.get(path)
        return raster.size_hw(data) if isinstance(data, bytes) and FIT not in geometry else None
    try:
        size: list[Any] = json.loads(geometry)["size"] if geometry.startswith("{") else []
        height, width = size
        return int(height), int(width)
    except (TypeError, KeyError, ValueError, RecursionError, OverflowError):
        return None


def _decode(geometry: str, declared_hw: tuple[int, int], size_hw: tuple[int, int], files: MaskFiles) -> Drawn:
    try:
        content = json.loads(geometry)
    except (ValueError, RecursionError) as error:
        raise MaskError("mask_unreadable", f"geometry is not JSON: {error}") from None
    try:
        if isinstance(content, dict) and "file" in content:
            return Drawn(_from_file(content, size_hw, files))
        if isinstance(content, dict) and "pairs" in content:
            return Drawn(_from_pairs(str(content["pairs"]), declared_hw, content.get("order") == "rows"))
        if isinstance(content, dict) and "normalized" in content:
            sides = np.asarray(declared_hw[::-1], np.float64)
            rings = [(np.asarray(ring, np.float64).reshape(-1, 2) * sides).ravel() for ring in content["normalized"]]
            return Drawn(binary.from_polygons([ring.tolist() for ring in rings], declared_hw))
        return segmentation.draw(content, declared_hw)
    except MaskError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise MaskError("mask_unreadable", f"{type(error).__name__}: {error}"[:200]) from None


def _from_file(content: dict[str, Any], size_hw: tuple[int, int], files: MaskFiles) -> Rle:
    data = files.get(content["file"], MaskError("mask_missing", f"{content['file']} is not there"))
    if isinstance(data, MaskError):
        raise data
    if "cam" in content:
        rule = CamRule(**content["cam"])
        return binary.encode(
            cams.class_map(cams.read(data, rule.layout).scores, rule, size_hw) == content["channel"] + 1
        )
    image = label_image.read(data, bool(content.get("packed")), bool(content.get("greys", content.get("fit"))))
    labels, value = image.labels, content.get("value")
    if "cut" in content:
        return _encoded(labels >= int(content["cut"]), content, size_hw)
    return _encoded(labels != 0 if value is None else labels == int(value), content, size_hw)


def _encoded(mask: npt.NDArray[np.bool_], content: dict[str, Any], size_hw: tuple[int, int]) -> Rle:
    """In the image's size where the file's does not matter: the nearest pixel counts."""
    if content.get("fit") and mask.shape != size_hw:
        resized = cv2.resize(mask.astype(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST)
        return binary.encode(resized)
    return binary.encode(mask)


def _from_pairs(text: str, size_hw: tuple[int, int], by_rows: bool) -> Rle:
    """Starts (from 1) and lengths of runs, as Kaggle's competitions write them. Raises MaskError."""
    numbers = np.array(text.split(), np.int64)
    if len(numbers) % 2:
        raise MaskError("mask_unreadable", f"{len(numbers)} numbers, an odd number, where starts and lengths should be")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    ends = starts + lengths
    if (lengths <= 0).any() or (starts < 0).any() or (starts[1:] < ends[:-1]).any():
        raise MaskError("mask_unreadable", "runs that do not rise, or overlap: relative ones are not read")
    if len(ends) and ends[-1] > size_hw[0] * size_hw[1]:
        raise MaskError("mask_unreadable", f"a run ends at pixel {ends[-1]} of {_by(size_hw)}: is it another image's?")
    if not by_rows:
        return binary.from_runs(starts, lengths, size_hw)
    if size_hw[0] * size_hw[1] > MAX_PAIRS_PIXELS:
        raise MaskError("mask_unreadable", f"runs by rows in an image of {_by(size_hw)}")
    mask = np.zeros(size_hw[0] * size_hw[1], np.uint8)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        mask[start:end] = 1
    return binary.encode(mask.reshape(size_hw))


def _by(size_hw: tuple[int, ...] | list[int]) -> str:
    return "x".join(str(side) for side in size_hw)
