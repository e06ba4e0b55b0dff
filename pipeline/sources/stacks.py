"""Stacks of masks: `masks/cat.npy` or `.npz` for `cat.jpg`, an array (N, H, W) of one object each.

    .npy   (N, H, W) or (N, 1, H, W), boolean or integers; (H, W): every value but 0 is an object, which is told
    .npz   such an array as `masks` (or the only one that is no image), and perhaps, of length N: `labels`, `classes`,
           `class_ids` or `category_ids` (integers or text), `scores`, `boxes`; or `arr_0`, `arr_1`, ... as
           `numpy.savez(file, *masks)` names them, in that order. Another array of masks is named as not read
Arrays of floats are shares of a pixel, cut at 0.5. Options of this source:
    layout=nhw|hwn         axis order (nhw)
Objects in files of their own (pickled) are not read: they could run code. A mask's source id is the file and its place
in the stack, from 0. An empty slice is a mask that fails; one that is as large as another image's fails too.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.decoding import cams, label_image
from pipeline.errors import MaskError, RefusedError
from pipeline.masks import binary
from pipeline.sources import files
from pipeline.sources.fields import as_float, as_int, as_label
from pipeline.sources.files import Found
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput

Array = npt.NDArray[Any]

MASKS = ("masks", "mask", "pred_masks", "segmentation", "arr_0")
LABELS = ("labels", "classes", "class_ids", "category_ids", "pred_classes")
SCORES = ("scores", "score")
_IMAGE = re.compile(r"(image|img|rgb|photo|picture|depth)(?!.*(mask|seg|label|annot|inst|gt|truth))", re.IGNORECASE)
TAKEN_AS_OBJECTS = "the values of an array (H, W) taken as objects, not as classes"
BOX_VALUES = 4
MIN_SIDE = 9  # of an array of labels that has no name
MAX_MASKS = 1 << 16
MAX_MEMBERS = 16
HALF = 0.5
KINDS = "biuf"


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a file, then the files that belong to no image."""
    read = partial(_masks, layout=parse(given.options))
    yield from files.scan(given, {".npy", ".npz"}, read, images_without_files=False)


def parse(options: Mapping[str, str]) -> str:
    """The axis order. Raises RefusedError."""
    layout = options.get("layout", "nhw")
    if not options.keys() <= {"layout"} or layout not in ("nhw", "hwn"):
        raise RefusedError(f"source stacks takes layout=nhw|hwn, not {dict(options)}")
    return layout


def is_stack(data: bytes) -> bool:
    """Whether a file holds a stack of masks, and not scores of classes, which are floats between 0 and 1."""
    try:
        arrays = _arrays(data)
    except MaskError:
        return False
    found = _of(arrays, MASKS)
    if found is None or "cam" in arrays:
        return False
    return found.dtype.kind in "biu" or bool(((found == 0) | (found == 1)).all())


def _masks(path: str, data: bytes, layout: str) -> Found:
    own = stem(path)
    try:
        arrays = _arrays(data)
        stack = _stack(arrays, layout)
    except MaskError as error:
        return Found([PlannedMask(own, -1, "", files.UNREADABLE, f"unreadable: {error.detail}")])
    labels, scores = (_column(arrays, names, len(stack)) for names in (LABELS, SCORES))
    note = _unused_columns(arrays, len(stack))
    found = [_mask(own, place, one, labels, scores, note) for place, one in enumerate(stack)]
    has_values = len(stack) > 1 and _is_of_labels(_of(arrays, MASKS))
    found += [
        PlannedMask(
            f"{own}#{name}", -1, "", files.UNREADABLE, f"unreadable: array {name}, beside the masks that are read"
        )
        for name in _further(arrays, stack.shape[1:])
    ]
    return Found(found, (TAKEN_AS_OBJECTS,) if has_values else ())


def _mask(
    own: str, place: int, pixels: Array, labels: list[Any] | None, scores: list[Any] | None, note: str
) -> PlannedMask:
    try:
        mask, detail = _binary(pixels)
        geometry = json.dumps(binary.encode(mask), separators=(",", ":"))
    except MaskError as error:
        geometry, detail = files.UNREADABLE, f"unreadable: {error.detail}"
    label = None if labels is None else labels[place]
    number = 1 if label is None else as_int(label)
    score = None if scores is None else as_float(scores[place])
    return PlannedMask(
        source_mask_id=f"{own}#{place}",
        category_id=-1 if number is None else number,
        category=as_label(label) if number is None else "",
        geometry=geometry,
        detail="; ".join(one for one in (detail, note) if one),
        extra=json.dumps({"score": score}) if score is not None else "",
    )


def _binary(pixels: Array) -> tuple[Array, str]:
    """(H, W) bool of one mask, and what is odd about it. Raises MaskError for what is none."""
    if pixels.dtype.kind != "f":
        return _of_integers(pixels)
    if not (pixels == np.rint(pixels)).all() and not 0 <= np.nanmin(pixels) <= np.nanmax(pixels) <= 1:
        raise MaskError("mask_unreadable", f"values from {np.nanmin(pixels):g} to {np.nanmax(pixels):g}, no shares")
    soft = int(np.count_nonzero((pixels > 0) & (pixels < 1)))
    return pixels >= HALF, f"soft edges: {soft} pixels are neither 0 nor 1, cut at {HALF}" if soft else ""


def _of_integers(pixels: Array) -> tuple[Array, str]:
    is_one = pixels.dtype == bool or bool(((pixels == 0) | (pixels == pixels.max(initial=0))).all())
    if is_one:
        return pixels != 0, ""
    image = label_image.of_values(pixels)
    if image.cut is None:
        raise MaskError("mask_unreadable", f"{len(image.values)} values in one mask, which has one")
    return image.mask(), image.note


def _stack(arrays: Mapping[str, Array], layout: str) -> Array:
    """(N, H, W). Raises MaskError."""
    found = _of(arrays, MASKS)
    if found is None:
        said = ", ".join(f"{name} {one.shape}" for name, one in arrays.items())
        raise MaskError("mask_unreadable", f"no array of masks, but {said or 'nothing'}"[:200])
    if several := _numbered(arrays, found):
        return _together([_in_order(arrays[name], layout) for name in several])
    return _in_order(found, layout)


def _numbered(arrays: Mapping[str, Array], first: Array) -> list[str]:
    """`arr_0`, `arr_1`, ... of one height and width, where the masks are these, one or more in each; else none."""
    names = [f"arr_{number}" for number in range(len(arrays))]
    if first is not arrays.get(names[0]) or not all(name in arrays for name in names):
        return []
    return [name for name in names if arrays[name].ndim >= 3 or arrays[name].shape == first.shape[-2:]]


def _together(stacks: list[Array]) -> Array:
    if len({one.shape[1:] for one in stacks}) > 1:
        raise MaskError("mask_unreadable", f"arrays of different sizes: {[one.shape[1:] for one in stacks]}"[:200])
    return np.concatenate(stacks)


def _in_order(found: Array, layout: str) -> Array:
    """(N, H, W). Raises MaskError."""
    if found.ndim == 4 and found.shape[1] == 1:
        found = found[:, 0]
    if _is_of_labels(found):
        return _of_labels(found.reshape(found.shape[-2:]))
    if found.ndim == 3 and layout == "hwn":
        found = np.moveaxis(found, -1, 0)
    if found.ndim != 3 or 0 in found.shape[1:] or len(found) > MAX_MASKS:
        raise MaskError("mask_unreadable", f"an array of shape {found.shape}, where N, H, W should be")
    return found


def _is_of_labels(found: Array | None) -> bool:
    """Whether an array is one image of labels, (H, W) or (1, H, W) with several."""
    if found is None or found.dtype.kind not in "biu" or found.shape[:-2] not in ((), (1,), (1, 1)):
        return False
    if found.ndim == 2 or found.size == 0:
        return found.ndim == 2
    several = bool(((found != 0) & (found != found.max())).any()) and int(found.min()) >= 0
    return several and label_image.of_values(found.reshape(found.shape[-2:])).cut is None


def _of_labels(labels: Array) -> Array:
    values = [value for value in np.unique(labels) if value != 0]
    if 0 in labels.shape or len(values) * labels.size > cams.MAX_VALUES:
        raise MaskError("mask_unreadable", f"{len(values)} values in an array of shape {labels.shape}")
    return np.stack([labels == value for value in values]) if values else np.zeros((0, *labels.shape), bool)


def _of(arrays: Mapping[str, Array], names: tuple[str, ...]) -> Array | None:
    """The array of one of these names; of masks also the only one that is no image: a stack, else one of labels."""
    named = next((arrays[name] for name in names if name in arrays), None)
    if named is not None or names is not MASKS:
        return named
    others = [one for name, one in arrays.items() if not _IMAGE.match(name)]
    deep = [one for one in others if one.ndim >= 3]
    flat = [one for one in others if one.ndim == 2 and one.dtype.kind in "biu" and min(one.shape) >= MIN_SIDE]
    found = deep or flat
    return found[0] if len(found) == 1 else None


def _unused_columns(arrays: Mapping[str, Array], length: int) -> str:
    """Which values of masks are not used, since they are more or fewer than those, or nothing says what they are."""
    odd = [name for name in (*LABELS, *SCORES) if name in arrays and arrays[name].shape != (length,)]
    odd += [
        name
        for name in arrays
        if name.startswith("arr_") and arrays[name].shape[:1] == (length,) and _is_row(arrays[name])
    ]
    return "; ".join(f"{name}: {arrays[name].shape} for {length} masks, not used" for name in odd)


def _is_row(values: Array) -> bool:
    """Whether an array has one value, or a box, of each mask."""
    return values.ndim == 1 or (values.ndim == 2 and values.shape[1] == BOX_VALUES)


def _further(arrays: Mapping[str, Array], frame: tuple[int, ...]) -> list[str]:
    """Arrays that are masks by what they hold, and that nothing has read."""
    used = next((name for name in MASKS if name in arrays), None)
    if used is None:
        return []
    if numbered := _numbered(arrays, arrays[used]):
        return [name for name in arrays if name not in numbered and arrays[name].ndim > 1 and not _is_row(arrays[name])]
    others = [name for name in arrays if name != used and not _IMAGE.match(name)]
    return [name for name in others if arrays[name].dtype.kind in "biu" and arrays[name].shape[-2:] == frame]


def _column(arrays: Mapping[str, Array], names: tuple[str, ...], length: int) -> list[Any] | None:
    """One value a mask, None where there is no such array."""
    found = _of(arrays, names)
    return found.tolist() if found is not None and found.shape == (length,) else None


def _arrays(data: bytes) -> dict[str, Array]:
    """The arrays of a file by their names. Raises MaskError."""
    try:
        if data.startswith(cams.NPY_MAGIC):
            return {MASKS[0]: cams.array(data, KINDS)}
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or sum(one.file_size for one in members) > 8 * cams.MAX_VALUES:
                raise MaskError("mask_unreadable", "too many arrays, or too large")
            return {one.filename.removesuffix(".npy"): cams.array(archive.read(one), f"{KINDS}U") for one in members}
    except MaskError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a broken file leads them to
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise MaskError("mask_unreadable", detail) from None
