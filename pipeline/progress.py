"""What a run reports while it works. The command line draws it; here it is only named, and kept silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from pipeline.plan import Planned


class Progress(Protocol):
    """Each phase is a context that yields the function to call as its work gets done."""

    def planning(self) -> AbstractContextManager[Callable[[int], None]]:
        """Yields f(images read)."""
        ...

    def planned(self, planned: Planned) -> None:
        """What planning added."""
        ...

    def refining(
        self, images: int, actors: tuple[int, int]
    ) -> AbstractContextManager[Callable[[dict[str, Any]], None]]:
        """`images` are pending; yields f(status row of a finished chunk, see stages.STATUS)."""
        ...

    def sealing(self, parts: int) -> AbstractContextManager[Callable[[int], None]]:
        """`parts` chunks are planned; yields f(parts sealed)."""
        ...


class Silent:  # its arguments are the protocol's
    """Progress that nobody watches."""

    @contextmanager
    def planning(self) -> Iterator[Callable[[int], None]]:
        yield lambda _count: None

    def planned(self, planned: Planned) -> None:
        pass

    @contextmanager
    def refining(self, images: int, actors: tuple[int, int]) -> Iterator[Callable[[dict[str, Any]], None]]:
        yield lambda _status: None

    @contextmanager
    def sealing(self, parts: int) -> Iterator[Callable[[int], None]]:
        yield lambda _count: None
