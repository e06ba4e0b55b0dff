"""One model for several threads: its calls one after another, and how long it had anything to do.

Several chunks are refined at once so that the model works on one while the others use the CPU. What each gets does not
depend on the others: every call to the model is made of one chunk's masks alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class SingleThreadProxy:
    """A model that lives in a thread of its own: made there, and every method called there, in the order of asking.

    A lock would do for the results. But torch keeps a pool of threads for each thread that calls it.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._model = self._thread.submit(load).result()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if not callable(value):
            return value
        return lambda *args, **kwargs: self._thread.submit(value, *args, **kwargs).result()


@dataclass
class Spent:
    """Seconds, known at the end: `idle_s` when no task was active before this one, `busy_s` as this task's share."""

    idle_s: float = 0.0
    busy_s: float = 0.0


class BusyClock:
    """Divides wall-clock time among the tasks that are active at once, so that their shares add up to it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._present = 0
        self._counted_until = clock()

    @contextmanager
    def task(self) -> Iterator[Spent]:
        """Count the time inside as one task's."""
        spent = Spent()
        with self._lock:
            if not self._present:
                spent.idle_s = self._pass()
            self._present += 1
        try:
            yield spent
        finally:
            with self._lock:
                self._present -= 1
                spent.busy_s = self._pass()

    def idle_s(self) -> float:
        """Seconds since a task was active, 0 while one is."""
        with self._lock:
            return 0.0 if self._present else self._clock() - self._counted_until

    def _pass(self) -> float:
        since, self._counted_until = self._counted_until, self._clock()
        return self._counted_until - since
