"""The decisions that a run makes, by this project's own code, on as many things as there would be, or a part of them.

ranges     planning's division of hash ranges into buckets, with the rows of each drawn at random
driver     the plan's chunks in columns, what is pending of them, tasks by segment
groups     sealing's groups of parts and their keys
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import pyarrow as pa

from pipeline.output.shard_groups import group_parts
from pipeline.planning.chunks import Chunks
from pipeline.planning.draft import ChunkLimits
from pipeline.planning.increment import INCREMENT_ROWS, Plan
from pipeline.planning.sheets import SHEET_CHARACTERS
from pipeline.planning.spill import parts_of, runs
from pipeline.refining.parts import find_parts
from pipeline.refining.pending import Share, pending
from pipeline.storage import Store, StoredFile
from schemas import layout
from schemas.attempts import RANGES
from schemas.config import Gate, Operation
from schemas.records import CHUNKS


@dataclass(frozen=True)
class World:
    """Rates are per second. get_rate: of one prefix; S3 splits prefixes that stay busy. losses: of a GPU in an hour.
    load_s: actors load the model, once. list_s: until a page of a listing is there; list_cpu_s: what its reader does
    with it; part_us: what the command does for a part that a task has listed. tasks: that plan and list, 0 for one a
    GPU; task_share: their CPU time, of what planning takes in one process; head_us: for each image, of the command or
    of its driver of Ray, whichever has more to do (`head_share`); line_bytes: of an image's row and file on their way.
    drivers: each with its share of the plan, and of the GPUs. driven, grouped: chunks that the real code is given, at
    most.
    """

    images: int
    gpus: int = 256
    images_per_gpu: float = 92.0
    side: int = 1024
    get_rate: float = 5500.0
    prefixes: int = 1
    list_s: float = 0.15
    list_cpu_s: float = 0.06
    put_s: float = 0.05
    retry_s: float = 0.5
    driver_s: float = 0.038
    losses: float = 0.05
    restart_s: float = 180.0
    load_s: float = 60.0
    gpu_usd: float = 2.0
    tasks: int = 0
    task_share: float = 1.1
    head_us: float = 0.45
    part_us: float = 7.0
    line_bytes: int = 500
    drivers: int = 1
    driven: int = 1_000_000
    grouped: int = 400_000

    @property
    def planners(self) -> int:
        return self.tasks or self.gpus

    @property
    def sheets(self) -> int:
        """Files of lines by which rows and files get from task to task."""
        return math.ceil(self.images * self.line_bytes / SHEET_CHARACTERS)

    @property
    def chunk_images(self) -> int:
        """By the limits of planning, for photographs as large as they are loaded."""
        operation = Operation()
        asked = ChunkLimits(
            operation.chunk_images, operation.chunk_decoded_mb << 20, self.side, most=operation.chunk_images_most
        )
        limits = asked.of_plan(self.images)
        return min(limits.images, limits.decoded_bytes // limits.bytes_of({"height": self.side, "width": self.side}))

    @property
    def chunks(self) -> int:
        return math.ceil(self.images / self.chunk_images)


def bucket_rows(images: int, draw: np.random.Generator) -> Iterator[int]:
    """Rows of each bucket of a first plan, by planning's own rules."""
    for low, high, rows in runs(draw.multinomial(images, [1 / RANGES] * RANGES).tolist()):
        parts = parts_of(rows) * (high - low + 1)
        finer = draw.multinomial(rows, [1 / parts] * parts).tolist() if parts_of(rows) > 1 else [rows]
        yield from (rows for _, _, rows in runs(finer))


class Parts(Store):
    """A folder in which every `every`th chunk has its part, as a store lists it."""

    def __init__(self, chunks: Chunks, every: int) -> None:
        super().__init__("memory://billion")
        object.__setattr__(self, "_found", (chunks, every))

    def walk(
        self, folder: str = "", temporary: bool = False, follow_links: bool = False, bounds: Sequence[str] = ()
    ) -> Iterator[StoredFile]:
        chunks, every = self.__dict__["_found"]
        for place, chunk in enumerate(chunks):
            if place % every == 0:
                yield StoredFile(layout.part(chunk.chunk_id), 1 << 20, f"{place:032x}")


def make_chunks(count: int, images: int) -> Chunks:
    """A plan's chunks, `images` each, in increments as planning commits them."""
    each = max(1, INCREMENT_ROWS // images)
    ids = [layout.chunk_id(place // each, place % each, f"{place:012x}") for place in range(count)]
    files = pa.DictionaryArray.from_arrays(
        pa.array(np.arange(count, dtype=np.int32) // 256), [f"plan/0/{n:032x}" for n in range(count // 256 + 1)]
    )
    numbers = [np.zeros(count, np.int64), np.full(count, images, np.int32), np.full(count, images, np.int32)]
    return Chunks(pa.table([ids, files, *numbers], names=CHUNKS.names))


def committed(chunks: Chunks) -> dict[int, int]:
    """How many chunks each increment has."""
    numbers = range(int(layout.increment_of(chunks[-1].chunk_id)) + 1)
    return {number: chunks.first_from(number + 1, 0) - chunks.first_from(number, 0) for number in numbers}


def drive(world: World) -> dict[str, float]:
    """The first driver's own work on its share of every chunk, with half of them done."""
    before, count = psutil.Process().memory_info().rss, min(world.chunks, world.driven)
    chunks = make_chunks(count, world.chunk_images)
    start_s = time.process_time()
    plan = Plan(chunks, frozenset(), 1, committed=committed(chunks))
    share = Share(1, world.drivers)
    tasks = pending(plan, Parts(chunks, 2), None, share)
    segment = Operation().segment_chunks
    handed = sum(len(tasks[start : start + segment]) for start in range(0, len(tasks), segment))
    assert handed == np.count_nonzero(share.takes(plan)[1::2])
    held = psutil.Process().memory_info().rss - before
    more = world.chunks / count
    return {
        "driver_own_cpu_s": (time.process_time() - start_s) * more,
        "driver_held_mb": held * more / 1e6,
        "driver_multiplied_by": more,
    }


def group(world: World) -> dict[str, float]:
    """Sealing's accounting before any part is read."""
    count = min(world.chunks, world.grouped)
    before, start_s = psutil.Process().memory_info().rss, time.process_time()
    plan = Plan(make_chunks(count, world.chunk_images), frozenset(), 1)
    parts = find_parts(Parts(plan.chunks, 1), plan)
    keys = {one.key(Gate(), None) for one in group_parts(parts, plan, Operation().shard_mb << 20)}
    more = world.chunks / count
    held = psutil.Process().memory_info().rss - before
    return {
        "shards": 2 * len(keys) * more,
        "seal_own_cpu_s": (time.process_time() - start_s) * more,
        "seal_held_mb": held * more / 1e6,
        "seal_multiplied_by": more,
    }
