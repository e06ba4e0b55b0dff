"""Actors that hold their model from one segment of a run to the next, where Ray Data would start them anew.

Ray Data lets go of a dataset's actors when the dataset is done. These have names and are detached: who lets go of them
does not end them, and the next dataset's pool, which asks for actors by these names, is given those that are there.
They end when the run does, or when its driver dies: each asks an actor that belongs to the driver whether it may stay.

Nobody may wait for ever for what an idle actor holds. So one that was lost, and finds no room to start again, is given
the room of one that has nothing to do.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
import ray.data

EVERY_S = 5.0
IDLE_S = LOST_S = 60.0
"""Without work, or without a word, for so long."""


class Host:
    """What a run's actors ask, an actor itself. It ends with the driver; where it is lost before, it starts anew."""

    def __init__(self) -> None:
        self._heard_s: dict[str, float] = {}

    def may_stay(self, name: str, idle_s: float) -> bool:
        """Whether the actor of that name, idle for so long, is to go on."""
        now_s = self._heard_s[name] = time.monotonic()
        lost = next((one for one, heard_s in self._heard_s.items() if now_s - heard_s > LOST_S), None)
        if lost is None:
            return True
        waits = is_there(lost)
        if waits and idle_s < IDLE_S:
            return True
        del self._heard_s[lost]  # no other one makes room for it
        if waits:
            del self._heard_s[name]
        return not waits


def stay_with(host: Any, idle_s: Callable[[], float]) -> None:
    """Let the actor that calls this end, for good, as soon as its `Host` has ended or says so.

    idle_s: for how long it has had nothing to do.
    """
    context = ray.get_runtime_context()
    given = (host, context.get_actor_name(), idle_s, context.current_actor)
    threading.Thread(target=_stay, args=given, daemon=True).start()


def _stay(host: Any, name: str, idle_s: Callable[[], float], this: Any) -> None:
    stays = True
    while stays:
        time.sleep(EVERY_S)
        try:
            stays = ray.get(host.may_stay.remote(name, idle_s()))
        except ray.exceptions.ActorUnavailableError:  # its node does not answer, and may yet
            continue
        except ray.exceptions.RayError:
            stays = False
    ray.kill(this)


class KeptActors:
    """The names of a run's actors, and their host."""

    def __init__(self) -> None:
        self.host: Any = None
        self._names: list[str] = []
        self._datasets: dict[int, ray.data.Dataset] = {}

    def pool(self) -> Callable[[], dict[str, Any]]:
        """What the next dataset's pool has to ask for: called for each actor, it gives the arguments of its making."""
        if self.host is None:
            self.host = ray.remote(num_cpus=0, max_restarts=-1)(Host).remote()
        there = [name for name in self._names if is_there(name)]

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
            with suppress(ValueError, ray.exceptions.RayError):  # it has ended already
                ray.kill(ray.get_actor(name))
        self.host = None
        self._names.clear()
        self._datasets.clear()

    def _new_name(self) -> str:
        self._names.append(f"refine-{uuid.uuid4().hex}")
        return self._names[-1]


@contextmanager
def kept_actors(wanted: bool) -> Iterator[KeptActors | None]:
    """Actors to be kept while the context lasts; None where they are not wanted."""
    if not wanted:
        yield None
        return
    actors = KeptActors()
    try:
        yield actors
    finally:
        actors.end()


def is_there(name: str) -> bool:
    """Whether an actor has that name: it runs, or waits until it can."""
    with suppress(ValueError):  # which Ray raises where no actor has that name: the answer is no
        return ray.get_actor(name) is not None
    return False
