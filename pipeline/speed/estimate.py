"""Hours and cost of refining a planned corpus, from a short measured sample: its own images, the real model.

    spread     a few images of chunks all over the plan
    measure    their seconds, one after another in this process
    project    what that makes for the whole corpus, with an interval

Not in it: planning, starting, sealing, and what other work on the machines takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.errors import RefusedError
from pipeline.refining import chunk
from pipeline.refining.chunk import Job, Task

GROUPS = 16
"""Chunks that the sample is taken from, at most: between them its spread is seen."""
SURE = 2.0
"""Standard errors to either side: about 95 %."""


@dataclass(frozen=True)
class Group:
    """What some images of one chunk took; fetch_s: for which decoding waited for files."""

    images: int
    masks: int
    fetch_s: float
    decode_s: float
    refine_s: float


@dataclass(frozen=True)
class Machine:
    """The one that was measured; gpus: 0 where the model ran on its CPU cores, `threads` of them at a time."""

    cores: int
    gpus: int
    threads: int = 1

    def device_seconds(self, group: Group) -> float:
        """Seconds for which a group keeps a GPU, or this whole machine where there is none, busy.

        A GPU also waits where its share of the machine's cores decodes more slowly than it refines.
        """
        if self.gpus:
            return max(group.refine_s, group.decode_s * self.gpus / self.cores)
        return (group.refine_s * self.threads + group.decode_s) / self.cores


def spread(tasks: Sequence[Task], images: int) -> list[Task]:
    """About `images` images: the first few of tasks spread evenly over all of them."""
    count = min(len(tasks), GROUPS, images)
    each = math.ceil(images / max(1, count))
    chosen = [tasks[(2 * index + 1) * len(tasks) // (2 * count)] for index in range(count)]
    return [replace(task, images=min(task.images, each)) for task in chosen]


def measure(tasks: Sequence[Task], job: Job, on_images: Callable[[int], None] = lambda _count: None) -> list[Group]:
    """Load and refine each task's images; the first image once before the clock runs."""
    model = job.load_model()
    groups: list[Group] = []
    for task in tasks:
        rows, waited = task.rows(job.output), list[float]()
        if not groups:
            first = _load(rows.slice(0, 1), job, waited)
            waited.clear()
            chunk.refine(first, model, job.method, job.refiner)
        started = time.perf_counter()
        loaded = _load(rows, job, waited)
        between = time.perf_counter()
        chunk.refine(loaded, model, job.method, job.refiner)
        ended = time.perf_counter()
        masks = sum(len(of_image) for of_image in rows["masks"].to_pylist())
        fetch_s = sum(waited)
        groups.append(Group(rows.num_rows, masks, fetch_s, between - started - fetch_s, ended - between))
        on_images(rows.num_rows)
    return groups


def _load(rows: pa.Table, job: Job, waited: list[float]) -> pa.Table:
    return chunk.load(
        rows, job.inputs, job.method, job.input_side, job.fetch_threads, waited.append, stretched=job.stretched
    )


def project(
    groups: Sequence[Group], images: int, masks: int, machine: Machine, devices: int, price_per_hour: float
) -> dict[str, Any]:
    """Hours and cost of `images` on so many devices (GPUs, or machines where it has none) like the measured one.

    The rate is the ratio of sums over the groups, the interval that of a ratio estimator between them. Raises
    RefusedError without groups.
    """
    if not groups:
        raise RefusedError("nothing to estimate: no image is pending")
    counts, taken = [group.images for group in groups], [machine.device_seconds(group) for group in groups]
    each, error = _ratio(counts, taken)
    low, high = max(0.0, each - SURE * error), each + SURE * error
    sampled = sum(counts)

    def hours(seconds_per_image: float) -> float:
        return images * seconds_per_image / 3600 / devices

    return {
        "images": images,
        "masks": masks,
        "sample": {
            "images": sampled,
            "masks": sum(group.masks for group in groups),
            "groups": len(groups),
            **{
                f"{name}_s_per_image": sum(getattr(group, f"{name}_s") for group in groups) / sampled
                for name in ("fetch", "decode", "refine")
            },
        },
        "device": "gpu" if machine.gpus else "machine",
        "machine": vars(machine),
        "devices": devices,
        "images_per_s": devices / max(each, 1e-9),
        "hours": hours(each),
        "hours_low": hours(low),
        "hours_high": hours(high),
        "device_hours": hours(each) * devices,
        "price_per_device_hour": price_per_hour,
        "cost": hours(each) * devices * price_per_hour,
        "cost_low": hours(low) * devices * price_per_hour,
        "cost_high": hours(high) * devices * price_per_hour,
        "cores_per_gpu": sum(g.decode_s for g in groups) / max(1e-9, sum(g.refine_s for g in groups)),
    }


def _ratio(counts: Sequence[int], taken: Sequence[float]) -> tuple[float, float]:
    """Seconds per image and its standard error; of a single group the error is unknown and taken as the whole."""
    each = sum(taken) / sum(counts)
    if len(counts) < 2:
        return each, each / SURE
    squares = sum((seconds - each * count) ** 2 for count, seconds in zip(counts, taken, strict=True))
    return each, math.sqrt(squares * len(counts) / (len(counts) - 1)) / sum(counts)
