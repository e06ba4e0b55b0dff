"""Work that overlaps with the model: one thread scores and encodes masks while the model computes the next ones.

Results do not depend on it: each call is a pure function of its arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Overlapped:
    """Calls functions one after another in a thread; a context, at whose end all of them are done.

    waiting: so many calls are held with their arguments; a further one waits until the oldest is done.
    """

    def __init__(self, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._held: deque[Future[object]] = deque()
        self._waiting = waiting

    def __enter__(self) -> Overlapped:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Raises what an earlier call raised, once that call is waited for."""
        if len(self._held) >= self._waiting:
            self._held.popleft().result()
        future = self._pool.submit(function, *args, **kwargs)
        self._held.append(future)  # type: ignore[arg-type]
        return future
