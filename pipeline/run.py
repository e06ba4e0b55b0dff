"""plan -> refine -> seal: the whole job."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray

from pipeline import sources
from pipeline.dataset import read_current
from pipeline.errors import RefusedError
from pipeline.geometry import ORIGINAL_SIZE
from pipeline.models.weights import Weights
from pipeline.plan import ChunkLimits, Plan, Planned, plan, read_plan
from pipeline.progress import Progress
from pipeline.seal import Sealed, find_parts, seal
from pipeline.stages import Job, Resources, refine_chunks, reserve
from pipeline.storage import Access, Store, StoredFile, brief
from pipeline.work import Inputs, Task
from schemas.config import OWN_MODELS, Config, fingerprint, to_yaml

INPUT_SIDES = {"lite": 512, **dict.fromkeys(OWN_MODELS.values(), ORIGINAL_SIZE)}
DEFAULT_INPUT_SIDE = 1024
CONNECT_TIMEOUT_S = 5.0
SEALED_ALONE_CHUNKS = 256  # so few are sealed in this process sooner than a cluster is up

QUIET_RAY = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a coming default
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
"""Ray's own messages would bury the progress; its log files keep them."""


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

    @property
    def access(self) -> Access:
        operation = self.config.operation
        return Access(operation.endpoint_url, operation.storage_tries, operation.storage_timeout_s)


def run(request: Request, progress: Progress) -> Sealed:
    """Plan what is new, refine what is pending, seal what is done. Safe to repeat after any interruption."""
    output = Store(request.output, request.access)
    run_store = Store(f"{request.output.rstrip('/')}/runs/{fingerprint(request.config.method)}", request.access)
    check_version(output, run_store, request)
    check_reachable(request.address)
    plan_increment(output, request, progress)
    planned = read_plan(output)
    tasks = pending(planned, run_store, request.limit)
    run_store.put("config.yaml", to_yaml(request.config).encode())
    with workers(request.address, bool(tasks) or len(planned.chunks) > SEALED_ALONE_CHUNKS) as cluster:
        resources = reserve(request.config.operation, cluster)
        with progress.refining(sum(task.images for task in tasks), resources.actors) as on_status:
            segment = request.config.operation.segment_chunks
            refine_chunks(tasks, _job(output, run_store, request, resources), resources, segment, on_status)
        with progress.sealing(len(planned.chunks)) as on_parts:
            return seal(
                output,
                run_store,
                fingerprint(request.config.method),
                planned,
                request.config.gate,
                shard_bytes=request.config.operation.shard_mb << 20,
                images_root=request.images,
                on_parts=on_parts,
            )


def plan_increment(output: Store, request: Request, progress: Progress) -> Planned:
    """Read the source and commit what is new or changed."""
    operation = request.config.operation
    limits = ChunkLimits(operation.chunk_images, operation.chunk_decoded_mb << 20)
    with progress.planning() as on_image:
        listed: dict[str, StoredFile] = {file.path: file for file in Store(request.images, request.access).list()}
        given = sources.SourceInput(request.masks, request.access, listed, operation.fetch_threads)
        planned = plan(
            output,
            sources.scan(request.source, given),
            listed,
            limits,
            prune=request.prune,
            on_image=on_image,
        )
    progress.planned(planned)
    return planned


def pending(planned: Plan, run_store: Store, limit: int | None) -> list[Task]:
    """The chunks without a finished part, in plan order; with a limit, those of the plan's first `limit` images."""
    done = {part.chunk.chunk_id: part.images for part in find_parts(run_store, planned)}
    left = planned.images if limit is None else limit
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
    for name, value in QUIET_RAY.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "; one with token authentication needs RAY_AUTH_MODE=token and its token (RAY_AUTH_TOKEN) here too"
        raise RefusedError(f"no Ray cluster at {address}: {brief(error)}{hint}") from None
    signal.signal(signal.SIGTERM, _abandon)
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


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
    sys.stderr.write("relabel: terminated; finished chunks are kept, the same command goes on from them\n")
    sys.stderr.flush()
    os._exit(143)


def _job(output: Store, run_store: Store, request: Request, resources: Resources) -> Job:
    operation, method = request.config.operation, request.config.method
    needs_masks = request.source == "png"
    return Job(
        output=output,
        run=run_store,
        inputs=Inputs(
            images=Store(request.images, request.access),
            masks=Store(request.masks, request.access) if needs_masks else None,
        ),
        method=method,
        weights=request.weights,
        input_side=INPUT_SIDES.get(method.model, DEFAULT_INPUT_SIDE),
        threads=operation.threads_per_actor,
        fetch_threads=operation.fetch_threads,
        device="cuda" if resources.gpus_per_actor else "cpu",
        attempt_log=operation.attempt_log,
    )
