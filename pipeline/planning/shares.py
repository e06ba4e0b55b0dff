"""What one of several runs takes of a plan, `--part K/N`: of each increment a range of its chunks. Pure.

An increment never changes, and each is divided by itself. So the N runs together take every chunk once, whatever
increments come, whatever they supersede, and whichever of the runs sees them first. Where an increment has fewer chunks
than there are runs, the increments' numbers tell who takes them, so that not all small ones go to the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        return share_numbers(plan, self.of) == self.number


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


def share_numbers(plan: Plan, of: int) -> npt.NDArray[np.int64]:
    """The number, from 1, of the share that has each of the plan's chunks, in its order."""
    increments, ordinals = plan.chunks.numbers()
    last = max(plan.committed, default=0)
    sizes = np.array([plan.committed.get(number, 0) for number in range(last + 1)], np.int64)
    return (ordinals * of // sizes[increments] + increments) % of + 1
