"""What the workers do with one chunk: load it, refine it, write its part. No Ray here, and nothing about order.

A chunk travels as an Arrow table with a row per image: PLAN when read, LOADED on the way to the model, PARTS after it.
A row failure is data: `status`, `reason`. A chunk of which the store gave nothing, or on which the model fails, is an
exception: who called decides what that means.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import models, refiners
from pipeline.errors import ImageError, JobError, MaskError, RowError, StorageError
from pipeline.masks.coarse import UnusableMaskError, coarse_mask, frame_of_masks, mask_file
from pipeline.masks.decode import decode_reduced
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models import Model, ModelSpec, frame_for
from pipeline.models.weights import Weights
from pipeline.planning.increment import Chunk, read_chunk
from pipeline.refiners import RefinedMask, RefineImage, Refiner
from pipeline.storage import Store, brief
from pipeline.storage.containers import Member, read_cells, read_member
from pipeline.storage.paths import safe_relative
from schemas import layout
from schemas.config import Method
from schemas.records import LOADED, PARTS, SCORES

Row = dict[str, Any]

KEPT_OF_IMAGE = ("image_id", "image_uri", "source_image_id", "height", "width", "extra", "detail")
KEPT_OF_MASK = ("mask_id", "source_mask_id", "category_id", "category", "detail", "extra")
INPUT_SIDES_DECODED = 2
"""A JPEG is decoded to no fewer pixels a side than so many times the model's: the last reduction is a fine filter's."""


@dataclass(frozen=True)
class Task:
    """One chunk to be done: its first `images` (all, unless a limit cuts it), or `image_ids` in retry round `round`."""

    chunk: Chunk
    images: int
    round: int = 0
    image_ids: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """The part's path, relative to the run's folder."""
        cut = None if self.images == self.chunk.images else self.images
        return layout.part(self.chunk.chunk_id, cut, self.round)

    def rows(self, output: Store) -> pa.Table:
        """The task's plan rows (schema PLAN)."""
        table = read_chunk(output, self.chunk)
        if not self.round:
            return table.slice(0, self.images)
        return table.filter(pc.is_in(table["image_id"], pa.array(self.image_ids, pa.string())))


@dataclass(frozen=True)
class Inputs:
    """Where a run reads from. `masks` is None where the annotations hold the masks themselves."""

    images: Store
    masks: Store | None


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to know; small, picklable, without credentials. memory_bytes: its limit, if any."""

    output: Store
    run: Store
    inputs: Inputs
    method: Method
    weights: Weights
    input_side: int
    threads: int
    fetch_threads: int
    device: str
    attempt_log: str | None
    memory_bytes: int | None = None
    spec: ModelSpec | None = None  # what the method names, as it and `refiner` may be registered in the driver alone
    refiner: Refiner | None = None
    loader: Callable[[ModelSpec | str, Weights, str, int], Model] = models.load_model
    execution_of: Callable[[str, int], str] = models.execution_class

    @property
    def stretched(self) -> bool:
        """Whether images are loaded for a model that stretches them."""
        return self.spec is not None and self.spec.stretched

    def load_model(self) -> Model:
        """The model, ready on the device."""
        return self.loader(self.spec or self.method.model, self.weights, self.device, self.threads)

    @property
    def execution(self) -> str:
        """The execution class of this worker."""
        return self.execution_of(self.device, self.threads)


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


def refine(loaded: pa.Table, model: Model, method: Method, refiner: Refiner | None = None) -> pa.Table:
    """LOADED -> PARTS: refine every mask of every image that could be loaded. refiner: see Job."""
    rows = loaded.drop_columns(["pixels", "pixels_hw"]).to_pylist()
    images, targets = [], []
    for row, pixels in zip(rows, _pixels(loaded), strict=True):
        usable = _usable(row)
        if pixels is not None and usable:
            images.append(_refine_image(row, pixels, frame_for(model, (row["height"], row["width"]))))
            targets.append(usable)
    for usable, refined in zip(targets, refiners.refine(model, images, method, refiner), strict=True):
        for mask, result in zip(usable, refined, strict=True):
            _fill(mask, result)
    return pa.Table.from_pylist(rows, PARTS)


def refinable(loaded: pa.Table, model: Model) -> Iterator[RefineImage]:
    """The images of LOADED that have a mask to refine."""
    rows = loaded.drop_columns(["pixels", "pixels_hw"]).to_pylist()
    for row, pixels in zip(rows, _pixels(loaded), strict=True):
        if pixels is not None and _usable(row):
            yield _refine_image(row, pixels, frame_for(model, (row["height"], row["width"])))


def write(part: pa.Table, task: Task, run: Store, execution: str) -> None:
    """Put a finished part. The same chunk on the same execution class gives the same bytes, so twice is harmless."""
    if part.num_rows != task.images:
        raise JobError(f"chunk {task.chunk.chunk_id} came back with {part.num_rows} of its {task.images} images")
    attempt = pa.array([task.round] * part.num_rows, pa.int32())
    part = part.set_column(part.schema.get_field_index("attempt"), "attempt", attempt)
    metadata = {"chunk_id": task.chunk.chunk_id, "execution_class": execution}
    run.put_parquet(task.part, part.replace_schema_metadata(metadata))


def _usable(row: Row) -> list[Row]:
    return [mask for mask in row["masks"] if mask["reason"] is None and not mask["crowd"]]


def _refine_image(row: Row, pixels: npt.NDArray[np.uint8], frame: Frame) -> RefineImage:
    return RefineImage(pixels, frame, [mask["coarse_rle"] for mask in _usable(row)])


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
        side = input_side * INPUT_SIDES_DECODED
        image, size_hw, how = decode_reduced(fetched.image, method.max_image_pixels, frame, side, stretched)
    except ImageError as error:
        masks = [_mask_row(mask, error) for mask in row["masks"]]
        failed = {"status": "failed", "reason": error.reason, "detail": row["detail"] or error.detail or None}
        return {**loaded, **failed, "attempt": 0, "masks": masks, "pixels": None, "pixels_hw": None}
    pixels = resize_to_input(image, input_side, size_hw, stretched)
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


def _fill(mask: Row, result: RefinedMask) -> None:
    """Scores that the refiner does not know (NaN) stay null."""
    mask["refined_rle"] = result.rle
    mask.update({name: value for name, value in result.scores.items() if not math.isnan(value)})


def _pixels(loaded: pa.Table) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]] | None]:
    """(h, w, 3) uint8 views of the table's memory, read-only; None for failed images."""
    for data, size in zip(loaded["pixels"], loaded["pixels_hw"].to_pylist(), strict=True):
        yield None if size is None else np.frombuffer(data.as_buffer(), np.uint8).reshape(*size, 3)
