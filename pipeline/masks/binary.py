"""Binary masks: run-length encoding, measures, and shape counts.

A mask is an array (H, W) of bool or uint8 {0, 1}, row 0 at the top. Its Rle is COCO's compressed run-length
encoding in column-major order (pycocotools), the form in which masks are stored and travel.

Not here: anything that looks at the image (`scores.py`), anything that changes a mask's frame (`frames.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pipeline.errors import MaskError

Mask = npt.NDArray[np.uint8]
BOUNDARY_DILATION_RATIO = 0.02  # of the image diagonal, as boundary IoU (Cheng et al., CVPR 2021) defines it
MAX_OUTLINE_SIDES = 1000  # of an image's height and width; no polygon of a real object comes near
MAX_POLYGON_PIXELS = 1 << 31
MAX_COORDINATE_PX = 1e8
MAX_RUN_CHARACTERS = 12  # 60 bits: fits int64, and far more than any image has pixels


class Rle(TypedDict):
    """COCO compressed RLE: `size` [height, width] in pixels, `counts` as ASCII text."""

    size: list[int]
    counts: str


def encode(mask: npt.ArrayLike) -> Rle:
    """(H, W) bool or {0, 1} -> Rle."""
    pixels = np.asarray(mask, dtype=np.uint8)
    if pixels.ndim != 2:
        raise ValueError(f"a mask has two axes (H, W), not shape {pixels.shape}")
    rle = coco_mask.encode(np.asfortranarray(pixels))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: Rle) -> Mask:
    """Rle -> (H, W) uint8 {0, 1}. Raises MaskError when the runs do not add up to the size."""
    check(rle)
    return np.ascontiguousarray(coco_mask.decode(_bytes(rle)))


def check(rle: Rle) -> None:
    """Raise MaskError unless the runs of `rle` are well-formed and fill its size exactly.

    pycocotools trusts its input: runs that overrun the size write past the end of its buffer.
    """
    checked_runs(rle)


def checked_runs(rle: Rle) -> npt.NDArray[np.int64]:
    """`runs` of an Rle, which raises MaskError as `check` does."""
    height, width = rle["size"]
    if height <= 0 or width <= 0:
        raise MaskError("mask_unreadable", f"RLE of size {height}x{width}")
    found = runs(rle["counts"])
    if (total := sum(found.tolist())) != height * width:
        raise MaskError("mask_unreadable", f"RLE runs cover {total} pixels of {height * width}")
    return found


def run_lengths(counts: str) -> list[int]:
    """As `runs`, in Python's own numbers."""
    lengths_px: list[int] = runs(counts).tolist()
    return lengths_px


def runs(counts: str) -> npt.NDArray[np.int64]:
    """Lengths (N,) of the alternating runs (background first) of a compressed `counts` string, column-major.

    The code is LEB128-like: 5 bits a character from chr(48), a continuation bit, a sign bit at the end, and from the
    fourth run on each value is a difference to the run two before (cocoapi, maskApi.c).
    """
    if not counts:
        return np.zeros(0, np.int64)
    if not counts.isascii():
        raise MaskError("mask_unreadable", "RLE counts hold characters outside ASCII")
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    wrong = np.flatnonzero((codes < 0) | (codes >= 64))
    if wrong.size:
        raise MaskError("mask_unreadable", f"RLE counts hold the character {counts[wrong[0]]!r}")
    ends = np.flatnonzero(codes < 32)  # no continuation bit
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if codes[-1] >= 32 or lengths.max() > MAX_RUN_CHARACTERS:
        raise MaskError("mask_unreadable", "RLE counts end inside a run")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    found = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    found -= np.where(codes[ends] & 0x10, 1 << (5 * lengths), 0)
    found[1::2] = np.cumsum(found[1::2])
    found[2::2] = np.cumsum(found[2::2])
    if (found < 0).any():
        raise MaskError("mask_unreadable", "RLE counts hold a run of negative length")
    return found


def area(rle: Rle) -> int:
    """Foreground pixels."""
    return int(coco_mask.area(_bytes(rle)))


def bbox_xywh(rle: Rle) -> list[float]:
    """Tight box (x, y, width, height) in pixels; all zero for an empty mask."""
    return [float(value) for value in coco_mask.toBbox(_bytes(rle))]


def iou(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Intersection over union of two (H, W) masks; 1.0 when both are empty."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def boundary(mask: Mask, dilation_px: int | None = None) -> Mask:
    """Pixels of `mask` within `dilation_px` of its outline, (H, W) uint8.

    The default width is 2 % of the diagonal. The image border counts as an outline (Cheng et al., CVPR 2021).
    """
    height, width = mask.shape
    if dilation_px is None:
        dilation_px = max(1, round(BOUNDARY_DILATION_RATIO * float(np.hypot(height, width))))
    padded = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation_px)[1:-1, 1:-1]
    return (mask.astype(np.uint8) - eroded).astype(np.uint8)


def boundary_iou(first: Mask, second: Mask, dilation_px: int | None = None) -> float:
    """IoU of the two boundary bands (Cheng et al., CVPR 2021)."""
    return iou(boundary(first, dilation_px), boundary(second, dilation_px))


def box_around(mask: Mask, margin_px: int) -> tuple[slice, slice]:
    """(rows, columns) of the box around the foreground, grown by a margin, cut at the image border."""
    x, y, width, height = cv2.boundingRect(mask)
    return (
        slice(max(0, y - margin_px), y + height + margin_px),
        slice(max(0, x - margin_px), x + width + margin_px),
    )


def component_areas(mask: Mask) -> list[int]:
    """Pixels of each 8-connected foreground component, the largest first."""
    cut = mask[box_around(np.asarray(mask, np.uint8), 0)].astype(np.uint8)
    if not cut.size:
        return []
    count, labels = cv2.connectedComponents(cut, connectivity=8, ltype=cv2.CV_32S)
    if count == 2:
        return [int(np.count_nonzero(cut))]
    return sorted(np.bincount(labels.ravel(), minlength=count)[1:].tolist(), reverse=True)


def count_components(mask: Mask) -> int:
    """Number of 8-connected foreground components."""
    cut = mask[box_around(np.asarray(mask, np.uint8), 0)].astype(np.uint8)
    return int(cv2.connectedComponents(cut, connectivity=8)[0]) - 1 if cut.size else 0


def count_holes(mask: Mask) -> int:
    """4-connected background components that do not touch the outside."""
    cut = mask[box_around(np.asarray(mask, np.uint8), 0)].astype(np.uint8)  # there is no hole outside of it
    if not cut.size:
        return 0
    background = cv2.copyMakeBorder(1 - cut, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    return int(cv2.connectedComponents(background, connectivity=4)[0]) - 2


def from_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> Rle:
    """A COCO `segmentation` in any of its three forms (compressed RLE, run lengths, polygons) -> checked Rle.

    Polygons are drawn in `size_hw`; a run-length encoding says its own size. Raises MaskError for anything else.
    """
    if isinstance(segmentation, list):
        return from_polygons(segmentation, size_hw)
    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
    except (TypeError, KeyError, ValueError) as error:
        raise MaskError("mask_unreadable", "not polygons, and no RLE with `size` and `counts`") from error
    if isinstance(counts, list):
        return from_run_lengths(counts, (height, width))
    rle: Rle = {"size": [height, width], "counts": counts.decode("ascii") if isinstance(counts, bytes) else str(counts)}
    check(rle)
    return rle


def from_polygons(polygons: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Rle:
    """Union of COCO polygons [x1, y1, x2, y2, ...] in pixels -> Rle, rasterised as pycocotools does."""
    height, width = size_hw
    usable = [polygon for polygon in polygons if len(polygon) >= 6]
    if not usable:
        raise MaskError("mask_unreadable", "no polygon with three points")
    corners = [np.asarray(polygon, dtype=np.float64) for polygon in usable]
    if not np.isfinite(np.concatenate(corners)).all():
        raise MaskError("mask_unreadable", "a polygon has a coordinate that is not finite")
    # pycocotools takes memory by the length of the outline, and counts pixels in 32 bits
    outline_px = sum(float(np.abs(np.diff(axis, append=axis[:1])).sum()) for c in corners for axis in (c[::2], c[1::2]))
    far = max(float(np.abs(polygon).max()) for polygon in corners) > MAX_COORDINATE_PX
    if far or outline_px > MAX_OUTLINE_SIDES * (height + width) or height * width >= MAX_POLYGON_PIXELS:
        raise MaskError("mask_unreadable", f"a polygon far larger than its image of {height}x{width}")
    merged = coco_mask.merge(coco_mask.frPyObjects(usable, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def from_run_lengths(counts: list[int], size_hw: tuple[int, int]) -> Rle:
    """COCO uncompressed RLE (column-major run lengths, background first) -> Rle."""
    height, width = size_hw
    if any(not isinstance(run, int) or run < 0 for run in counts):
        raise MaskError("mask_unreadable", "RLE counts hold a run that is not a length")
    if height <= 0 or width <= 0 or sum(counts) != height * width:
        raise MaskError("mask_unreadable", f"RLE runs cover {sum(counts)} pixels of {height}x{width}")
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def from_runs(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], size_hw: tuple[int, int]) -> Rle:
    """Column-major runs that are set, rising and apart from each other -> Rle."""
    ends = starts + lengths
    gaps = starts - np.concatenate([[0], ends[:-1]])
    counts = np.stack([gaps, lengths], axis=1).ravel().tolist()
    last = size_hw[0] * size_hw[1] - (int(ends[-1]) if len(ends) else 0)
    return from_run_lengths([*counts, *([last] if last or not counts else [])], size_hw)


def from_places(places: npt.NDArray[np.int64], size_hw: tuple[int, int]) -> Rle:
    """Rising column-major places of the pixels that are set -> Rle."""
    first = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    return from_runs(places[first], np.diff(first, append=len(places)), size_hw)


def _bytes(rle: Rle) -> dict[str, Any]:
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].encode("ascii", "replace")}
