"""What a run tells while it works: ten events, sent to one function.

    Planning → Covered → Planned → Starting → Refining → ChunkFinished ... → Refined → (Retrying → Refining ...)
    → Sealing

Any of them may be preceded by Waiting. Events come in the thread that called `pipeline.run`, one at a time. A listener
that raises ends the run, which goes on from there when it is started again.

The command line draws them (`jobs/console.py`), logs them (`jobs/json_log.py`) and counts them (`metrics.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import Breakdown, ChunkFinished


@dataclass(frozen=True)
class Planning:
    """The source is read: so many images by now. The first one has 0."""

    images: int


@dataclass(frozen=True)
class Covered:
    """What lies below --masks and --images, and what of it was read (planning/coverage.py).

    unmatched: categories with a way of their own (`method.per_category`) that no mask has.
    """

    scan: Mapping[str, Any]
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class Starting:
    """A Ray cluster is started, or connected to: `address` as it was given, None for whatever there is."""

    address: str | None


@dataclass(frozen=True)
class Refining:
    """So many images are pending, for `actors` (fewest, most) model actors."""

    images: int
    actors: tuple[int, int]


@dataclass(frozen=True)
class Refined:
    """The refine phase is over. spent: where its time went; of no chunks where nothing was pending."""

    spent: Breakdown


@dataclass(frozen=True)
class Retrying:
    """Retry round `round` has so many images left; None: there is no failed row to retry."""

    round: int | None
    images: int


@dataclass(frozen=True)
class Waiting:
    """Another run holds the output's lease; `message` says which."""

    message: str


@dataclass(frozen=True)
class Sealing:
    """So many of the plan's chunks are sealed by now. The first one has 0."""

    done: int
    chunks: int


Event = Planning | Covered | Planned | Starting | Refining | ChunkFinished | Refined | Retrying | Waiting | Sealing

"""`Planned` is what the plan step returns, `ChunkFinished` what each chunk brings back."""

OnEvent = Callable[[Event], None]


def nobody(_event: Event) -> None:
    """Listens to nothing."""


def everybody(*listeners: OnEvent) -> OnEvent:
    """One listener that passes every event on to each of `listeners`, in order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell
