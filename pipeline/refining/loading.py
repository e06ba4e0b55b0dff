"""A chunk's images and masks: fetched ahead, decoded, brought to the model's input size. No Ray here.

A row failure is data: `status`, `reason`. A chunk of which the store gave nothing is an exception.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.decoding.coarse import UnusableMaskError, coarse_mask, frame_of_masks, mask_file
from pipeline.decoding.decode import decode_reduced
from pipeline.errors import ImageError, MaskError, RowError, StorageError
from pipeline.masks.frames import resize_to_input
from pipeline.refiners import looks_closer
from pipeline.storage import Store, brief
from pipeline.storage.containers import Member, read_cells, read_member
from pipeline.storage.paths import safe_relative
from schemas.config import Method
from schemas.records import LOADED, SCORES

Row = dict[str, Any]

KEPT_OF_IMAGE = ("image_id", "image_uri", "source_image_id", "height", "width", "extra", "detail")
KEPT_OF_MASK = ("mask_id", "source_mask_id", "category_id", "category", "detail", "extra")
INPUT_SIDES_DECODED = 2
"""A JPEG is decoded to no fewer pixels a side than so many times the model's: the last reduction is a fine filter's."""


@dataclass(frozen=True)
class Inputs:
    """Where a run reads from. `masks` is None where the annotations hold the masks themselves."""

    images: Store
    masks: Store | None


_MaskFiles = dict[str, bytes | MaskError]


class _Fetched(NamedTuple):
    image: bytes | ImageError
    mask_files: _MaskFiles


def load(
    planned: pa.Table,
    inputs: Inputs,
    method: Method,
    input_side: int,
    threads: int,
    on_wait: Callable[[float], None] = lambda _seconds: None,
    *,
    stretched: bool = False,
) -> pa.Table:
    """PLAN -> LOADED: fetch, decode, resize. Files are fetched ahead in `threads`, images decoded one at a time.

    on_wait: called with each time, in seconds, for which decoding waited for files. stretched: see masks/frames.py.

    Raises StorageError when the store gave nothing: that is its fault, not that of each image.
    """
    rows = planned.to_pylist()
    in_tables = [(row["image_id"], row["member"]) for row in rows if row["member"] and row["member"]["column"]]
    started = time.perf_counter()
    cells = read_cells(inputs.images, in_tables)
    on_wait(time.perf_counter() - started)
    fetched = _timed(_fetch_ahead(rows, inputs, cells, threads), on_wait)
    seen = partial(_load_image, method=method, input_side=input_side, stretched=stretched)
    loaded = [seen(row, files) for row, files in zip(rows, fetched, strict=True)]
    if loaded and all(_unanswered(row) for row in loaded):
        raise StorageError(
            f"{inputs.images.uri} gave none of the {len(loaded)} images of a chunk, or none of its masks"
        )
    return pa.Table.from_pylist(loaded, LOADED)


def _unanswered(row: Row) -> bool:
    """Whether an image was lost to the store, or all of its masks were. Images that a verdict failed do not count."""
    masks = [mask["reason"] for mask in row["masks"]]
    return row["reason"] == "storage" or (bool(masks) and set(masks) == {"storage"})


def _fetch_ahead(
    rows: list[Row], inputs: Inputs, cells: Mapping[str, bytes | ImageError], threads: int
) -> Iterator[_Fetched]:
    """The rows' files in order; a bounded number of them is held."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Any] = deque()
        for row in rows:
            waiting.append(pool.submit(_fetch, row, inputs, cells))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _timed(values: Iterator[_Fetched], on_wait: Callable[[float], None]) -> Iterator[_Fetched]:
    while True:
        started = time.perf_counter()
        value = next(values, None)
        on_wait(time.perf_counter() - started)
        if value is None:
            return
        yield value


def _fetch(row: Row, inputs: Inputs, cells: Mapping[str, bytes | ImageError]) -> _Fetched:
    """The image's bytes and those of the mask files that its geometries name; what cannot be read as its error."""
    if row["problem"]:
        return _Fetched(ImageError(row["problem"]), {})
    if not safe_relative(row["image_uri"]):
        return _Fetched(ImageError("image_outside_root", row["image_uri"]), {})
    try:
        image = cells.get(row["image_id"]) or _read_image(row, inputs.images)
    except ImageError as error:
        return _Fetched(error, {})
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):  # a value: no name of a file
        return _Fetched(ImageError("image_missing", row["image_uri"]), {})
    except StorageError as error:
        return _Fetched(ImageError("storage", brief(error)), {})
    paths = {path for mask in row["masks"] if (path := mask_file(mask["geometry"]))}
    return _Fetched(image, {path: _read_mask_file(inputs.masks, path) for path in paths})


def _read_image(row: Row, images: Store) -> bytes | ImageError:
    member: Member | None = row["member"]
    return read_member(images, member) if member else images.read(row["image_uri"], row["size_bytes"])


def _read_mask_file(store: Store | None, path: str) -> bytes | MaskError:
    if store is None or not safe_relative(path):
        return MaskError("mask_missing", path)
    try:
        return store.read(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return MaskError("mask_missing", path)
    except StorageError as error:
        return MaskError("storage", brief(error))


def _load_image(row: Row, fetched: _Fetched, method: Method, input_side: int, stretched: bool) -> Row:
    declared = (row["height"], row["width"]) if row["height"] and row["width"] else None
    loaded = {name: row[name] for name in KEPT_OF_IMAGE}
    try:
        if isinstance(fetched.image, ImageError):
            raise fetched.image
        frame = declared or frame_of_masks((mask["geometry"] for mask in row["masks"]), fetched.mask_files)
        side, at_most = input_side * INPUT_SIDES_DECODED, looks_closer(method)
        each = stretched and not at_most
        image, size_hw, how = decode_reduced(fetched.image, method.max_image_pixels, frame, side, each)
    except ImageError as error:
        masks = [_mask_row(mask, error) for mask in row["masks"]]
        failed = {"status": "failed", "reason": error.reason, "detail": row["detail"] or error.detail or None}
        return {**loaded, **failed, "attempt": 0, "masks": masks, "pixels": None, "pixels_hw": None}
    pixels = resize_to_input(image, input_side, size_hw, stretched, at_most)
    return {
        **loaded,
        "height": size_hw[0],
        "width": size_hw[1],
        "status": "ok",
        "reason": None,
        "detail": row["detail"] or how or None,
        "attempt": 0,
        "masks": [_load_mask(mask, size_hw, declared or size_hw, fetched.mask_files) for mask in row["masks"]],
        "pixels": pixels.tobytes(),
        "pixels_hw": list(pixels.shape[:2]),
    }


def _load_mask(mask: Row, size_hw: tuple[int, int], declared_hw: tuple[int, int], files: _MaskFiles) -> Row:
    try:
        rle, detail = coarse_mask(mask["geometry"], size_hw, declared_hw, files)
        return {**_mask_row(mask), "coarse_rle": rle, "detail": mask["detail"] or detail or None}
    except UnusableMaskError as error:
        return {**_mask_row(mask, error), "coarse_rle": error.rle}
    except MaskError as error:
        return _mask_row(mask, error)


def _mask_row(mask: Row, error: RowError | None = None) -> Row:
    row = {name: mask[name] for name in KEPT_OF_MASK} | {"crowd": bool(mask["crowd"]), "reason": None}
    row |= {"reason": error.reason, "detail": mask["detail"] or error.detail or None} if error else {}
    return row | dict.fromkeys(["coarse_rle", "refined_rle", *(name for name, _ in SCORES)])
