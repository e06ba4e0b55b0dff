"""What a hundred million and a billion images would take: this project's own code where it decides, a model elsewhere.

    python -m tests.chaos.millions --images 200000 --added 1000 --folder /large/disk > measured.jsonl   # and 1 and 10 M
    python -m tests.chaos.billion --measured measured.jsonl --images 1000000000 --gpus 256

Real code, on as many things as there would be (or on a part of them, and then multiplied: the output says so):
    ranges     planning's division of hash ranges into buckets, with the rows of each drawn at random
    driver     the plan's chunks in columns, what is pending of them, tasks by segment
    groups     sealing's groups of parts and their keys
Modelled, in virtual time:
    planning   CPU seconds = a + b x images, fitted to what `millions` measured of up to a million images
    store      so many requests a second on a prefix; what comes sooner is answered 503 and tried again (a fluid model)
    GPUs       images a second of each; machines that are lost take their chunk with them
    Ray        what the driver needs for a chunk, one after the other. Ray Data itself has no virtual time

A model that was fitted says anything. So it speaks of more than ten million images only after it has predicted what was
measured of ten million to within 15 %, or with --unchecked, and then each line says that it was not.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from pipeline.output.shard_groups import group_parts
from pipeline.planning.chunks import Chunks
from pipeline.planning.draft import ChunkLimits
from pipeline.planning.increment import INCREMENT_ROWS, Plan
from pipeline.planning.spill import parts_of, runs
from pipeline.refining.parts import find_parts
from pipeline.refining.pending import pending
from pipeline.storage import Store, StoredFile
from schemas import layout
from schemas.attempts import RANGES
from schemas.config import Gate, Operation
from schemas.records import CHUNKS

FITTED, CHECKED, WITHIN = 1_000_000, 10_000_000, 0.15
SAMPLE, DRIVEN = 100_000, 1_000_000
PAGE = 1000
PUT_USD, GET_USD = 5e-6, 4e-7
"""S3 standard, us-east-1: a PUT or LIST, a GET."""


@dataclass(frozen=True)
class World:
    """Rates are per second. get_rate: of one prefix; S3 splits prefixes that stay busy. losses: of a GPU in an hour."""

    images: int
    gpus: int = 256
    images_per_gpu: float = 92.0
    side: int = 1024
    get_rate: float = 5500.0
    prefixes: int = 1
    list_s: float = 0.15
    put_s: float = 0.05
    retry_s: float = 0.5
    driver_s: float = 0.038
    losses: float = 0.05
    restart_s: float = 180.0

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


@dataclass(frozen=True)
class Line:
    """CPU seconds of planning: a + b x images."""

    start_s: float
    image_s: float

    def at(self, images: int) -> float:
        return self.start_s + self.image_s * images


def fit(measured: Sequence[tuple[int, float]]) -> Line:
    """measured: images and CPU seconds; those of up to FITTED images count. Relative errors are what is least."""
    known = [(images, cpu_s) for images, cpu_s in measured if images <= FITTED]
    if len({images for images, _ in known}) < 2:
        raise SystemExit(f"two measurements of up to {FITTED} images, of different sizes, are needed to fit the model")
    sizes, seconds = (np.array(column, float) for column in zip(*known, strict=True))
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    start_s, image_s = np.linalg.lstsq(design, np.ones_like(sizes), rcond=None)[0]
    return Line(float(start_s), float(image_s))


def errors(line: Line, measured: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Of what the model was not fitted to: predicted over measured, less one."""
    return {images: line.at(images) / cpu_s - 1 for images, cpu_s in measured if images > FITTED}


def is_checked(found: dict[int, float]) -> bool:
    """Whether ten million or more were predicted, and nothing was predicted wrongly."""
    large = [error for images, error in found.items() if images >= CHECKED]
    return bool(large) and all(abs(error) <= WITHIN for error in found.values())


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

    def walk(self, folder: str = "", temporary: bool = False, follow_links: bool = False) -> Iterator[StoredFile]:
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


def drive(world: World) -> dict[str, float]:
    """The driver's own work on every chunk, of DRIVEN at most, with half of them done."""
    before, count = psutil.Process().memory_info().rss, min(world.chunks, DRIVEN)
    chunks = make_chunks(count, world.chunk_images)
    start_s = time.process_time()
    tasks = pending(Plan(chunks, frozenset(), 1), Parts(chunks, 2), None)
    segment = Operation().segment_chunks
    handed = sum(len(tasks[start : start + segment]) for start in range(0, len(tasks), segment))
    assert handed == count // 2
    held = psutil.Process().memory_info().rss - before
    more = world.chunks / count
    return {
        "driver_own_cpu_s": (time.process_time() - start_s) * more,
        "driver_held_mb": held * more / 1e6,
        "driver_multiplied_by": more,
    }


def group(world: World) -> dict[str, float]:
    """Sealing's accounting before any part is read, of SAMPLE parts at most."""
    count = min(world.chunks, SAMPLE)
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


class _Queue:
    """Driver and store, which serve one chunk after the other, in virtual time."""

    def __init__(self, world: World) -> None:
        self._world, self._rate = world, world.get_rate * world.prefixes
        self._driver_s = self._store_s = 0.0
        self.asked = self.refused = 0

    def ask(self, now_s: float) -> float:
        """When the chunk that is asked for now is loaded."""
        world, fetch_s = self._world, self._world.chunk_images / self._rate
        self.asked += 1
        self._driver_s = max(now_s, self._driver_s) + world.driver_s
        is_late = self._store_s > self._driver_s
        self._store_s = max(self._driver_s, self._store_s) + fetch_s
        self.refused += world.chunk_images * is_late
        return self._store_s + world.retry_s * is_late


def refine(world: World, seed: int = 0) -> dict[str, float]:
    """Every chunk through driver, store and GPUs in virtual time; SAMPLE of them at most. A GPU's next chunk is loaded
    while it works on the one before, and written while it works on the next.
    """
    draw, count, queue = random.Random(seed), min(world.chunks, SAMPLE), _Queue(world)
    gpus = [(0.0, gpu, queue.ask(0.0)) for gpu in range(min(world.gpus, count))]
    heapq.heapify(gpus)
    busy_s, end_s = world.chunk_images / world.images_per_gpu, 0.0
    losses, left = 0, count
    while left:
        free_s, gpu, loaded_s = heapq.heappop(gpus)
        start_s = max(free_s, loaded_s)
        done_s = start_s + busy_s
        if draw.random() < world.losses * busy_s / 3600:
            losses += 1
            done_s += world.restart_s
        else:
            left -= 1
            end_s = max(end_s, done_s + world.put_s)
        heapq.heappush(gpus, (done_s, gpu, queue.ask(start_s)))
    more = world.chunks / count
    return {
        "refining_h": end_s * more / 3600,
        "gpus_busy": count * busy_s / end_s / world.gpus,
        "driver_busy": queue.asked * world.driver_s / end_s,
        "get_requests": (queue.asked * world.chunk_images + queue.refused) * more,
        "refused_503": queue.refused * more,
        "lost_chunks": losses * more,
        "refining_multiplied_by": more,
    }


def bound_by(found: dict[str, float], world: World) -> str:
    if found["gpus_busy"] > 0.9:
        return "GPUs"
    return "driver" if found["driver_busy"] > 0.9 else "GETs of a prefix" if found["refused_503"] else "start and end"


def simulate(world: World, line: Line) -> dict[str, Any]:
    """Everything of one run, from an inventory to the seal."""
    rows = list(bucket_rows(world.images, np.random.default_rng(0)))
    found: dict[str, float] = {**refine(world), **drive(world), **group(world)}
    lists = 4 * math.ceil(world.chunks / PAGE)
    increments = math.ceil(world.images / INCREMENT_ROWS)
    puts = world.chunks + len(rows) + 4 * increments + found["shards"]
    gets = found["get_requests"] + 3 * world.chunks + found["shards"]  # a part is read once, and its plan rows twice
    return {
        "images": world.images,
        "gpus": world.gpus,
        "chunk_images": world.chunk_images,
        "chunks": world.chunks,
        "buckets": len(rows),
        "largest_bucket_rows": max(rows),
        "increments": increments,
        "planning_cpu_h": line.at(world.images) / 3600,
        "listing_walk_h": world.images / PAGE * world.list_s / 3600,
        "listing_parts_h": lists * world.list_s / 3600,
        "requests_put": puts,
        "requests_get": gets,
        "requests_list": lists,
        "requests_usd": (puts + lists) * PUT_USD + gets * GET_USD,
        "bound_by": bound_by(found, world),
        **found,
    }


def read_measured(path: Path) -> list[tuple[int, float]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(entry["images"], entry["cpu_s"]) for entry in entries if entry["what"] == "planned"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, required=True, help="lines that tests.chaos.millions printed")
    parser.add_argument("--unchecked", action="store_true")
    for name, default in asdict(World(100_000_000)).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args())
    measured, unchecked = read_measured(given.pop("measured")), given.pop("unchecked")
    line, world = fit(measured), World(**given)
    found = errors(line, measured)
    checked = is_checked(found)
    if world.images > CHECKED and not checked and not unchecked:
        sys.exit(f"the model was not checked against {CHECKED} measured images (errors: {found}); see --unchecked")
    label = "simulated" if checked or world.images <= FITTED else "simulated, by a model that was NOT checked"
    print(json.dumps({"what": label, "fitted": asdict(line), "errors": found, **simulate(world, line)}, indent=1))


if __name__ == "__main__":
    main()
