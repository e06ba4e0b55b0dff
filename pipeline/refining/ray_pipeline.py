"""The refining stages on Ray Data: read plan rows -> load (tasks) -> refine (actors with the model) -> write (tasks).

One Ray row is one chunk, {chunk_id, images: list<struct>}. So a chunk is never split or joined with another by Ray's
blocks and batches, and what a model batch is made of depends on the chunk alone. The order in which chunks run, where,
and how often, is Ray's business.

A chunk whose worker dies is tried a bounded number of times, one that raises an error once; then the pipeline goes on
without it. What is left over at the end is run again alone (isolate.py). Many errors in a row stop the job.

A long run is several such pipelines, one after another, each of a segment of the chunks: Ray Data holds something of
each chunk until it is done. The actors stay (kept_actors.py).
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.data.exceptions import SystemException

from pipeline.cluster.resources import Resources
from pipeline.errors import JobError, RefusedError, RelabelError, StorageError
from pipeline.progress.breakdown import ChunkFinished
from pipeline.refining import carried
from pipeline.refining import chunk as chunk_work
from pipeline.refining.busy_time import BusyClock, SingleThreadProxy
from pipeline.refining.carried import Carried, from_row, to_row
from pipeline.refining.chunk import Job, Task
from pipeline.refining.isolate import good_images, isolate
from pipeline.refining.kept_actors import KeptActors, kept_actors, stay_with
from pipeline.refining.subprocess_worker import limit_memory, run_fresh
from pipeline.storage import brief
from schemas.records import LOADED, PARTS

logger = logging.getLogger(__name__)

RETRIES = 2
"""Of a chunk whose worker died, in the first pass. Ray's default has no end, and neither would an input that kills."""
INIT_DEATHS = 3
"""So many actors in a row that die before they hold the model: it is the model."""
ERRORS_IN_A_ROW = 5
"""So many chunks in a row with an error: it is the storage, the model or the machine."""


def refine_chunks(
    segments: Iterable[Sequence[Task]], job: Job, resources: Resources, several: bool
) -> Iterator[ChunkFinished]:
    """Run every task to its part. Raises JobError when the pipeline cannot go on; finished parts stay.

    several: whether there is more than one segment, so that it is worth while to keep the actors. Their number has to
    be fixed then: a pool that lets go of some and asks for others would be given more than there is room for.
    """
    with kept_actors(several) as actors:
        for tasks in segments:
            yield from _refine_segment(tasks, job, resources, actors)


def _refine_segment(
    tasks: Sequence[Task], job: Job, resources: Resources, actors: KeptActors | None
) -> Iterator[ChunkFinished]:
    done = set()
    for finished in _first_pass(tasks, job, resources, actors):
        done.add(finished.chunk_id)
        yield finished
    if left := [task for task in tasks if task.chunk.chunk_id not in done]:
        logger.warning("%d chunks were left undone by the first pass; they are run alone", len(left))
        if actors:
            actors.end()  # who runs alone needs what they hold of the cluster
        yield from _isolate_all(left, good_images(job.output, job.run), job, resources)


def _first_pass(
    tasks: Sequence[Task], job: Job, resources: Resources, actors: KeptActors | None
) -> Iterator[ChunkFinished]:
    """Run tasks through the pipeline; some may be left undone."""
    errors: list[str] = []
    try:
        dataset = _pipeline(tasks, job, resources, actors)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for status in batch.to_pylist():
                if status["error"] is None:
                    errors.clear()
                    yield carried.finished(status)
                    continue
                logger.warning("%s", status["error"])
                errors.append(status["error"])
                if status["fatal"]:
                    raise JobError(status["error"])
                if len(errors) >= ERRORS_IN_A_ROW:
                    raise JobError(f"{len(errors)} chunks in a row failed, none was committed: {errors[-1]}")
        if actors:
            actors.made_by(dataset)
    except RelabelError:
        raise
    except ray.exceptions.RayError as error:
        raise _as_job_error(error) from error


def _isolate_all(
    tasks: Sequence[Task], good: pa.Table | None, job: Job, resources: Resources
) -> Iterator[ChunkFinished]:
    """Finish tasks one by one in fresh processes. A lost node is Ray's business: it starts the task elsewhere, anew."""
    gpus = resources.gpus_per_actor or None
    alone = ray.remote(num_cpus=resources.actor_cpus, num_gpus=gpus, max_retries=-1, max_calls=1)(_isolate)
    for task in tasks:
        try:
            [status] = ray.get(alone.remote(task, good, job)).to_pylist()
        except ray.exceptions.RayError as error:
            raise _as_job_error(error) from error
        yield carried.finished(status)


def _isolate(task: Task, good: pa.Table | None, job: Job) -> pa.Table:
    planned = task.rows(job.output)
    _log_attempt(job, "isolated", task)
    part = isolate(planned, lambda rows: run_fresh(rows, job), good)
    return carried.status(_commit(Carried(task, part, {}, execution=job.execution), job))


def _pipeline(tasks: Sequence[Task], job: Job, resources: Resources, actors: KeptActors | None) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = None  # a row is a chunk; Ray must not cut blocks by its own measure
    context.max_errored_blocks = -1  # a chunk lost with its worker has no part: that is how it is noticed
    context.max_consecutive_actor_init_deaths = INIT_DEATHS
    pool = actors.pool() if actors else None
    low, high = (min(count, len(tasks)) for count in resources.actors)
    task = {"num_cpus": resources.task_cpus, "max_retries": RETRIES, "batch_size": None, "batch_format": "pyarrow"}
    reading = {"num_cpus": resources.task_cpus, "max_retries": RETRIES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray wants arguments by name, and has no names for the numbers of retries
        return (
            ray.data.read_datasource(_Chunks(tasks, job), ray_remote_args=reading)
            .map_batches(
                _Refine,
                fn_constructor_args=(job, actors.host if actors else None),
                compute=ray.data.ActorPoolStrategy(
                    min_size=low,
                    max_size=high,
                    max_tasks_in_flight_per_actor=max(2, resources.chunks_per_actor),
                    enable_true_multi_threading=True,
                ),
                max_concurrency=resources.chunks_per_actor,
                num_cpus=resources.actor_cpus,
                num_gpus=resources.gpus_per_actor or None,
                max_task_retries=RETRIES,  # restarts of the actor itself stay unbounded: each costs a task one try
                ray_remote_args_fn=pool,
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
        # a function of the module, as the driver has to pickle it for every chunk: a nested one would go with its code
        return [ReadTask(partial(_read, task, self._job), metadata) for task in self._tasks]


def _read(task: Task, job_ref: Any) -> Iterator[pa.Table]:
    job: Job = ray.get(job_ref)
    _limit_memory(job)
    started, waited = time.perf_counter(), list[float]()
    try:
        planned = task.rows(job.output)
        loaded = chunk_work.load(
            planned,
            job.inputs,
            job.method,
            job.input_side,
            job.fetch_threads,
            waited.append,
            stretched=job.stretched,
        )
    except Exception as error:  # the pipeline must go on; see isolate.py
        fatal = isinstance(error, RelabelError) and not isinstance(error, StorageError)
        yield to_row(carried.failed(task, error, LOADED, fatal))
    else:
        yield to_row(Carried(task, loaded, {"load_s": time.perf_counter() - started, "fetch_s": sum(waited)}))


class _Refine:
    """The actor: holds the model, refines chunks, several at once: one is at the model while others use the CPU.

    host: an actor that it asks whether it may stay, where it is kept from one pipeline to the next.
    """

    def __init__(self, job: Job, host: Any = None) -> None:
        self._job = job
        self._clock = BusyClock()
        if host is not None:
            stay_with(host, self._clock.idle_s)
        _limit_memory(job)
        self._refused: RefusedError | None = None
        try:
            with self._clock.task():
                self._model = SingleThreadProxy(job.load_model)
        except RefusedError as error:  # told with a chunk: Ray would start actor after actor
            self._refused = error
        self._execution = job.execution

    def __call__(self, row: pa.Table) -> pa.Table:
        given = from_row(row)
        if given.error is not None:
            return to_row(carried.without_images(given))
        if self._refused is not None:
            return to_row(carried.failed(given.task, self._refused, PARTS, fatal=True))
        _log_attempt(self._job, "started", given.task)
        try:
            with self._clock.task() as spent:
                part = chunk_work.refine(given.images, self._model, self._job.method, self._job.refiner)
        except Exception as error:  # the pipeline must go on; see isolate.py
            if _is_device_error(error):
                os._exit(1)  # nothing works in this process any more: Ray starts another
            return to_row(carried.failed(given.task, error, PARTS, isinstance(error, RefusedError)))
        seconds = {**given.seconds, "wait_s": spent.idle_s, "refine_s": spent.busy_s}
        return to_row(Carried(given.task, part, seconds, execution=self._execution))


def _is_device_error(error: Exception) -> bool:
    return "CUDA error" in str(error) or type(error).__name__ in {"AcceleratorError", "OutOfMemoryError"}


def _limit_memory(job: Job) -> None:
    if job.memory_bytes:
        limit_memory(job.memory_bytes)


def _write(row: pa.Table, job: Job) -> pa.Table:
    if row.num_rows != 1:
        raise JobError(f"the write stage was given {row.num_rows} chunks at once")
    given = from_row(row)
    if given.error is not None:
        return carried.status(given)
    try:
        return carried.status(_commit(given, job))
    except RelabelError as error:
        return carried.status(carried.failed(given.task, error, PARTS, fatal=True))


def _commit(finished: Carried, job: Job) -> Carried:
    """Write the part."""
    started = time.perf_counter()
    chunk_work.write(finished.images, finished.task, job.run, finished.execution)
    _log_attempt(job, "finished", finished.task)
    return finished._replace(seconds={**finished.seconds, "write_s": time.perf_counter() - started})


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
        if not isinstance(inner, BaseException) or inner is cause or isinstance(inner, SystemException):
            break  # the last is Ray Data's word for "not raised by a function of ours", and says nothing
        cause = inner
    if isinstance(cause, JobError):
        return cause
    if isinstance(cause, ray.exceptions.OutOfDiskError):
        return JobError(
            f"no room in Ray's folder for what does not fit into memory ({os.environ.get('RAY_TMPDIR', '/tmp')}/ray on "  # noqa: S108
            "some node, unless the cluster was told another one). Finished chunks are kept; run again"
        )
    if isinstance(cause, ray.exceptions.ActorDiedError):
        *_traceback, last = str(cause).strip().splitlines() or [type(cause).__name__]
        return JobError(f"a worker ended: {brief(Exception(last))}")
    return JobError(f"a worker failed: {type(cause).__name__}: {brief(cause)}")
