"""What one of several runs takes of a plan, `--part K/N`: of each increment a range of its chunks. Pure.

An increment never changes, and each is divided by itself. So the N runs together take every chunk once, whatever
increments come, whatever they supersede, and whichever of the runs sees them first. Where an increment has fewer chunks
than there are runs, the increments' numbers tell who takes them, so that not all small ones go to the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.planning.increment import Plan
from pipeline.words import plural

SHOWN = 8


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
