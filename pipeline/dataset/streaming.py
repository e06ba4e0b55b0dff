"""An epoch over more shards than can be looked at before the first batch: blocks are indexed as it comes to them.

As in `order.py`, an epoch is one sequence that ranks and workers take in turn, the same on any number of machines. How
many images a block adds is known only once it was indexed, so each window is shuffled by itself; and whoever goes
through the windows notes where each begins, so that resuming need not go through those before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.dataset.order import BLOCK_ROWS, WINDOW_BLOCKS, Index, Integers, Share

UNKNOWN = -1


class Blocks(NamedTuple):
    """Row groups of all shards, (blocks,) int64 each: the number of the shard, the first row."""

    file: Integers
    start: Integers

    @property
    def windows(self) -> int:
        return -(-len(self.file) // WINDOW_BLOCKS)

    def take(self, numbers: Integers) -> Blocks:
        """Some of them."""
        return Blocks(self.file[numbers], self.start[numbers])


@dataclass(frozen=True)
class Found:
    """A window: the position of its first image in the epoch; the images (numbers in the index) in order."""

    position: int
    index: Index
    images: Integers

    @property
    def end(self) -> int:
        return self.position + len(self.images)


def blocks_of(rows: Sequence[int]) -> Blocks:
    """The blocks of shards of so many rows."""
    counts = -(-np.asarray(rows, np.int64) // BLOCK_ROWS)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return Blocks(np.repeat(np.arange(len(counts)), counts), (np.arange(len(first)) - first) * BLOCK_ROWS)


def no_begins(blocks: Blocks) -> Integers:
    """(windows + 1,) int64: where each window of an epoch begins, and the end. Only the first is known before."""
    begins = np.full(blocks.windows + 1, UNKNOWN, np.int64)
    begins[0] = 0
    return begins


def latest(begins: Integers, consumed: int) -> int:
    """The first of the windows that begin last before a position."""
    known = np.flatnonzero((begins != UNKNOWN) & (begins <= consumed))
    return int(known[begins[known] == begins[known].max()][0])


def windows_from(
    first: int,
    blocks: Blocks,
    look: Callable[[Blocks], Index],
    begins: Integers,
    seeds: Sequence[int] | None,
) -> Iterator[Found]:
    """An epoch from one of its windows on, whose beginning is known.

    look: indexes blocks; begins: noted here; seeds: the seed and the epoch, None for no shuffling.
    """
    order = np.arange(len(blocks.file)) if seeds is None else _random(seeds).permutation(len(blocks.file))
    for number in range(first, blocks.windows):
        index = look(blocks.take(order[number * WINDOW_BLOCKS : (number + 1) * WINDOW_BLOCKS]))
        images = np.arange(len(index)) if seeds is None else _random([*seeds, number]).permutation(len(index))
        begins[number + 1] = begins[number] + len(index)
        yield Found(int(begins[number]), index, images)


def own_found(windows: Iterator[Found], consumed: int, share: Share, even: bool) -> Iterator[tuple[Index, Integers]]:
    """Of each window the images that are the consumer's; see `order.own_positions`."""
    for found, known_end in _with_ends(windows, share.world if even else 1):
        place = np.arange(found.position, found.end) - consumed
        turn = place // share.world
        own = (place >= 0) & (place % share.world == share.rank)
        own &= (turn // share.batch_size) % share.workers == share.worker
        if even:
            own &= (turn + 1) * share.world <= known_end - consumed
        if own.any():
            yield found.index, found.images[own]


def _with_ends(windows: Iterator[Found], ahead: int) -> Iterator[tuple[Found, int]]:
    """Windows, each with a position that the epoch goes up to at least, `ahead` images behind it or all there are."""
    waiting: deque[Found] = deque()
    for found in windows:
        waiting.append(found)
        while waiting and found.end >= waiting[0].end + ahead - 1:
            yield waiting.popleft(), found.end
    end = waiting[-1].end if waiting else 0
    yield from ((found, end) for found in waiting)


def _random(seeds: Sequence[int]) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(seeds)))
