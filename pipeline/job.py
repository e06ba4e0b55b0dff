"""plan -> refine -> seal: the whole job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from typing import Any

from pipeline import refiners, sources
from pipeline.cluster.connection import Cluster, connected
from pipeline.cluster.resources import idle_gpus, reserve
from pipeline.errors import RefusedError
from pipeline.output.manifest import Sealed
from pipeline.output.recovery import sealed_rounds
from pipeline.output.seal import seal
from pipeline.planning.flow import Spread, in_turn
from pipeline.planning.increment import ChunkLimits, Plan, Planned, plan_rows, read_plan
from pipeline.planning.listed import in_ranges, is_large, listing_of, of_inventory
from pipeline.planning.scanning import pieces as find_pieces
from pipeline.planning.scanning import read_pieces, read_whole
from pipeline.planning.scans import coverage_for, record
from pipeline.planning.shuffle import Shuffle, Told
from pipeline.planning.spill import Lines
from pipeline.progress.breakdown import Clock
from pipeline.progress.events import Covered, OnEvent, Planning, Refined, Refining, Retrying, Starting, nobody
from pipeline.refining.chunk import Task
from pipeline.refining.parts import find_parts
from pipeline.refining.pending import Share, Unsealed, left_over, pending, take_on
from pipeline.refining.retry_rounds import next_round
from pipeline.request import Request, make_job
from pipeline.sources import inventory as inventories
from pipeline.sources.coverage import OTHERS, Coverage
from pipeline.sources.walks import regular
from pipeline.storage import Store, StoredFile
from pipeline.storage.listing import hashed, listing
from schemas import layout
from schemas.config import to_yaml

logger = logging.getLogger(__name__)

SEALED_ALONE_CHUNKS = 256  # so few are sealed in this process sooner than a cluster is up
REFINE = "pipeline.refining.ray_pipeline:refine_chunks"


def run(request: Request, on_event: OnEvent = nobody) -> Sealed:
    """Plan what is new, refine what is pending, seal what is done. Safe to repeat after any interruption."""
    with clusters(request, on_event) as connect:
        planned, cluster = _plan_and_refine(request, on_event, connect)
        return _seal(request, on_event, connect, planned, cluster)


def run_share(request: Request, share: Share, on_event: OnEvent = nobody) -> Sealed | Unsealed:
    """As `run`, but of what is pending only the share is refined; and nothing is sealed while others have some left."""
    if request.retry_failed:
        raise RefusedError("--retry-failed is for a run without --part, when all parts are done")
    output, run_store = request.stores()
    with clusters(request, on_event) as connect:
        planned, cluster = _plan_and_refine(request, on_event, connect, share)
        left = left_over(read_plan(output), run_store, request.limit, share, _spread(request, connect))
        return left or _seal(request, on_event, connect, planned, cluster)


def _plan_and_refine(
    request: Request, on_event: OnEvent, connect: Callable[[], Cluster], share: Share | None = None
) -> tuple[Plan, Cluster | None]:
    """The plan, and the cluster where one was needed."""
    request.check()
    output, run_store = request.stores()
    if not request.no_plan:
        plan_increment(request, on_event, connect)
    planned = read_plan(output)
    tasks = pending(planned, run_store, request.limit, share, _spread(request, connect))
    run_store.put(layout.CONFIG, to_yaml(request.config).encode())
    retries = [] if tasks else retry_tasks(request, planned, on_event)
    cluster = connect() if tasks or retries else None
    with request.in_use(share) if cluster else nullcontext():
        if tasks or not retries:
            refine(tasks, request, cluster, on_event)
        if tasks:
            retries = retry_tasks(request, planned, on_event)
        if retries:
            refine(retries, request, cluster, on_event)
    return planned, cluster


def _spread(request: Request, connect: Callable[[], Cluster]) -> Spread | None:
    """By which a long listing is read, where a cluster was named; it is connected to when there is one."""
    return (lambda *work: connect().map(*work)) if request.plans_by_tasks else None


def _seal(
    request: Request, on_event: OnEvent, connect: Callable[[], Cluster], planned: Plan, cluster: Cluster | None
) -> Sealed:
    if len(planned.chunks) > SEALED_ALONE_CHUNKS:
        cluster = connect()
    took_on, spread = take_on(planned, request.limit), cluster.map if cluster else in_turn
    return seal(request.sealing(), request.hold(on_event), on_event, spread, took_on)


@contextmanager
def clusters(request: Request, on_event: OnEvent) -> Iterator[Callable[[], Cluster]]:
    """The run's cluster, from when it is first asked for until the context ends."""
    with ExitStack() as stack:

        def connect() -> Cluster:
            on_event(Starting(request.address))
            return stack.enter_context(connected(request.address))

        yield cache(connect)


def plan_increment(request: Request, on_event: OnEvent, connect: Callable[[], Cluster]) -> Planned:
    """Read the source and commit what is new or changed; by the cluster's tasks, where one was named and the source is
    many files.
    """
    operation, read = request.config.operation, 0
    output = request.stores()[0]

    def on_images(count: int) -> None:
        nonlocal read
        read += count
        on_event(Planning(read))

    on_images(0)
    covered = coverage_for(output, request.images, request.masks, request.source, operation.ignore)
    shuffle = Shuffle(output, lambda *work: connect().flow(*work)) if request.plans_by_tasks else None
    with _listing(request, covered, shuffle) as listed:
        given = sources.SourceInput(
            request.masks, request.access, listed, operation.fetch_threads, coverage=covered, images_uri=request.images
        )
        pieces = find_pieces(request.source, given)
        how: dict[str, Any] = {"max_unread": operation.max_unread, "prune": request.prune}
        rows: Iterable[Lines | Told]
        if pieces:
            rows = read_pieces(pieces, given, shuffle if pieces.are_many else None, **how)
        else:
            rows = read_whole(request.source, given, **how)
        planned = plan_rows(
            output,
            rows,
            listed,
            _limits(request),
            prune=request.prune,
            coverage=covered,
            hold=request.hold(on_event),
            on_images=on_images,
            shuffle=shuffle,
        )
        scan = record(output, given, request.source, request.hold(on_event))
    on_event(Covered(scan, _unmatched(request, covered)))
    on_event(planned)
    return planned


def _unmatched(request: Request, covered: Coverage) -> tuple[str, ...]:
    """Categories that the method treats apart, and that no mask of the input has; none where not all were counted."""
    names = {name for _, name in covered.categories}
    return () if OTHERS in names else tuple(sorted(request.config.method.per_category.keys() - names))


def _listing(
    request: Request, covered: Coverage, shuffle: Shuffle | None
) -> AbstractContextManager[Mapping[str, StoredFile]]:
    """The files of the image root, for as long as the context lasts; by hash range for a source of many files, which
    looks up few of them. A large inventory is read as such a source is.
    """
    output, _ = request.stores()
    images, uri = Store(request.images, request.access), request.images_inventory
    inventory = inventories.open_inventory(uri, request.access, request.images) if uri else None
    by_file = sources.is_by_file(request.source)
    if inventory and by_file and not request.checksum:
        return listing_of(of_inventory(inventory, shuffle if is_large(inventory) else None), output)
    files = inventory.walk() if inventory else regular(images, covered)
    files = hashed(images, files, request.config.operation.fetch_threads) if request.checksum else files
    return listing_of(in_ranges(files), output) if by_file else listing(files)


def _limits(request: Request) -> ChunkLimits:
    operation = request.config.operation
    return ChunkLimits(
        operation.chunk_images,
        operation.chunk_decoded_mb << 20,
        request.load_side,
        request.spec.stretched,
        refiners.looks_closer(request.config.method),
        most=operation.chunk_images_most,
    )


def refine(tasks: Sequence[Task], request: Request, cluster: Cluster | None, on_event: OnEvent) -> None:
    """Run every task to its part."""
    operation, count = request.config.operation, request.config.operation.segment_chunks
    several = len(tasks) > count
    resources = reserve(operation, cluster.resources if cluster else {}, several, request.spec.gpu_actors)
    job = make_job(request, "cuda" if resources.gpus_per_actor else "cpu")
    if advice := idle_gpus(request.config.method, resources.gpus_per_actor):
        logger.warning("%s", advice)
    clock = Clock()
    on_event(Refining(sum(task.images for task in tasks), resources.actors))
    if cluster and tasks:
        segments = (tasks[start : start + count] for start in range(0, len(tasks), count))  # one is in memory at a time
        for chunk in cluster.each(REFINE, job, resources, several, items=segments):
            clock.note(chunk)
            on_event(chunk)
    on_event(Refined(clock.stop()))


def retry_tasks(request: Request, planned: Plan, on_event: OnEvent) -> list[Task]:
    """The unfinished tasks of the retry round that is due, none unless asked for."""
    if not request.retry_failed:
        return []
    run_store = request.stores()[1]
    with request.hold(on_event)():
        due = next_round(run_store, planned, sealed_rounds(run_store), request.retry_reasons)
    tasks = due.tasks(planned, find_parts(run_store, planned)) if due else []
    on_event(Retrying(due.number if due else None, sum(task.images for task in tasks)))
    return tasks
