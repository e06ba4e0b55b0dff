"""What the stages reserve of a cluster. No Ray here: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.config import Method, Operation

CHUNKS_ON_CPU, CHUNKS_ON_GPU, CHUNKS_ON_SHARE = 2, 4, 2
"""Chunks at an actor at once. A GPU is several times faster than the CPU work around it is in one thread; where actors
share it, more chunks in each would wait for one another more than for the GPU."""

CPUS_OF_SHARE = 2.0
"""For each of the actors that share a GPU: with fewer they would wait for CPUs."""

ACCELERATOR = "accelerator_type:"
LARGE = ("T4", "V100", "P100", "A10", "A30", "A40", "L4", "H100", "H20", "B200", "B300", "GB", "GH200", "RTX-PRO")
"""GPUs with 16 GiB or more, by what Ray's names for them begin with: several actors fit into one. Of others that is not
known, and each has one."""


@dataclass(frozen=True)
class Resources:
    """Ray reservations. CPU numbers are shares for scheduling, not threads (see `reserve`).

    chunks_per_actor: one is at the model while others are unpacked, prompted from, scored or handed on.
    """

    actors: tuple[int, int]
    gpus_per_actor: float
    actor_cpus: float
    task_cpus: float
    chunks_per_actor: int


def reserve(operation: Operation, cluster: dict[str, float], fixed: bool = False, gpu_actors: int = 1) -> Resources:
    """Reservations that let every stage run at once, down to two CPUs; GPUs where the cluster has them.

    Actors on CPU compute in `threads_per_actor` threads but reserve three quarters of a CPU, so that loading and
    writing always find a slot; a reserved whole CPU per actor would leave them none on a small machine.

    fixed: as many actors as there may be, from beginning to end; gpu_actors: see ModelSpec.
    """
    gpus = cluster.get("GPU", 0.0)
    cpus = max(1.0, cluster.get("CPU", 1.0))
    per_actor = operation.gpus_per_actor
    if per_actor is None:
        together = min(gpu_actors, int(cpus / gpus / CPUS_OF_SHARE)) if gpus and _all_large(cluster) else 1
        per_actor = _share(together) if gpus else 0.0
    natural = int(gpus / per_actor) if per_actor else int(cpus / operation.threads_per_actor)
    low = operation.actors_min or operation.actors_max or max(1, natural)
    high = operation.actors_max or max(low, natural)
    low = high if fixed else low
    task_cpus = 0.25 if cpus < 8 or not per_actor else 1.0
    wanted = 1.0 if per_actor else 0.75 * operation.threads_per_actor
    actor_cpus = math.floor(100 * min(wanted, max(0.05, (cpus - 2 * task_cpus) / low))) / 100
    return Resources((low, high), per_actor, actor_cpus, task_cpus, _chunks(operation, per_actor))


def idle_gpus(method: Method, gpus_per_actor: float) -> str:
    """One line about GPUs that will wait for CPUs; "" where they will not."""
    if not (gpus_per_actor >= 1 and method.model == "lite" and method.colour_vote):
        return ""
    return (
        f"lite with its colour vote computes on CPUs, and will keep {gpus_per_actor:g} GPU of each actor waiting: use "
        "workers without GPUs (gpus_per_actor: 0), share a GPU among actors (gpus_per_actor: 0.2), or switch the vote "
        "off (colour_vote: 0, another method)"
    )


def _all_large(cluster: Mapping[str, float]) -> bool:
    """Whether every kind of GPU that Ray found is one of LARGE."""
    kinds = [name.removeprefix(ACCELERATOR) for name in cluster if name.startswith(ACCELERATOR)]
    return bool(kinds) and all(kind.startswith(LARGE) for kind in kinds)


def _share(actors: int) -> float:
    """Of a GPU for each of some actors, in the four decimals that Ray counts in."""
    return math.floor(1e4 / max(1, actors)) / 1e4


def _chunks(operation: Operation, gpus_per_actor: float) -> int:
    """What was asked for; else one where memory is bounded, since every chunk at work has masks of its own in it."""
    if operation.chunks_per_actor or operation.worker_memory_mb:
        return operation.chunks_per_actor or 1
    if not gpus_per_actor:
        return CHUNKS_ON_CPU
    return CHUNKS_ON_SHARE if gpus_per_actor < 1 else CHUNKS_ON_GPU
