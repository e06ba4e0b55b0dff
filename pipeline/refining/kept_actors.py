"""Actors that hold their model from one segment of a run to the next, where Ray Data would start them anew.

Ray Data lets go of a dataset's actors when the dataset is done. These have names and are detached: who lets go of them
does not end them, and the next dataset's pool, which asks for actors by these names, is given those that are there.
They end when the run does, or when its driver dies: each waits for the end of an actor that belongs to the driver.

A pool that grows and shrinks is not kept: an actor that it lets go of to shrink has to end.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
import ray.data

AGAIN_S = 1.0
MOST_WAITING = 1 << 16
"""Actors of a run, at most."""


class _Life:
    """Ends with the driver."""

    async def wait(self) -> None:
        """For ever."""
        await asyncio.Event().wait()


def end_with(life: Any) -> None:
    """Let the actor that calls this end, for good, as soon as another one (a `_Life`) has ended."""
    this = ray.get_runtime_context().current_actor
    threading.Thread(target=_end_after, args=(life, this), daemon=True).start()


def _end_after(life: Any, this: Any) -> None:
    while True:
        try:
            ray.get(life.wait.remote())
        except ray.exceptions.ActorUnavailableError:  # its node does not answer, and may yet
            time.sleep(AGAIN_S)
        except ray.exceptions.RayError:
            break
    ray.kill(this)


class KeptActors:
    """The names of a run's actors."""

    def __init__(self) -> None:
        self.life = ray.remote(num_cpus=0, max_concurrency=MOST_WAITING)(_Life).remote()
        self._names: list[str] = []
        self._datasets: dict[int, ray.data.Dataset] = {}

    def pool(self) -> Callable[[], dict[str, Any]]:
        """What the next dataset's pool has to ask for: called for each actor, it gives the arguments of its making."""
        there = [name for name in self._names if _is_there(name)]

        def arguments() -> dict[str, Any]:
            name = there.pop(0) if there else self._new_name()
            return {"name": name, "lifetime": "detached", "get_if_exists": True}

        return arguments

    def made_by(self, dataset: ray.data.Dataset) -> None:
        """A dataset that is done. What its actors were made of lasts as long as it does, and one that dies is made
        again of it.
        """
        self._datasets.setdefault(len(self._names), dataset)

    def end(self) -> None:
        """Let them end; a pool that comes later has others."""
        for name in self._names:
            with suppress(ValueError, ray.exceptions.RayError):
                ray.kill(ray.get_actor(name))
        self._names.clear()
        self._datasets.clear()

    def _new_name(self) -> str:
        self._names.append(f"refine-{uuid.uuid4().hex}")
        return self._names[-1]


@contextmanager
def kept_actors(wanted: bool, sizes: tuple[int, int]) -> Iterator[KeptActors | None]:
    """Actors to be kept while the context lasts; None where they are not wanted, or the pool's sizes differ."""
    if not wanted or sizes[0] != sizes[1]:
        yield None
        return
    actors = KeptActors()
    try:
        yield actors
    finally:
        actors.end()


def _is_there(name: str) -> bool:
    with suppress(ValueError):
        return ray.get_actor(name) is not None
    return False
