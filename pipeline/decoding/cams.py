"""Soft class activation maps: a file of class scores -> a class map, by a stated background rule.

    .npy   one array of scores, (C, h, w) or (h, w, C); channel i is category i + 1
    .npz   `cam` (or the only array besides `keys`), and perhaps `keys` (C,), the category id of each channel

Scores lie in [0, 1], at any resolution whose aspect is the image's; they are brought to the image's size bilinearly
before they are compared. A pixel belongs to the class with the highest score where that is above the background's:
    alpha      (1 - highest class score) ** alpha, as SAMRefiner's code (alpha 1) and others (IRN, SEAM) have it
    threshold  the same everywhere

Files are untrusted: nothing is unpickled, and shape, type and size are checked before memory is taken.
"""

from __future__ import annotations

import io
import zipfile
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from pipeline.decoding.python_parser import ONE_AT_A_TIME
from pipeline.errors import MaskError
from pipeline.masks.frames import FloatArray

MAX_VALUES = 1 << 26  # 64 classes at 1024 x 1024
MAX_CLASSES = 4096
NPY_MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 1 << 16
TOLERANCE = 1e-3  # of scores outside [0, 1]
ASPECT_CELLS = 2.0  # how far the sides may be from the image's aspect: padding and rounding of a network's grid


class CamRule(NamedTuple):
    """How scores are read. Exactly one of alpha and threshold is set."""

    layout: Literal["chw", "hwc"]
    alpha: float | None
    threshold: float | None


class Cams(NamedTuple):
    """`scores` (C, h, w) of any float or integer type, and the category id of each channel, all above 0."""

    scores: npt.NDArray[np.generic]
    categories: list[int]


def read(data: bytes, layout: Literal["chw", "hwc"]) -> Cams:
    """A file's content -> checked scores. Raises MaskError (`mask_unreadable`) for anything else."""
    try:
        arrays = {"cam": array(data)} if data.startswith(NPY_MAGIC) else _unzip(data)
    except MaskError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a broken file leads them to
        raise _broken(f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]) from None
    keys = arrays.pop("keys", None)
    scores = arrays.get("cam", next(iter(arrays.values())) if len(arrays) == 1 else None)
    if scores is None or scores.ndim != 3:
        said = ", ".join(f"{name} {one.shape}" for name, one in arrays.items()) or "nothing"
        raise _broken(f"no array `cam` of three axes, but {said}; masks of objects are another source, stacks"[:200])
    scores = np.moveaxis(scores, -1, 0) if layout == "hwc" else scores
    if not 0 < scores.shape[0] <= MAX_CLASSES or 0 in scores.shape:
        raise _broken(f"{scores.shape[0]} classes of {scores.shape[1]}x{scores.shape[2]} in the layout {layout}")
    low, high = float(scores.min()), float(scores.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # NaN fails too
        raise _broken(f"scores from {low:g} to {high:g}, not within 0 and 1")
    return Cams(scores, _categories(keys, scores.shape[0]))


def class_map(
    scores: npt.NDArray[np.generic], rule: CamRule, size_hw: tuple[int, int] | None = None
) -> npt.NDArray[np.int32]:
    """(C, h, w) scores -> (H, W) int32: 0 where the background wins, else the winning channel + 1.

    size_hw: of the image; the scores' own where None. Raises MaskError when the aspects differ.
    """
    height, width = size_hw or scores.shape[1:]
    _check_aspect(scores.shape[1:], (height, width))
    best, winner = np.zeros((height, width), np.float32), np.zeros((height, width), np.int32)
    for channel in range(scores.shape[0]):  # one at a time: all of them at the image's size may not fit into memory
        score = _resized(np.asarray(scores[channel], np.float32), (height, width))
        better = score > best
        best[better], winner[better] = score[better], channel + 1
    background = (
        np.float32(rule.threshold) if rule.alpha is None else (1 - np.minimum(best, 1)) ** np.float32(rule.alpha)
    )
    return np.where(best > background, winner, 0).astype(np.int32)


def _resized(score: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    if score.shape == size_hw:
        return score
    return np.asarray(cv2.resize(score, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def _check_aspect(grid_hw: tuple[int, ...], size_hw: tuple[int, int]) -> None:
    (grid_h, grid_w), (height, width) = grid_hw, size_hw
    if abs(grid_h - grid_w * height / width) > ASPECT_CELLS and abs(grid_w - grid_h * width / height) > ASPECT_CELLS:
        raise MaskError("mask_size_mismatch", f"scores {grid_h}x{grid_w}, image {height}x{width}: another aspect")


def _unzip(data: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of an .npz; a member says its size, and is not unpacked beyond it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > 2 or any(member.file_size > MAX_VALUES * 8 + MAX_HEADER_BYTES for member in members):
            raise _broken("more than `cam` and `keys`, or too large")
        return {member.filename.removesuffix(".npy"): array(archive.read(member)) for member in members}


def array(data: bytes, kinds: str = "fiu") -> npt.NDArray[np.generic]:
    """An .npy file's array, a view of `data`. Its header is checked against what is there.

    kinds: of its type, as NumPy letters them. Raises MaskError, or whatever NumPy does.
    """
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with ONE_AT_A_TIME:
        shape, column_major, dtype = header(file, max_header_size=MAX_HEADER_BYTES)
    if dtype.kind not in kinds or (dtype.itemsize > 8 and dtype.kind != "U"):
        raise _broken(f"an array of {dtype}, not of numbers")
    count = 1
    for side in shape:
        count *= int(side)
    if count > MAX_VALUES or count * dtype.itemsize != len(data) - file.tell():
        raise _broken(f"{len(data) - file.tell()} bytes for an array of shape {shape}")
    flat = np.frombuffer(data, dtype, count, file.tell())
    return flat.reshape(shape, order="F" if column_major else "C")


def _categories(keys: npt.NDArray[np.generic] | None, classes: int) -> list[int]:
    if keys is None:
        return list(range(1, classes + 1))
    if keys.dtype.kind not in "iu" or keys.shape != (classes,):
        raise _broken(f"`keys` of shape {keys.shape} and type {keys.dtype} for {classes} classes")
    categories = [int(key) for key in keys.tolist()]
    if len(set(categories)) < classes or min(categories) < 1 or max(categories) >= 2**63:
        raise _broken("`keys` are not distinct category ids above 0")
    return categories


def _broken(detail: str) -> MaskError:
    return MaskError("mask_unreadable", detail)
