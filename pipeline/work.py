"""What the workers do with one chunk: load it, refine it, write its part. No Ray here, and nothing about order.

A chunk travels as an Arrow table with a row per image: PLAN when read, LOADED on the way to the model, PARTS after it.
A row failure is data: `status`, `reason`. What fails everything (revoked credentials, a broken model) is a JobError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.coarse import UnusableMaskError, coarse_rle, mask_file
from pipeline.errors import ImageError, JobError, MaskError, RowError
from pipeline.geometry import Frame, resize_to_input
from pipeline.images import decode_image
from pipeline.models import Model
from pipeline.plan import Chunk
from pipeline.refiners import REFINERS, RefinedMask, RefineImage
from pipeline.sources.types import safe_relative
from pipeline.storage import Store, brief
from schemas.config import Method
from schemas.records import LOADED, PARTS, SCORES

ALL_FAILED_LIMIT = 8
"""A chunk of at least so many images, none of which the store would give: the store is at fault, not the images."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One chunk to be done; `images` below the chunk's number when a limit cuts it."""

    chunk: Chunk
    images: int

    @property
    def part(self) -> str:
        """The part's path, relative to the run's folder."""
        cut = "" if self.images == self.chunk.images else f".first{self.images}"
        return f"parts/{self.chunk.chunk_id}{cut}.parquet"


@dataclass(frozen=True)
class Inputs:
    """Where a run reads from. `masks` is None where the annotations hold the masks themselves."""

    images: Store
    masks: Store | None


_MaskFiles = dict[str, bytes | MaskError]


class _Fetched(NamedTuple):
    image: bytes | ImageError
    mask_files: _MaskFiles


def load(planned: pa.Table, inputs: Inputs, method: Method, input_side: int, threads: int) -> pa.Table:
    """PLAN -> LOADED: fetch, decode, resize. Files are fetched ahead in `threads`, images decoded one at a time."""
    rows = planned.to_pylist()
    with ThreadPoolExecutor(threads) as pool:
        fetched = pool.map(lambda row: _fetch(row, inputs), rows)
        loaded = [_load_image(row, files, method, input_side) for row, files in zip(rows, fetched, strict=True)]
    storage_failures = sum(row["reason"] == "storage" for row in loaded)
    if storage_failures == len(loaded) >= ALL_FAILED_LIMIT:
        raise JobError(f"{inputs.images.uri} gave none of the {len(loaded)} images of a chunk; nothing was committed")
    return pa.Table.from_pylist(loaded, LOADED)


def refine(loaded: pa.Table, model: Model, method: Method) -> pa.Table:
    """LOADED -> PARTS: refine every mask of every image that could be loaded."""
    rows = loaded.drop_columns(["pixels", "pixels_hw"]).to_pylist()
    images, targets = [], []
    for row, pixels in zip(rows, _pixels(loaded), strict=True):
        usable = [mask for mask in row["masks"] if mask["reason"] is None]
        if pixels is not None and usable:
            frame = Frame((row["height"], row["width"]), model.input_side)
            images.append(RefineImage(pixels, frame, [mask["coarse_rle"] for mask in usable]))
            targets.append(usable)
    for usable, refined in zip(targets, REFINERS[method.refiner](model, images, method), strict=True):
        for mask, result in zip(usable, refined, strict=True):
            _fill(mask, result)
    return pa.Table.from_pylist(rows, PARTS)


def write(part: pa.Table, task: Task, run: Store, execution: str) -> None:
    """Put a finished part. The same chunk on the same execution class gives the same bytes, so twice is harmless."""
    if part.num_rows != task.images:
        raise JobError(f"chunk {task.chunk.chunk_id} came back with {part.num_rows} of its {task.images} images")
    metadata = {"chunk_id": task.chunk.chunk_id, "execution_class": execution}
    run.put_parquet(task.part, part.replace_schema_metadata(metadata))


def _fetch(row: Row, inputs: Inputs) -> _Fetched:
    """The image's bytes and those of the mask files that its geometries name; what cannot be read as its error."""
    if row["problem"]:
        return _Fetched(ImageError(row["problem"]), {})
    if not safe_relative(row["image_uri"]):
        return _Fetched(ImageError("image_outside_root", row["image_uri"]), {})
    try:
        image = inputs.images.read(row["image_uri"])
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return _Fetched(ImageError("image_missing", row["image_uri"]), {})
    except Exception as error:  # every store has exceptions of its own; they are out of retries
        return _Fetched(ImageError("storage", brief(error)), {})
    paths = {path for mask in row["masks"] if (path := mask_file(mask["geometry"]))}
    return _Fetched(image, {path: _read_mask_file(inputs.masks, path) for path in paths})


def _read_mask_file(store: Store | None, path: str) -> bytes | MaskError:
    if store is None or not safe_relative(path):
        return MaskError("mask_missing", path)
    try:
        return store.read(path)
    except FileNotFoundError:
        return MaskError("mask_missing", path)
    except Exception as error:  # every store has exceptions of its own; they are out of retries
        return MaskError("storage", brief(error))


def _load_image(row: Row, fetched: _Fetched, method: Method, input_side: int) -> Row:
    declared = (row["height"], row["width"]) if row["height"] and row["width"] else None
    loaded = {name: row[name] for name in ("image_id", "image_uri", "source_image_id", "height", "width")}
    try:
        if isinstance(fetched.image, ImageError):
            raise fetched.image
        image = decode_image(fetched.image, method.max_image_pixels, declared)
    except ImageError as error:
        masks = [_mask_row(mask, error) for mask in row["masks"]]
        failed = {"status": "failed", "reason": error.reason, "attempt": 0, "masks": masks}
        return {**loaded, **failed, "pixels": None, "pixels_hw": None}
    size_hw = image.shape[0], image.shape[1]
    pixels = resize_to_input(image, input_side)
    return {
        **loaded,
        "height": size_hw[0],
        "width": size_hw[1],
        "status": "ok",
        "reason": None,
        "attempt": 0,
        "masks": [_load_mask(mask, size_hw, declared or size_hw, fetched.mask_files) for mask in row["masks"]],
        "pixels": pixels.tobytes(),
        "pixels_hw": list(pixels.shape[:2]),
    }


def _load_mask(mask: Row, size_hw: tuple[int, int], declared_hw: tuple[int, int], files: _MaskFiles) -> Row:
    try:
        return {**_mask_row(mask), "coarse_rle": coarse_rle(mask["geometry"], size_hw, declared_hw, files)}
    except UnusableMaskError as error:
        return {**_mask_row(mask, error), "coarse_rle": error.rle}
    except MaskError as error:
        return _mask_row(mask, error)


def _mask_row(mask: Row, error: RowError | None = None) -> Row:
    row = {name: mask[name] for name in ("mask_id", "source_mask_id", "category_id", "category")}
    empty = dict.fromkeys(["coarse_rle", "refined_rle", *(name for name, _ in SCORES)])
    return {**row, **empty, "reason": error.reason if error else None}


def _fill(mask: Row, result: RefinedMask) -> None:
    """Scores that the refiner does not know (NaN) stay null."""
    mask["refined_rle"] = result.rle
    mask.update({name: value for name, value in result.scores.items() if not math.isnan(value)})


def _pixels(loaded: pa.Table) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]] | None]:
    """(h, w, 3) uint8 views of the table's memory, read-only; None for failed images."""
    for data, size in zip(loaded["pixels"], loaded["pixels_hw"].to_pylist(), strict=True):
        yield None if size is None else np.frombuffer(data.as_buffer(), np.uint8).reshape(*size, 3)
