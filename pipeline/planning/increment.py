"""Planning: what the sources hold and the plan does not have yet becomes one committed increment of chunks.

Its files are `layout.Increment`'s, and it counts from when it is named (`attempts.py`).

Rows are spilled to disk by hash range while the source is read, and deduplicated and compared with the earlier
increments one range at a time, so memory does not grow with the corpus. Of a large source, one planning step makes
several increments, each of a run of ranges. Ranges may be compared elsewhere, several at a time: then rows get there by
the store (`shuffle.py`), and only what was found comes back, in order, to be named here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError, RefusedError
from pipeline.planning.attempts import adopt, discard, increments, leftovers
from pipeline.planning.chunks import Chunk, Chunks, read_chunks
from pipeline.planning.comparing import Drafts, Step
from pipeline.planning.draft import ChunkLimits, Compared, Planned
from pipeline.planning.flow import Flow, one_by_one
from pipeline.planning.listed import by_range
from pipeline.planning.scanning import encoded
from pipeline.planning.shuffle import Gathered, Shuffle, Told, remove, stale
from pipeline.planning.spill import BUCKET_ROWS, Lines, divisions
from pipeline.sources import PlannedImage
from pipeline.sources.coverage import Coverage
from pipeline.storage import Store, StoredFile
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.documents import Committed
from pipeline.storage.lease import Fence, Hold, unguarded
from pipeline.storage.listing import look_up
from schemas import layout
from schemas.attempts import RANGES
from schemas.layout import HashRange
from schemas.manifest import IncrementHash
from schemas.records import PLAN, conform, widen

__all__ = ["Chunk", "ChunkLimits", "Plan", "Planned", "plan", "plan_rows", "read_chunk", "read_plan"]

INCREMENT_ROWS = 1 << 20
"""New and changed rows after which an increment is committed, and the rest of a planning step becomes the next one."""


@dataclass(frozen=True)
class Plan:
    """Every committed increment: its chunks in order, but for those of which later increments superseded every row,
    and the superseded rows of the others. committed: how many chunks each increment has, those included, by its number.
    """

    chunks: Chunks
    superseded: frozenset[tuple[str, str]]  # (chunk_id, image_id)
    increments: int
    markers: list[IncrementHash] = field(default_factory=list)
    ranges: int = 0  # the finest that a file of it is one of, where they are finer than RANGES
    committed: Mapping[int, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        return int(self.chunks.images.sum()) - len(self.superseded)

    @property
    def masks(self) -> int:
        """Of all its chunks."""
        return int(self.chunks.masks.sum())


def read_plan(output: Store, numbers: Sequence[int] | None = None) -> Plan:
    """The committed plan of an output, or some increments of it; empty when there is none."""
    superseded: set[tuple[str, str]] = set()
    found = increments(output, numbers)
    for one in found:
        superseded |= read_superseded(output, one)
    chunks = read_chunks(output, [one.files for one in found])
    live = chunks.without(Counter(chunk_id for chunk_id, _ in superseded))
    markers = [IncrementHash(increment=one.files.number, sha256=one.sha256) for one in found]
    kept = frozenset(pair for pair in superseded if live.place_of(pair[0]) is not None)
    committed = {one.files.number: one.marker.chunks for one in found}
    return Plan(live, kept, len(found), markers, _ranges(found), committed)


def _ranges(found: Sequence[Committed]) -> int:
    places = (layout.bucket_range(name) for one in found for name in one.marker.sha256)
    return max((place.ranges for place in places if place and place.ranges > RANGES), default=0)


def read_superseded(output: Store, one: Committed) -> set[tuple[str, str]]:
    """Chunk and image id of each row of earlier increments that an increment replaces or prunes."""
    rows = output.read_parquet(one.files.superseded).to_pylist() if one.marker.superseded else []
    return {(row["chunk_id"], row["image_id"]) for row in rows}


def all_chunk_ids(output: Store) -> frozenset[str]:
    """The ids of every committed chunk, superseded ones included."""
    return frozenset(chunk.chunk_id for chunk in read_chunks(output, [one.files for one in increments(output)]))


def plan(
    output: Store,
    images: Iterable[PlannedImage],
    listed: Mapping[str, StoredFile],
    limits: ChunkLimits,
    **how: Any,
) -> Planned:
    """As `plan_rows`, of images as a source has them."""
    return plan_rows(output, encoded(images), listed, limits, **how)


def plan_rows(
    output: Store,
    rows: Iterable[Lines | Told],
    listed: Mapping[str, StoredFile],
    limits: ChunkLimits,
    *,
    prune: bool = False,
    coverage: Coverage | None = None,
    hold: Hold = unguarded,
    on_images: Callable[[int], None] = lambda _count: None,
    shuffle: Shuffle | None = None,
) -> Planned:
    """Commit increments with the images that are new or changed. Raises RefusedError when nothing matched.

    listed: the image root's listing, whose sizes and tags (`rows.tag`) tell changed images. coverage: is told which of
    these files are planned. hold: the output's lease, taken once the source is read. on_images: called with how many
    were read since the last call, for progress. shuffle: by which rows and files came, where tasks have read them; then
    tasks compare them with the earlier plan, and write.
    """
    coverage = coverage or Coverage()
    with scratch_folder("plan") as folder:
        found = Gathered(output, folder / "rows", rows)
        for entries in found.each():
            on_images(entries)
        if not found.entries:
            raise RefusedError("no image matched: the source contains no images: check --images and --masks")
        by_tasks = shuffle if found.are_shuffled else None
        with hold() as fence, by_range(listed, output, by_tasks) as files:
            if shuffle:
                shuffle.renew()
            adopt(output)
            before = increments(output)
            containers = look_up(listed, found.containers)
            limits = limits.of_plan(found.entries - sum(one.marker.images for one in before))
            attempt, flow = (by_tasks.attempt, by_tasks.flow) if by_tasks else (None, one_by_one)
            told = limits, prune, containers, coverage.fresh(), attempt
            step = Step(output, found.ranged, files.ranged, before, *told)
            places = divisions(found.ranged, _widest(before) if prune else RANGES)
            planned = _commit(step, places, coverage, fence, flow)
            _tidy(output, fence, shuffle)
            return planned


def _tidy(output: Store, fence: Fence, shuffle: Shuffle | None) -> None:
    """Remove what killed steps left, and what is in the plan now. Who lost the lease leaves it to who has it."""
    with suppress(JobError):
        fence()
        for path in discard(output, leftovers(output)):
            output.delete(path)
        remove(output, [*stale(output), *(shuffle.files() if shuffle else ())])


def _commit(step: Step, places: Iterable[HashRange], coverage: Coverage, fence: Fence, flow: Flow) -> Planned:
    """Commit one run of hash ranges after another."""
    planned, drafts = Planned(None), Drafts(step.output, len(step.before), INCREMENT_ROWS)
    for found in flow(step, drafts.work(places)):
        if isinstance(found, Compared) and found.coverage is not None:
            coverage.merge(found.coverage)
        drafts.take(found)
        planned += drafts.commit(fence)
    return planned + drafts.commit(fence, at_end=True)


def _widest(before: Sequence[Committed]) -> int:
    """Hash ranges of which the whole plan may be held at once."""
    planned = sum(one.marker.images for one in before)
    return max(1, RANGES * BUCKET_ROWS // max(planned, 1))


def read_chunk(output: Store, chunk: Chunk) -> pa.Table:
    """The plan rows of one chunk (schema PLAN), checked against the chunk's id."""
    table = output.read_rows(chunk.file, chunk.row_start, chunk.images)
    if table.num_rows != chunk.images or pc.unique(table["chunk_id"]).to_pylist() != [chunk.chunk_id]:
        raise RefusedError(f"the plan is damaged: {chunk.file} does not hold chunk {chunk.chunk_id}")
    return conform(widen(table, PLAN), PLAN)
