"""What a hundred million and a billion images would take: this project's own code where it decides, a model elsewhere.

    python -m tests.chaos.billion                                  the table of infra/README.md
    python -m tests.chaos.billion --images 1000000000 --gpus 256   one run, as JSON
    python -m tests.chaos.millions --images 10000000 --folder /large/disk > measured.jsonl
    python -m tests.chaos.billion --measured measured.jsonl        with measurements that are not in the table yet

Real code, on as many things as there would be (or on a part of them, and then multiplied: the output says so):
    ranges     planning's division of hash ranges into buckets, with the rows of each drawn at random
    driver     the plan's chunks in columns, a driver's share of what is pending of them, tasks by segment
    groups     sealing's groups of parts and their keys
Modelled, in virtual time:
    planning   CPU seconds = a + b x images, fitted to what `millions` measured of up to a million images
    store      so many requests a second on a prefix; what comes sooner is answered 503 and tried again (a fluid model)
    GPUs       images a second of each; machines that are lost take their chunk with them
    Ray        what a driver needs for a chunk, one after the other; actors load the model once, at the beginning.
               Ray Data itself has no virtual time

A model that was fitted says anything. So it speaks of no more images than were measured, unless it has predicted what
was measured of ten million to within 15 % (`calibration.py`). Each figure says where it is from.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.planning.increment import INCREMENT_ROWS
from pipeline.storage.s3_listing import STRETCHES
from schemas.attempts import RANGES
from tests.chaos.calibration import MEASURED, Measurement, check, read_measured
from tests.chaos.decisions import World, bucket_rows, drive, group

SAMPLE = 200_000
PAGE = 1000
HANDED, BEGUN = 0, 1
WARM = 1000
PUT_USD, GET_USD = 5e-6, 4e-7
"""S3 standard, us-east-1: a PUT or LIST, a GET."""
ROWS = [
    dict(zip(("side", "gpus", "drivers", "prefixes"), row, strict=True))
    for row in (
        *((1024, 64, 1, 1), (1024, 64, 4, 1), (1024, 64, 16, 1), (1024, 64, 16, 2)),
        *((1024, 256, 16, 1), (1024, 256, 24, 8), (1024, 1000, 64, 32), (1024, 1000, 96, 32)),
        *((256, 64, 1, 1), (256, 256, 1, 1), (256, 256, 4, 8), (256, 1000, 1, 1)),
    )
]
"""Of the table, for each number of images."""


class _Queue:
    """The drivers, and the store that they share; each serves one chunk after the other, in virtual time."""

    def __init__(self, world: World) -> None:
        self._world, self._rate = world, world.get_rate * world.prefixes
        self._drivers_s = [0.0] * world.drivers
        self._store_s = 0.0
        self.asked = self.refused = 0

    def hand(self, now_s: float, driver: int) -> float:
        """When a driver has handed out the chunk that it is asked for now."""
        self.asked += 1
        self._drivers_s[driver] = max(now_s, self._drivers_s[driver]) + self._world.driver_s
        return self._drivers_s[driver]

    def load(self, now_s: float) -> float:
        """When the chunk that is handed out now is loaded."""
        world, fetch_s = self._world, self._world.chunk_images / self._rate
        is_late = self._store_s > now_s
        self._store_s = max(now_s, self._store_s) + fetch_s
        self.refused += world.chunk_images * is_late
        return self._store_s + world.retry_s * is_late


def refine(world: World, seed: int = 0) -> dict[str, float]:
    """Every chunk through drivers, store and GPUs in virtual time; SAMPLE of them at most. A GPU's next chunk is loaded
    while it works on the one before, and written while it works on the next. Drivers have as many chunks and GPUs each.
    """
    if world.drivers > world.gpus:
        raise SystemExit(f"{world.drivers} drivers share {world.gpus} GPUs: each needs one, at least")
    draw, count, queue = random.Random(seed), min(world.chunks, SAMPLE), _Queue(world)
    left = [(count + driver) // world.drivers for driver in range(world.drivers)]
    busy_s, end_s, losses = world.chunk_images / world.images_per_gpu, 0.0, 0
    free_s = [0.0] * world.gpus
    events = [(queue.hand(0.0, gpu % world.drivers), HANDED, gpu) for gpu in range(world.gpus)]
    heapq.heapify(events)
    while events:
        now_s, what, gpu = heapq.heappop(events)
        driver = gpu % world.drivers
        if what == HANDED:
            heapq.heappush(events, (max(free_s[gpu], queue.load(now_s)), BEGUN, gpu))
            continue
        if not left[driver]:
            continue
        free_s[gpu] = now_s + busy_s
        if draw.random() < world.losses * busy_s / 3600:
            losses += 1
            free_s[gpu] += world.restart_s
        else:
            left[driver] -= 1
            end_s = max(end_s, free_s[gpu] + world.put_s)
        heapq.heappush(events, (queue.hand(now_s, driver), HANDED, gpu))
    more = world.chunks / count
    all_s = end_s * more + world.load_s
    return {
        "refining_h": all_s / 3600,
        "refining_loading_h": world.load_s / 3600,
        "gpus_busy": world.chunks * busy_s / all_s / world.gpus,
        "driver_busy": min(1.0, queue.asked * more * world.driver_s / all_s / world.drivers),
        "get_requests": (queue.asked * world.chunk_images + queue.refused) * more,
        "refused_503": queue.refused * more,
        "lost_chunks": losses * more,
        "refining_multiplied_by": more,
    }


def bound_by(found: dict[str, float], world: World) -> str:
    """What the rest waits for, and whether actors that load the model take more than a tenth of the time."""
    at_work = 1 - found["refining_loading_h"] / found["refining_h"]
    loading = " and loading the model" if at_work < 0.9 else ""
    if found["gpus_busy"] > 0.9 * at_work:
        return f"GPUs{loading}"
    if found["driver_busy"] > 0.9 * at_work:
        return f"driver{loading}"
    return f"{'GETs of a prefix' if found['refused_503'] else 'start and end'}{loading}"


@cache
def decide(world: World) -> dict[str, float]:
    """What depends neither on the GPUs nor on the store; of the only driver, as one of several holds no more."""
    rows = list(bucket_rows(world.images, np.random.default_rng(0)))
    return {"buckets": len(rows), "largest_bucket_rows": max(rows), **_apart(drive, world), **_apart(group, world)}


def _apart(measure: Callable[[World], dict[str, float]], world: World) -> dict[str, float]:
    """In a process of its own: one that has held memory before does not show what it holds. What libraries take at
    their first use is not multiplied.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(measure, replace(world, driven=min(world.driven, WARM), grouped=min(world.grouped, WARM))).result()
        return pool.submit(measure, world).result()


def simulate(world: World, measured: Sequence[Measurement]) -> dict[str, Any]:
    """Everything of one run, from an inventory to the seal. Raises SystemExit where the model may not say it."""
    line = check(world.images, measured)
    found = {**decide(replace(world, gpus=1, prefixes=1, drivers=1)), **refine(world)}
    pages, increments = math.ceil(world.chunks / PAGE), math.ceil(world.images / INCREMENT_ROWS)
    alone_s = pages * max(world.list_s / STRETCHES, world.list_cpu_s)  # asked for at the same time, read in turn
    by_tasks_s = pages * (world.list_s + world.list_cpu_s) / world.planners + world.chunks * world.part_us / 1e6
    lists = (2 + 2 * world.drivers) * pages  # each driver looks for parts when it begins and when it ends
    puts = world.chunks + 2 * found["buckets"] + 4 * increments + found["shards"] + world.sheets
    gets = found["get_requests"] + 3 * world.chunks + found["shards"]  # a part is read once, and its plan rows twice
    gets += RANGES * world.sheets + found["buckets"]
    alone_h = line.at(world.images) / 3600
    by_tasks_h = alone_h * world.task_share / world.planners + world.images * world.head_us / 3.6e9
    peaks_mb = [one.peak_mb for one in measured if one.peak_mb]
    planned = {
        "planning_peak_mb": max(peaks_mb) if peaks_mb else None,
        "planning_alone_h": alone_h,
        "planning_by_tasks_h": by_tasks_h,
        "planning_share": by_tasks_h / found["refining_h"],
        "listing_walk_h": world.images / PAGE * world.list_s / 3600,
        "listing_parts_alone_h": alone_s / 3600,
        "listing_parts_by_tasks_h": by_tasks_s / 3600,
        "listing_parts_share": by_tasks_s / 3600 / found["refining_h"],
    }
    requests = {"requests_put": puts, "requests_get": gets, "requests_list": lists}
    costs = {
        "requests_usd": (puts + lists) * PUT_USD + gets * GET_USD,
        "gpu_usd": world.gpus * found["refining_h"] * world.gpu_usd,
    }
    given = {"images": world.images, "gpus": world.gpus, "drivers": world.drivers, "prefixes": world.prefixes}
    counts = {**given, "chunk_images": world.chunk_images, "chunks": world.chunks}
    figures = {**counts, "increments": increments, **planned, **requests, **costs, **found}
    return {**figures, "bound_by": bound_by(found, world), "from": {name: origin(name, figures) for name in figures}}


def origin(name: str, figures: Mapping[str, float | None]) -> str:
    """Where a figure is from."""
    if name == "planning_peak_mb":
        return "measured, of fewer images"
    if name.startswith(("planning", "listing")):
        return "simulated: a line through measurements, or arithmetic"
    for step in ("driver_own", "driver_held", "seal", "shards", "buckets", "largest_bucket"):
        if name.startswith(step):
            more = figures.get(f"{step.partition('_')[0]}_multiplied_by") or 1
            return "measured: real code" + (f" on a part, times {more:.0f}" if more > 1 else "")
    in_time = ("refining", "gpus_busy", "driver_busy", "get_requests", "refused", "lost", "requests", "gpu_usd")
    return "simulated, in virtual time" if name.startswith(in_time) else "arithmetic"


def table(measured: Sequence[Measurement], worlds: Sequence[World]) -> Iterator[str]:
    """Markdown, a run a row. Raises SystemExit, before the first of them, where the model may not say one."""
    check(max(world.images for world in worlds), measured)
    columns = "images at once, side, GPUs, drivers, prefixes, refining, GPUs busy, drivers busy, "
    columns += "planning alone / by tasks, of refining, memory of driver or seal, requests, GPU cost, bound by"
    yield f"| {columns.replace(', ', ' | ')} |"
    yield f"| {' | '.join(['---:'] * 13)} | --- |"
    for world in worlds:
        one = simulate(world, measured)
        head_mb = max(one["driver_held_mb"], one["seal_held_mb"])
        cells = [
            f"{world.images:,}".replace(",", " "),
            f"{world.side}",
            f"{world.gpus}",
            f"{world.drivers}",
            f"{world.prefixes}",
            f"{one['refining_h']:.1f} h",
            f"{100 * one['gpus_busy']:.0f} %",
            f"{100 * one['driver_busy']:.0f} %",
            f"{one['planning_alone_h']:.1f} / {one['planning_by_tasks_h']:.2f} h",
            f"{100 * one['planning_share']:.1f} %",
            f"{head_mb / 1000:.1f} GB",
            f"{one['requests_usd']:.0f} $",
            f"{one['gpu_usd']:.0f} $",
            one["bound_by"],
        ]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, action="append", default=[MEASURED], help="more lines of `millions`")
    for name, default in asdict(World(0)).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args())
    measured = read_measured(given.pop("measured"))
    world = World(**given)
    if world.images:
        print(json.dumps(simulate(world, measured), indent=1))
        return
    worlds = [replace(world, images=images, **one) for images in (10**8, 10**9) for one in ROWS]
    for row in table(measured, worlds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
