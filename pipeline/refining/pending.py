"""What is left to refine: chunks without a finished part; and what one of several runs takes of them, `--part K/N`.

Of a plan of any size only two numbers a chunk are held here; tasks are made as they are asked for.

A run of a part takes a range of each increment's chunks. An increment never changes, and each is divided by itself. So
the N runs together take every chunk once, whatever increments come, whatever they supersede, and whichever of the runs
sees them first. Where an increment has fewer chunks than there are runs, the increments' numbers tell who takes them,
so that not all small ones go to the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from pipeline.planning.chunks import Chunks
from pipeline.planning.flow import Spread
from pipeline.planning.increment import Plan
from pipeline.refining.chunk import Task
from pipeline.refining.parts import find_parts
from pipeline.storage import Store
from pipeline.words import plural

Counts = npt.NDArray[np.int64]
SHOWN = 8  # numbers of shares in one line


@dataclass(frozen=True)
class Share:
    """Number `number`, from 1, of `of` shares of a plan."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def takes(self, plan: Plan) -> npt.NDArray[np.bool_]:
        """Which of the plan's chunks, in its order, are this share's."""
        mine = np.zeros(len(plan.chunks), np.bool_)
        for number, places in pieces(plan, self.of):
            mine[places] = number == self.number
        return mine


@dataclass(frozen=True)
class Unsealed:
    """What a run of a share left to others, when all of its own was done: chunks and images that are in no part yet,
    and the numbers of the shares that have them.
    """

    share: Share
    chunks: int
    images: int
    numbers: Sequence[int]

    def line(self) -> str:
        """In words."""
        named = ", ".join(map(str, self.numbers[:SHOWN])) + (", ..." if len(self.numbers) > SHOWN else "")
        what = f"{plural(self.chunks, 'chunk')} ({plural(self.images, 'image')})"
        parts = "part" if len(self.numbers) == 1 else "parts"
        return f"part {self.share} is done; not sealed yet: {what} left to {parts} {named} of {self.share.of}"


def pieces(plan: Plan, of: int) -> Iterator[tuple[int, slice]]:
    """What each of `of` shares takes of each increment: the share's number, from 1, and the places of its chunks in the
    plan.
    """
    for increment, size in plan.committed.items():
        edges = [plan.chunks.first_from(increment, -(-piece * size // of)) for piece in range(of + 1)]
        for piece in range(of):
            yield (piece + increment) % of + 1, slice(edges[piece], edges[piece + 1])


class TakenOn(Mapping[str, int]):
    """How many images of each chunk a run answers for, by chunk id."""

    def __init__(self, chunks: Chunks, images: Counts) -> None:
        self._chunks, self._images = chunks, images

    def __getitem__(self, chunk_id: str) -> int:
        place = self._chunks.place_of(chunk_id)
        if place is None:
            raise KeyError(chunk_id)
        return int(self._images[place])

    def __iter__(self) -> Iterator[str]:
        return (chunk.chunk_id for chunk in self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)


class Pending(Sequence[Task]):
    """Tasks in plan order. images: of each chunk that is left, how many its task does."""

    def __init__(self, chunks: Chunks, places: Counts, images: Counts) -> None:
        self._chunks, self._places, self.images = chunks, places, images

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> list[Task]: ...
    def __getitem__(self, place: int | slice) -> Task | list[Task]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        return Task(self._chunks[int(self._places[place])], int(self.images[place]))


def take_on(planned: Plan, limit: int | None) -> TakenOn:
    """What a run answers for, done or not: all images, or the plan's first `limit`."""
    return TakenOn(planned.chunks, _taken(planned.chunks, limit))


def pending(
    planned: Plan, run: Store, limit: int | None, share: Share | None = None, spread: Spread | None = None
) -> Pending:
    """The chunks without a finished part, in plan order; with a limit, those of the plan's first `limit` images; with
    a share, those of them that it takes. spread: see `find_parts`.
    """
    taken = _taken(planned.chunks, limit)
    if share:
        taken = np.where(share.takes(planned), taken, 0)
    places = np.flatnonzero(taken > find_parts(run, planned, spread).done)
    return Pending(planned.chunks, places, taken[places])


def left_over(
    planned: Plan, run: Store, limit: int | None, share: Share, spread: Spread | None = None
) -> Unsealed | None:
    """What of the plan's first `limit` images, or of all, no run has finished yet; None where nothing is left. spread:
    see `find_parts`.
    """
    left = _taken(planned.chunks, limit)
    left[find_parts(run, planned, spread).done >= left] = 0
    numbers = sorted({number for number, places in pieces(planned, share.of) if left[places].any()})
    return Unsealed(share, int(np.count_nonzero(left)), int(left.sum()), numbers) if numbers else None


def _taken(chunks: Chunks, limit: int | None) -> Counts:
    images = chunks.images.astype(np.int64)
    if limit is None:
        return images
    before = np.cumsum(images) - images
    return np.clip(limit - before, 0, images)
