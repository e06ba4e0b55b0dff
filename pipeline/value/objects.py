"""Masks of a result to learn from, and true masks to be tested on, each cut out of its image by a window.

A window is the box of the mask that came in, with a margin, for whatever labels: where it lies tells nothing of what a
label is worth. All windows are brought to one size.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.dataset.result import Result
from pipeline.dataset.samples import Photos
from pipeline.dataset.verdicts import rejected
from pipeline.errors import ImageError, RefusedError
from pipeline.evaluation.inputs import read_image_list
from pipeline.evaluation.pairing import Truth
from pipeline.masks import binary
from pipeline.masks.binary import Mask, Rle
from pipeline.storage import Access
from pipeline.words import plural
from schemas.records import MASKS

MARGIN = 0.25  # of a box's sides, around it
SEEN_SIDE = 192  # pixels of a window as networks see it
LABEL_SIDE = 48  # of a label in its window, and of a prediction
ROWS = 4096  # of a shard that are held at once

Row = dict[str, Any]
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

COLUMNS = [
    *("mask_id", "source_mask_id", "image_id", "image_uri", "height", "width", "crowd"),
    *("coarse_rle", "mask_rle", "quality"),
]


class Window(NamedTuple):
    """A part of an image in pixels; it may leave the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Lesson:
    """A mask to learn from. labels: by kind, (LABEL_SIDE, LABEL_SIDE) float32, the share of each cell that it has."""

    mask_id: str
    quality: float
    labels: dict[str, Floats]


@dataclass(frozen=True)
class Exam:
    """A true mask to be found. truth, counted: (h, w) uint8 of its window; area: its pixels that count, everywhere."""

    mask_id: str
    image: str
    truth: Mask
    counted: Mask
    area: int


class Seen(NamedTuple):
    """A lesson or an exam, and its window (SEEN_SIDE, SEEN_SIDE, 3) uint8 RGB."""

    of: Lesson | Exam
    pixels: Pixels


@dataclass
class Chosen:
    """Rows of COLUMNS to learn from and to be tested on. left_out: how many are neither, by reason."""

    lessons: list[Row]
    exams: list[Row]
    truths: dict[str, Truth]
    left_out: Counter[str] = field(default_factory=Counter)


def images_of(
    truths: Sequence[Truth], test: str | None, train: str | None, access: Access
) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the images to test on, and to learn from: none means all others. test, train: as `read_image_list`.

    Without `test`, half of the truth's images by the parity of their names' hashes. Raises RefusedError.
    """
    names = {one.image_id: one.image_name for one in truths}
    if test is None:
        tested = {name for name in names.values() if hashlib.sha256(name.encode()).digest()[0] % 2 == 0}
    else:
        tested = {names.get(given, given) for given in read_image_list(test, access)}
    learned = set() if train is None else {names.get(given, given) for given in read_image_list(train, access)}
    if both := sorted(tested & learned):
        raise RefusedError(f"to be learned from and tested on at once: {plural(len(both), 'image')}, {both[0]} for one")
    return frozenset(tested), frozenset(learned)


def choose(
    result: Result, truths: Sequence[Truth], test: Collection[str], train: Collection[str], limit: int
) -> Chosen:
    """Masks on images of `test` that have a truth; and of the others, or of those of `train`, if it names any.

    limit: of each, a sample by mask id. Raises RefusedError where there are none of either.
    """
    known = {one.annotation_id: one for one in truths if not one.crowd and binary.area(one.mask)}
    chosen = Chosen([], [], known)
    spurned = rejected(result.store.uri, result.store.access)
    lessons, exams = _Sample(limit), _Sample(limit)
    for row in _rows(result, ["mask_id", "source_mask_id", "image_uri", "decision", "crowd"]):
        is_test = is_named(row["image_uri"], test)
        is_known = row["source_mask_id"] in known if is_test else not train or is_named(row["image_uri"], train)
        why = "rejected" if row["mask_id"] in spurned else _unfit(row)
        if why or not is_known:
            chosen.left_out[why or ("no_truth" if is_test else "other_image")] += 1
        else:
            (exams if is_test else lessons).add(row["mask_id"])
    chosen.left_out["over_the_limit"] += lessons.left_out + exams.left_out
    tested = exams.ids
    for row in _rows(result, COLUMNS, lessons.ids | tested):
        (chosen.exams if row["mask_id"] in tested else chosen.lessons).append(row)
    if not chosen.lessons or not chosen.exams:
        what = "to be tested on" if chosen.lessons else "to learn from"
        raise RefusedError(f"{result.store.uri}: no mask {what}; left out: {dict(+chosen.left_out) or 'none'}")
    return chosen


def _unfit(row: Row) -> str:
    """Why nothing is learned from a mask, wherever it is; empty where something is."""
    return "failed" if row["decision"] == "failed" else "crowd" if row["crowd"] else ""


class _Sample:
    """The `limit` smallest of the mask ids that are added: they are hashes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._added = limit, 0
        self._ids: list[str] = []

    def add(self, mask_id: str) -> None:
        self._added += 1
        self._ids.append(mask_id)
        if len(self._ids) > 2 * self._limit:
            self._ids = heapq.nsmallest(self._limit, self._ids)

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(heapq.nsmallest(self._limit, self._ids))

    @property
    def left_out(self) -> int:
        return max(0, self._added - self._limit)


def is_named(image_uri: str, names: Collection[str]) -> bool:
    """Whether an image is one of `names`: the truth may lack the folders that come before its name."""
    parts = image_uri.split("/")
    return any("/".join(parts[start:]) in names for start in range(len(parts)))


def _rows(result: Result, columns: list[str], ids: Collection[str] | None = None) -> Iterator[Row]:
    where = None if ids is None else pc.field("mask_id").isin(sorted(ids))
    for path in result.files():
        fields = {name: pc.field(name) for name in columns}
        for batch in result.store.scan(path, fields, where, MASKS).to_batches(ROWS):
            yield from batch.to_pylist()


def seen(chosen: Chosen, photos: Photos) -> Iterator[Seen]:
    """Every lesson and exam in its window, image by image; what cannot be read is counted in `chosen.left_out`."""
    tested = {row["mask_id"] for row in chosen.exams}
    rows = sorted([*chosen.lessons, *chosen.exams], key=lambda row: (row["image_uri"], row["mask_id"]))
    image, pixels = "", None
    for row in rows:
        if row["image_uri"] != image:
            image, pixels = row["image_uri"], _read(photos, row)
        truth = chosen.truths.get(row["source_mask_id"])
        why = "image_unreadable" if pixels is None else _unusable(row, truth)
        if why or pixels is None:
            chosen.left_out[why] += 1
            continue
        window = window_around(binary.bbox_xywh(row["coarse_rle"]))
        made = _exam(row, truth, window) if truth and row["mask_id"] in tested else _lesson(row, truth, window)
        yield Seen(made, np.asarray(brought_to(cut_out(pixels, window), SEEN_SIDE), np.uint8))


def _read(photos: Photos, row: Row) -> Pixels | None:
    try:
        return photos.read(row["image_uri"], (row["height"], row["width"]))
    except ImageError:  # counted as image_unreadable
        return None


def _unusable(row: Row, truth: Truth | None) -> str:
    if row["quality"] is None:
        return "no_quality"
    if not row["coarse_rle"] or not row["mask_rle"] or not binary.area(row["coarse_rle"]):
        return "mask_empty"
    sizes = [row["coarse_rle"]["size"], row["mask_rle"]["size"], *([truth.mask["size"]] if truth else [])]
    return "mask_size_mismatch" if any(size != sizes[0] for size in sizes) else ""


def _lesson(row: Row, truth: Truth | None, window: Window) -> Lesson:
    masks = {"coarse": row["coarse_rle"], "refined": row["mask_rle"], **({"true": truth.mask} if truth else {})}
    return Lesson(row["mask_id"], float(row["quality"]), {kind: _label(rle, window) for kind, rle in masks.items()})


def _label(rle: Rle, window: Window) -> Floats:
    return np.asarray(brought_to(cut_out(binary.decode(rle), window).astype(np.float32), LABEL_SIDE), np.float32)


def _exam(row: Row, truth: Truth, window: Window) -> Exam:
    mask = binary.decode(truth.mask)
    counted = np.ones_like(mask) if truth.ignore is None else 1 - binary.decode(truth.ignore)
    inside = cut_out(mask, window), cut_out(counted, window)
    return Exam(row["mask_id"], row["image_uri"], *inside, int(np.count_nonzero(mask & counted)))


def window_around(box_xywh: Sequence[float]) -> Window:
    """The box and a margin, in whole pixels."""
    x, y, width, height = box_xywh
    across, down = width * MARGIN, height * MARGIN
    return Window(int(y - down), int(x - across), max(1, int(height + 2 * down)), max(1, int(width + 2 * across)))


def cut_out(values: Any, window: Window) -> Any:
    """(H, W) or (H, W, C) -> the window's part of it, zero outside the image."""
    top, left, height, width = window
    y, x = max(0, top), max(0, left)
    inside = values[y : max(y, top + height), x : max(x, left + width)]
    part = np.zeros((height, width, *values.shape[2:]), values.dtype)
    part[y - top : y - top + inside.shape[0], x - left : x - left + inside.shape[1]] = inside
    return part


def brought_to(part: Any, side: int) -> Any:
    """(h, w) or (h, w, C) -> (side, side) of it."""
    shrinks = max(part.shape[:2]) > side
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def iou_of(exam: Exam, likely: Floats) -> float:
    """IoU of a prediction, (LABEL_SIDE, LABEL_SIDE) logits in the exam's window, with the whole truth."""
    found = cv2.resize(likely, exam.truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0
    found &= exam.counted.astype(bool)
    shared = int(np.count_nonzero(found & exam.truth.astype(bool)))
    return shared / max(1, int(np.count_nonzero(found)) + exam.area - shared)
