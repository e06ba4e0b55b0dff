"""plan -> refine -> seal: the whole job."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from pipeline import sources
from pipeline.calibration.files import calibration_for
from pipeline.cluster.resources import Resources, reserve
from pipeline.cluster.stderr_filter import without_lines
from pipeline.dataset import read_current
from pipeline.errors import JobError, RefusedError
from pipeline.masks.frames import ORIGINAL_SIZE
from pipeline.models import check_compiled, execution_class, load_model
from pipeline.models.weights import Weights
from pipeline.output.manifest import Retention, Sealed, latest, read_manifest
from pipeline.output.seal import seal
from pipeline.planning.coverage import counted
from pipeline.planning.increment import ChunkLimits, Plan, Planned, plan, read_plan
from pipeline.planning.scans import coverage_for, record
from pipeline.progress.breakdown import Clock
from pipeline.progress.events import Progress
from pipeline.refiners import load_side
from pipeline.refining.chunk import Inputs, Job, Task
from pipeline.refining.parts import find_parts
from pipeline.refining.ray_pipeline import refine_chunks
from pipeline.refining.retry_rounds import next_round
from pipeline.sources.walks import regular
from pipeline.storage import Access, Store, brief
from pipeline.storage.lease import Hold, Patience, check_store, held, unguarded
from pipeline.storage.listing import listing
from schemas.config import OWN_MODELS, Config, fingerprint, to_yaml

INPUT_SIDES = {"lite": 512, **dict.fromkeys(OWN_MODELS.values(), ORIGINAL_SIZE)}
DEFAULT_INPUT_SIDE = 1024
CONNECT_TIMEOUT_S = 5.0
STARTS = 3
HEAD_CHECK_S, HEAD_MISSES = 2.0, 3
SEALED_ALONE_CHUNKS = 256  # so few are sealed in this process sooner than a cluster is up

RAY_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a coming default
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # after 1 s by default, and starting one takes 2 s of CPU
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody asked the user, and it is a process more
    "RAY_task_oom_retries": "2",  # without end by default, see stages.RETRIES
}
"""Unless the environment has others. Messages of Ray would bury the progress; its log files keep them."""


@dataclass(frozen=True)
class Request:
    """What `relabel run` was asked to do. `config.method.weights_sha256` is that of `weights`."""

    images: str
    masks: str
    output: str
    source: str
    config: Config
    weights: Weights
    address: str | None = None
    limit: int | None = None
    prune: bool = False
    new_version: bool = False
    retry_failed: bool = False
    retry_reasons: tuple[str, ...] = ()

    @property
    def access(self) -> Access:
        operation = self.config.operation
        return Access(operation.endpoint_url, operation.storage_tries, operation.storage_timeout_s)

    def stores(self) -> tuple[Store, Store]:
        """The output, and its folder of this method."""
        folder = f"{self.output.rstrip('/')}/runs/{fingerprint(self.config.method)}"
        return Store(self.output, self.access), Store(folder, self.access)

    def hold(self, progress: Progress) -> Hold:
        """How a step takes the output's lease."""
        operation = self.config.operation
        if operation.assume_exclusive:
            return unguarded
        patience = Patience(wait_s=operation.lease_wait_s)
        return partial(held, Store(self.output, self.access), patience, progress.waiting)


def run(request: Request, progress: Progress) -> Sealed:
    """Plan what is new, refine what is pending, seal what is done. Safe to repeat after any interruption."""
    output, run_store = request.stores()
    check_version(output, run_store, request)
    calibration_for(request.config.gate, request.config.method, request.access)  # refused before any work
    check_reachable(request.address)
    if not request.config.operation.assume_exclusive:
        check_store(output)
    plan_increment(output, request, progress)
    planned = read_plan(output)
    tasks = pending(planned, run_store, request.limit)
    run_store.put("config.yaml", to_yaml(request.config).encode())
    retries = [] if tasks else retry_tasks(run_store, planned, request, progress)
    with workers(request.address, bool(tasks or retries) or len(planned.chunks) > SEALED_ALONE_CHUNKS) as cluster:
        resources = reserve(request.config.operation, cluster)
        job = make_job(output, run_store, request, "cuda" if resources.gpus_per_actor else "cpu")
        refine(tasks, job, resources, request, progress)
        if tasks:
            retries = retry_tasks(run_store, planned, request, progress)
        if retries:
            refine(retries, job, resources, request, progress)
        return seal_finished(output, run_store, request, progress)


def refine(tasks: Sequence[Task], job: Job, resources: Resources, request: Request, progress: Progress) -> None:
    """Run every task to its part."""
    clock = Clock()
    with progress.refining(sum(task.images for task in tasks), resources.actors) as on_status:
        refine_chunks(tasks, job, resources, request.config.operation.segment_chunks, clock.noting(on_status))
    progress.refined(clock.stop())


def retry_tasks(run_store: Store, planned: Plan, request: Request, progress: Progress) -> list[Task]:
    """The unfinished tasks of the retry round that is due, none unless asked for."""
    if not request.retry_failed:
        return []
    with request.hold(progress)():
        generation = latest(run_store)
        sealed_round = 0 if generation is None else int(read_manifest(run_store, generation)["retries"]["done"])
        due = next_round(run_store, planned, sealed_round, request.retry_reasons)
    tasks = due.tasks(planned, find_parts(run_store, planned)) if due else []
    progress.retrying(due.number if due else None, sum(task.images for task in tasks))
    return tasks


def seal_finished(output: Store, run_store: Store, request: Request, progress: Progress) -> Sealed:
    """Seal what is done by now, by this run or another."""
    operation = request.config.operation
    with request.hold(progress)() as fence:
        planned = read_plan(output)
        with progress.sealing(len(planned.chunks)) as on_parts:
            return seal(
                output,
                run_store,
                fingerprint(request.config.method),
                planned,
                request.config.gate,
                calibration=calibration_for(request.config.gate, request.config.method, request.access),
                shard_bytes=operation.shard_mb << 20,
                images_root=request.images,
                retention=Retention(operation.keep_generations, operation.grace_s),
                fence=fence,
                on_parts=on_parts,
            )


def plan_increment(output: Store, request: Request, progress: Progress) -> Planned:
    """Read the source and commit what is new or changed."""
    operation = request.config.operation
    limits = ChunkLimits(operation.chunk_images, operation.chunk_decoded_mb << 20)
    images = Store(request.images, request.access)
    covered = coverage_for(output, request.images, request.masks, request.source, operation.ignore)
    with progress.planning() as on_image, listing(regular(images, covered)) as listed:
        given = sources.SourceInput(
            request.masks, request.access, listed, operation.fetch_threads, coverage=covered, images_uri=request.images
        )
        found = sources.scan(request.source, given)
        planned = plan(
            output,
            counted(found, given, max_unread=operation.max_unread, prune=request.prune),
            listed,
            limits,
            prune=request.prune,
            hold=request.hold(progress),
            on_image=on_image,
        )
        scan = record(output, given, request.source, request.hold(progress))
    progress.covered(scan)
    progress.planned(planned)
    return planned


def pending(planned: Plan, run_store: Store, limit: int | None) -> list[Task]:
    """The chunks without a finished part, in plan order; with a limit, those of the plan's first `limit` images."""
    done = {part.chunk.chunk_id: part.images for part in find_parts(run_store, planned)}
    left = sum(chunk.images for chunk in planned.chunks) if limit is None else limit
    tasks = []
    for chunk in planned.chunks:
        images = min(chunk.images, left)
        if images > done.get(chunk.chunk_id, 0):
            tasks.append(Task(chunk, images))
        left -= images
    return tasks


def check_version(output: Store, run_store: Store, request: Request) -> None:
    """Refuse a changed method over existing results unless --new-version says that it is meant."""
    current = read_current(output)
    name = fingerprint(request.config.method)
    if request.new_version or current is None or current["fingerprint"] == name or run_store.list("parts"):
        return
    images = sum(chunk.images for chunk in read_plan(output).chunks)
    raise RefusedError(
        f"{request.output} holds a result of another method ({current['fingerprint']}, this one is {name}). Going on "
        f"refines all {images} planned images again, beside the old result: say so with --new-version"
    )


def workers(address: str | None, needed: bool) -> AbstractContextManager[dict[str, float]]:
    """A Ray cluster's resources; of none where there is nothing for it to do."""
    return ray_cluster(address) if needed else nullcontext({})


@contextmanager
def ray_cluster(address: str | None) -> Iterator[dict[str, float]]:
    """A connection to an existing cluster, or one started here for as long as the job runs; yields its resources."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a chunk lost with its worker is isolate.py's, no page
    _connect(address)
    signal.signal(signal.SIGTERM, _abandon)
    over = threading.Event()
    head = address if address.startswith("ray://") else ray.get_runtime_context().gcs_address
    threading.Thread(target=_watch_head, args=(head, over), daemon=True).start()
    try:
        yield ray.cluster_resources()
    finally:
        over.set()
        ray.shutdown()


def _connect(address: str) -> None:
    for attempt in range(1, STARTS + 1):
        try:
            with without_lines(b"RAY_BACKEND_LOG_LEVEL"):  # of which Ray's core says that it is set
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "; one with token authentication needs RAY_AUTH_MODE=token and its token (RAY_AUTH_TOKEN) here too"
            raise RefusedError(f"no Ray cluster at {address}: {brief(error)}{hint}") from None
        except Exception as error:  # a bare one when a local node takes longer than Ray's fixed 30 s
            ray.shutdown()
            if attempt == STARTS:
                raise JobError(f"Ray did not start: {brief(error)}") from None
        else:
            return


def _watch_head(address: str, over: threading.Event) -> None:
    """Leave when the cluster's head is gone: Ray itself would wait for it for minutes, or abort with a core dump."""
    misses = 0
    while not over.wait(HEAD_CHECK_S):
        try:
            check_reachable(address)
            misses = 0
        except RefusedError:
            misses += 1
        if misses == HEAD_MISSES and not over.is_set():
            _leave(1, f"the Ray head at {address} is gone")


def check_reachable(address: str | None) -> None:
    """Refuse an address where nothing listens; Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "local", "auto": Ray looks for itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise RefusedError(f"no Ray cluster at {address}: {error.strerror or error}") from None


def _abandon(_signal: int, _frame: Any) -> None:
    """SIGTERM: finished parts are safe, so leave at once; the local cluster dies with its driver."""
    _leave(143, "terminated")


def _leave(code: int, why: str) -> None:
    sys.stderr.write(f"relabel: {why}; finished chunks are kept, the same command goes on from them\n")
    sys.stderr.flush()
    os._exit(code)


def make_job(output: Store, run_store: Store, request: Request, device: str) -> Job:
    """What the workers need to know. Raises RefusedError where they could not load the model as asked."""
    operation, method = request.config.operation, request.config.method
    check_compiled(method.model, device, operation.compile)
    mask_files = sources.files_root(request.source, request.masks)
    return Job(
        output=output,
        run=run_store,
        inputs=Inputs(
            images=Store(request.images, request.access),
            masks=None if mask_files is None else Store(mask_files, request.access),
        ),
        method=method,
        weights=request.weights,
        input_side=load_side(method, INPUT_SIDES.get(method.model, DEFAULT_INPUT_SIDE)),
        threads=operation.threads_per_actor,
        fetch_threads=operation.fetch_threads,
        device=device,
        attempt_log=operation.attempt_log,
        loader=partial(load_model, dtype=method.dtype, compiled=operation.compile),
        execution_of=partial(execution_class, dtype=method.dtype, compiled=operation.compile),
        memory_bytes=operation.worker_memory_mb << 20 if operation.worker_memory_mb else None,
    )
