"""What the stages reserve of small and large clusters."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.cluster.resources import idle_gpus, reserve
from schemas.config import Method, Operation

CPUS, GPUS = {"CPU": 16.0}, {"CPU": 16.0, "GPU": 2.0, "accelerator_type:A100-40G": 1.0}


@pytest.mark.parametrize(
    ("given", "cluster", "chunks"),
    [
        ({}, CPUS, 2),
        ({}, GPUS, 4),
        ({"gpus_per_actor": 0}, GPUS, 2),
        ({"gpus_per_actor": 0.25}, GPUS, 2),
        ({"worker_memory_mb": 2048}, GPUS, 1),
        ({"worker_memory_mb": 2048, "chunks_per_actor": 3}, CPUS, 3),
    ],
)
def test_chunks_at_an_actor(given: dict[str, Any], cluster: dict[str, float], chunks: int) -> None:
    assert reserve(Operation(**given), cluster).chunks_per_actor == chunks


@pytest.mark.parametrize("cpus", [1.0, 2.0, 4.0, 16.0])
@pytest.mark.parametrize("gpus", [0.0, 1.0, 2.0])
def test_all_actors_and_two_tasks_fit(cpus: float, gpus: float) -> None:
    found = reserve(Operation(), {"CPU": cpus, "GPU": gpus})
    assert found.actors[0] == (gpus or cpus)
    assert found.actors[0] * found.actor_cpus + 2 * found.task_cpus <= cpus + 0.01


@pytest.mark.parametrize(
    ("given", "cluster", "shares", "actors"),
    [
        ({}, GPUS, 0.25, 8),
        ({}, {**GPUS, "CPU": 12.0}, 0.3333, 6),  # two CPUs for each
        ({}, {**GPUS, "CPU": 4.0}, 1.0, 2),
        ({}, {**GPUS, "CPU": 1.0, "GPU": 1.0}, 1.0, 1),
        ({}, {"CPU": 16.0, "GPU": 2.0}, 1.0, 2),  # of what kind, and how large, Ray did not tell
        ({}, {"CPU": 16.0, "GPU": 2.0, "accelerator_type:K80": 1.0}, 1.0, 2),
        ({}, {**GPUS, "accelerator_type:K80": 1.0}, 1.0, 2),
        ({"gpus_per_actor": 1}, GPUS, 1.0, 2),
        ({"gpus_per_actor": 0.125}, GPUS, 0.125, 16),
        ({}, CPUS, 0.0, 16),
    ],
)
def test_actors_share_a_gpu_where_there_are_cpus_for_them(
    given: dict[str, Any], cluster: dict[str, float], shares: float, actors: int
) -> None:
    found = reserve(Operation(**given), cluster, gpu_actors=4)
    assert found.gpus_per_actor == shares
    assert found.actors == (actors, actors)
    assert found.actors[1] * found.gpus_per_actor <= cluster.get("GPU", 0.0)
    assert found.actors[1] * found.actor_cpus + 2 * found.task_cpus <= cluster["CPU"] + 0.01


def test_a_fixed_number_of_actors_is_the_most_that_there_may_be() -> None:
    some = Operation(actors_min=1, actors_max=4)
    assert reserve(some, CPUS).actors == (1, 4)
    fixed = reserve(some, {"CPU": 4.0}, fixed=True)
    assert fixed.actors == (4, 4)
    assert 4 * fixed.actor_cpus + 2 * fixed.task_cpus <= 4
    assert reserve(Operation(), GPUS, fixed=True).actors == reserve(Operation(), GPUS).actors == (2, 2)


@pytest.mark.parametrize(
    ("method", "gpus_per_actor", "said"),
    [
        (Method(colour_vote=0.4), 1.0, True),
        (Method(colour_vote=0.4), 0.2, False),
        (Method(colour_vote=0.4), 0.0, False),
        (Method(colour_vote=0.0), 1.0, False),
        (Method(model="vit_b", colour_vote=0.4), 1.0, False),
    ],
)
def test_gpus_that_would_wait_for_colours_are_named(method: Method, gpus_per_actor: float, said: bool) -> None:
    assert ("colour vote computes on CPUs" in idle_gpus(method, gpus_per_actor)) == said
