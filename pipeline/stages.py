"""The refining stages on Ray Data: read plan rows -> load (tasks) -> refine (actors with the model) -> write (tasks).

One Ray row is one chunk, {chunk_id, images: list<struct>}. So a chunk is never split or joined with another by Ray's
blocks and batches, and what a model batch is made of depends on the chunk alone. The order in which chunks run, where,
and how often, is Ray's business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pipeline import work
from pipeline.errors import JobError, RelabelError
from pipeline.models import execution_class, load_model
from pipeline.models.weights import Weights
from pipeline.plan import Chunk, read_chunk
from pipeline.storage import Store, brief
from pipeline.work import Inputs, Task
from schemas.config import Method, Operation

STATUS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("images", pa.int32()),
        ("masks", pa.int32()),
        ("failed_images", pa.int32()),
        ("failed_masks", pa.int32()),
    ]
)
"""What comes back to the driver for each chunk whose part has been written."""


@dataclass(frozen=True)
class Resources:
    """Ray reservations. CPU numbers are shares for scheduling, not threads (see `reserve`)."""

    actors: tuple[int, int]
    gpus_per_actor: float
    actor_cpus: float
    task_cpus: float


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to know; small, picklable, without credentials."""

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


def reserve(operation: Operation, cluster: dict[str, float]) -> Resources:
    """Reservations that let every stage run at once, down to two CPUs; a GPU an actor where the cluster has them.

    Actors on CPU compute in `threads_per_actor` threads but reserve three quarters of a CPU, so that loading and
    writing always find a slot; a reserved whole CPU per actor would leave them none on a small machine.
    """
    gpus = cluster.get("GPU", 0.0)
    cpus = max(1.0, cluster.get("CPU", 1.0))
    per_actor = operation.gpus_per_actor if operation.gpus_per_actor is not None else (1.0 if gpus else 0.0)
    natural = int(gpus / per_actor) if per_actor else int(cpus / operation.threads_per_actor)
    low = operation.actors_min or operation.actors_max or max(1, natural)
    high = operation.actors_max or max(low, natural)
    task_cpus = 0.25 if cpus < 8 or not per_actor else 1.0
    wanted = 1.0 if per_actor else 0.75 * operation.threads_per_actor
    return Resources((low, high), per_actor, round(min(wanted, max(0.05, (cpus - 2 * task_cpus) / low)), 2), task_cpus)


def refine_chunks(
    tasks: Sequence[Task],
    job: Job,
    resources: Resources,
    segment_chunks: int,
    on_status: Callable[[dict[str, Any]], None],
) -> None:
    """Run every task to its part. Raises JobError when the pipeline cannot go on; finished parts stay."""
    for start in range(0, len(tasks), segment_chunks):
        segment = tasks[start : start + segment_chunks]
        try:
            for batch in _pipeline(segment, job, resources).iter_batches(batch_size=None, batch_format="pyarrow"):
                for status in batch.to_pylist():
                    on_status(status)
        except RelabelError:
            raise
        except ray.exceptions.RayError as error:
            raise _as_job_error(error) from error


def _pipeline(tasks: Sequence[Task], job: Job, resources: Resources) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = None  # a row is a chunk; Ray must not cut blocks by its own measure
    low, high = resources.actors
    task = {"num_cpus": resources.task_cpus, "batch_size": None, "batch_format": "pyarrow"}
    return (
        ray.data.read_datasource(_Chunks(tasks, job), num_cpus=resources.task_cpus)
        .map_batches(
            _Refine,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(min_size=min(low, len(tasks)), max_size=min(high, len(tasks))),
            num_cpus=resources.actor_cpus,
            num_gpus=resources.gpus_per_actor or None,
            batch_size=1,
            batch_format="pyarrow",
        )
        .map_batches(_write, fn_args=(job,), **task)
    )


class _Chunks(Datasource):
    """One read task for each chunk: read its plan rows and load its images. A task carries only where they stand."""

    def __init__(self, tasks: Sequence[Task], job: Job) -> None:
        super().__init__()
        self._tasks = tasks
        self._job = ray.put(job)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_args: Any, **_kwargs: Any) -> list[ReadTask]:  # noqa: ARG002 - Ray's
        metadata = BlockMetadata(num_rows=1, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(_reader(task, self._job), metadata) for task in self._tasks]


def _reader(task: Task, job_ref: Any) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        job: Job = ray.get(job_ref)
        planned = read_chunk(job.output, task.chunk).slice(0, task.images)
        yield _to_row(task, work.load(planned, job.inputs, job.method, job.input_side, job.fetch_threads))

    return read


class _Refine:
    """The actor: holds the model, refines chunk by chunk."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model = load_model(job.method.model, job.weights, job.device, job.threads)
        self._execution = execution_class(job.device, job.threads)

    def __call__(self, row: pa.Table) -> pa.Table:
        task, loaded = _from_row(row)
        _log_attempt(self._job, "started", task)
        part = work.refine(loaded, self._model, self._job.method)
        return _to_row(task, part).append_column("execution", pa.array([self._execution]))


def _write(row: pa.Table, job: Job) -> pa.Table:
    if row.num_rows != 1:
        raise JobError(f"the write stage was given {row.num_rows} chunks at once")
    task, part = _from_row(row)
    work.write(part, task, job.run, row["execution"][0].as_py())
    _log_attempt(job, "finished", task)
    images = part.select(["status", "masks"]).to_pylist()
    masks = [mask for image in images for mask in image["masks"]]
    status = {
        "chunk_id": task.chunk.chunk_id,
        "images": len(images),
        "masks": len(masks),
        "failed_images": sum(image["status"] == "failed" for image in images),
        "failed_masks": sum(mask["reason"] is not None for mask in masks),
    }
    return pa.Table.from_pylist([status], STATUS)


def _to_row(task: Task, images: pa.Table) -> pa.Table:
    """A chunk's table as one row."""
    values = images.combine_chunks().to_struct_array()
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    nested = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    return pa.table({"task": [{**vars(task), "chunk": vars(task.chunk)}], "images": nested})


def _from_row(row: pa.Table) -> tuple[Task, pa.Table]:
    """One row -> the chunk's task and its table."""
    task = row["task"][0].as_py()
    images = pa.Table.from_struct_array(row["images"].combine_chunks().flatten())
    return Task(Chunk(**task["chunk"]), task["images"]), images


def _log_attempt(job: Job, event: str, task: Task) -> None:
    """One line for each chunk started or finished; appends of one short line do not mix."""
    if job.attempt_log:
        with Path(job.attempt_log).open("a", encoding="utf-8") as log:
            log.write(f"{time.time():.3f} {os.getpid()} {event} {task.part}\n")


def _as_job_error(error: BaseException) -> JobError:
    """The cause that a worker raised, without Ray's layers around it."""
    cause: BaseException = error
    while True:
        inner = getattr(cause, "cause", None) or cause.__cause__
        if not isinstance(inner, BaseException) or inner is cause:
            break
        cause = inner
    if isinstance(cause, JobError):
        return cause
    return JobError(f"a worker failed: {type(cause).__name__}: {brief(cause)}")
