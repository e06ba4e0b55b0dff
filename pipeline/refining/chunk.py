"""What the workers do with one chunk: load it (`loading.py`), refine it, write its part. No Ray, nothing about order.

A chunk travels as an Arrow table with a row per image: PLAN when read, LOADED on the way to the model, PARTS after it.
A row failure is data: `status`, `reason`. A chunk of which the store gave nothing, or on which the model fails, is an
exception: who called decides what that means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import models, refiners
from pipeline.errors import JobError
from pipeline.masks.frames import Frame
from pipeline.models import Model, ModelSpec, frame_for
from pipeline.models.weights import Weights
from pipeline.planning.increment import Chunk, read_chunk
from pipeline.refiners import RefinedMask, RefineImage, Refiner
from pipeline.refining.loading import INPUT_SIDES_DECODED, Inputs, Row, load
from pipeline.refining.ways import ways
from pipeline.storage import Store
from schemas import layout
from schemas.config import Method
from schemas.records import PARTS

__all__ = ["INPUT_SIDES_DECODED", "Inputs", "Job", "Task", "load", "refinable", "refine", "write"]


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


def refine(loaded: pa.Table, model: Model, method: Method, refiner: Refiner | None = None) -> pa.Table:
    """LOADED -> PARTS: refine every mask of every image that could be loaded. refiner: see Job."""
    rows = loaded.drop_columns(["pixels", "pixels_hw"]).to_pylist()
    for own, categories in ways(method, (mask["category"] for row in rows for mask in _usable(row))):
        images, targets = [], []
        for row, pixels in zip(rows, _pixels(loaded), strict=True):
            usable = [mask for mask in _usable(row) if categories is None or mask["category"] in categories]
            if pixels is not None and usable:
                images.append(_refine_image(usable, pixels, frame_for(model, (row["height"], row["width"]))))
                targets.append(usable)
        for usable, refined in zip(targets, refiners.refine(model, images, own, refiner), strict=True):
            for mask, result in zip(usable, refined, strict=True):
                _fill(mask, result)
    return pa.Table.from_pylist(rows, PARTS)


def refinable(loaded: pa.Table, model: Model) -> Iterator[RefineImage]:
    """The images of LOADED that have a mask to refine."""
    rows = loaded.drop_columns(["pixels", "pixels_hw"]).to_pylist()
    for row, pixels in zip(rows, _pixels(loaded), strict=True):
        if pixels is not None and _usable(row):
            yield _refine_image(_usable(row), pixels, frame_for(model, (row["height"], row["width"])))


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


def _refine_image(masks: Sequence[Row], pixels: npt.NDArray[np.uint8], frame: Frame) -> RefineImage:
    return RefineImage(pixels, frame, [mask["coarse_rle"] for mask in masks])


def _fill(mask: Row, result: RefinedMask) -> None:
    """Scores that the refiner does not know (NaN) stay null."""
    mask["refined_rle"] = result.rle
    mask.update({name: value for name, value in result.scores.items() if not math.isnan(value)})


def _pixels(loaded: pa.Table) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]] | None]:
    """(h, w, 3) uint8 views of the table's memory, read-only; None for failed images."""
    for data, size in zip(loaded["pixels"], loaded["pixels_hw"].to_pylist(), strict=True):
        yield None if size is None else np.frombuffer(data.as_buffer(), np.uint8).reshape(*size, 3)
