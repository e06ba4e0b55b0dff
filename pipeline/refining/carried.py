"""A chunk on its way through the stages: one Arrow row of its task, its images, and what went wrong. No Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.dataset.failures import place_of
from pipeline.errors import RelabelError
from pipeline.planning.increment import Chunk
from pipeline.progress.breakdown import ChunkFinished
from pipeline.refining.chunk import Task
from pipeline.storage import brief
from schemas.records import CHUNKS, PARTS

MAX_EXAMPLES = 3
SECONDS = ("load_s", "fetch_s", "wait_s", "refine_s", "write_s")
"""What a chunk's time went into. `fetch_s` is the part of `load_s` that waited for files; `wait_s` is how long
its actor, and so its GPU, had nothing to do before it."""

STATUS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("images", pa.int32()),
        ("masks", pa.int32()),
        ("failed_images", pa.int32()),
        ("failed_masks", pa.int32()),
        ("image_reasons", pa.map_(pa.string(), pa.int32())),
        ("mask_reasons", pa.map_(pa.string(), pa.int32())),
        ("examples", pa.list_(pa.string())),
        *((name, pa.float64()) for name in SECONDS),
        ("error", pa.string()),
        ("fatal", pa.bool_()),
    ]
)
"""What comes back to the driver for each chunk. Where its part is written: a ChunkFinished, with the first failed rows
in words. Else the error; a fatal one is one that every chunk would meet."""

TASK = pa.struct(
    [
        ("chunk", pa.struct(list(CHUNKS))),
        ("images", pa.int32()),
        ("round", pa.int32()),
        ("image_ids", pa.list_(pa.string())),
    ]
)
"""A `chunk.Task`."""


class Carried(NamedTuple):
    """A chunk between two stages. `error`: why there are no images, None where all is well."""

    task: Task
    images: pa.Table
    seconds: dict[str, float]
    error: str | None = None
    fatal: bool = False
    execution: str = ""


def to_row(carried: Carried) -> pa.Table:
    """One row of one chunk."""
    images, task = carried.images, carried.task
    values = images.combine_chunks().to_struct_array()
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pa.table(
        {
            "task": pa.array([{**vars(task), "chunk": vars(task.chunk)}], TASK),
            "images": pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values),
            "seconds": pa.array([list(carried.seconds.items())], pa.map_(pa.string(), pa.float64())),
            "error": pa.array([carried.error], pa.string()),
            "fatal": [carried.fatal],
            "execution": [carried.execution],
        }
    )


def from_row(row: pa.Table) -> Carried:
    """The inverse of `to_row`."""
    task = row["task"][0].as_py()
    return Carried(
        Task(**{**task, "chunk": Chunk(**task["chunk"]), "image_ids": tuple(task["image_ids"])}),
        pa.Table.from_struct_array(row["images"].combine_chunks().flatten()),
        dict(row["seconds"][0].as_py()),
        row["error"][0].as_py(),
        row["fatal"][0].as_py(),
        row["execution"][0].as_py(),
    )


def failed(task: Task, error: Exception, schema: pa.Schema, fatal: bool) -> Carried:
    """A chunk that raised `error`."""
    text = brief(error) if isinstance(error, RelabelError) else f"{type(error).__name__}: {brief(error)}"
    return Carried(task, schema.empty_table(), {}, f"chunk {task.chunk.chunk_id}: {text}", fatal)


def without_images(carried: Carried) -> Carried:
    """A failed chunk in the form that the write stage takes."""
    return carried._replace(images=PARTS.empty_table())


def _examples(images: list[dict[str, Any]]) -> Iterator[str]:
    """Failed images, and failed masks of the others: reason, place and what is wrong."""
    for image in images:
        if image["status"] == "failed":
            yield f"{image['reason']}: {place_of(image['image_uri'], None, image['detail'])}"
            continue
        for mask in image["masks"]:
            if mask["reason"] is not None:
                yield f"{mask['reason']}: {place_of(image['image_uri'], mask['source_mask_id'], mask['detail'])}"


def status(carried: Carried) -> pa.Table:
    """The chunk's row of STATUS."""
    columns = ["image_uri", "status", "reason", "detail", "masks"]
    images: list[dict[str, Any]] = carried.images.select(columns).to_pylist()
    masks = [mask for image in images for mask in image["masks"]]
    row = {
        "chunk_id": carried.task.chunk.chunk_id,
        "images": len(images),
        "masks": len(masks),
        "failed_images": sum(image["status"] == "failed" for image in images),
        "failed_masks": sum(mask["reason"] is not None for mask in masks),
        "image_reasons": list(Counter(image["reason"] for image in images if image["status"] == "failed").items()),
        "mask_reasons": list(Counter(mask["reason"] for mask in masks if mask["reason"]).items()),
        "examples": list(islice(_examples(images), MAX_EXAMPLES)),
        **{name: carried.seconds.get(name, 0.0) for name in SECONDS},
        "error": carried.error,
        "fatal": carried.fatal,
    }
    return pa.Table.from_pylist([row], STATUS)


def finished(row: dict[str, Any]) -> ChunkFinished:
    """A row of STATUS without an error, as the driver passes it on."""
    fields = {name: value for name, value in row.items() if name not in ("error", "fatal")}
    return ChunkFinished(**{**fields, **{kind: dict(row[kind]) for kind in ("image_reasons", "mask_reasons")}})
