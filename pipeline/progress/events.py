"""What a run reports while it works. The command line draws it; here it is only named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import Breakdown


class Progress(Protocol):
    """Each phase is a context that yields the function to call as its work gets done."""

    def planning(self) -> AbstractContextManager[Callable[[int], None]]:
        """Yields f(images read)."""
        ...

    def planned(self, planned: Planned) -> None:
        """What planning added."""
        ...

    def covered(self, scan: Mapping[str, Any]) -> None:
        """What lies below --masks and --images, and what of it was read (see planning/coverage.py)."""
        ...

    def refining(
        self, images: int, actors: tuple[int, int]
    ) -> AbstractContextManager[Callable[[dict[str, Any]], None]]:
        """`images` are pending; yields f(status row of a finished chunk, see chunk_rows.STATUS)."""
        ...

    def refined(self, spent: Breakdown) -> None:
        """Where the time of the refine phase went; no chunks where nothing was pending."""
        ...

    def retrying(self, number: int | None, images: int) -> None:
        """Retry round `number` has so many images left; None: there is no failed row to retry."""
        ...

    def waiting(self, line: str) -> None:
        """Another run holds the output's lease."""
        ...

    def sealing(self, parts: int) -> AbstractContextManager[Callable[[int], None]]:
        """`parts` chunks are planned; yields f(parts sealed)."""
        ...
