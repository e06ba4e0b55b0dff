"""Which images a feed goes through, in which order, and which of them are this process's. Pure; no torch, no I/O.

The order of an epoch is one sequence over all images. It depends on the result, the filter, the seed and the epoch,
and on nothing else: not on the number of ranks or workers. Ranks take its positions in turn; a rank's workers take
its batches in turn. So the batches of a rank are the same with any number of workers, what all ranks have consumed is
always the sequence up to some position, and that position is all that resuming needs, on as many machines as there
are then.

To shuffle what does not fit in memory, images are read in blocks (the row groups of the shards): blocks are permuted,
and the images of WINDOW_BLOCKS blocks at a time are permuted among themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 16_384  # the row groups of the shards (pipeline/output/seal.py): a block is fetched as a whole
WINDOW_BLOCKS = 4

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Index:
    """The images that a feed goes through. Arrays (images,) int64; `kept` one bool array for each file.

    file    number of the shard
    start   the image's first row in it
    rows    how many rows it has there, whether the filter keeps them or not
    kept    by number of the shard: which of its rows the filter keeps, (rows of the shard,) bool
    """

    file: Integers
    start: Integers
    rows: Integers
    kept: Sequence[npt.NDArray[np.bool_]] | Mapping[int, npt.NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.file)


class Share(NamedTuple):
    """A consumer among several: rank of `world` ranks, worker of `workers` in it; a rank consumes whole batches."""

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1
    batch_size: int = 1


class Window(NamedTuple):
    """A stretch of the epoch: the position of its first image, and the images (numbers in the Index) in order."""

    position: int
    images: Integers


def index_shard(number: int, changes: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_]) -> Index:
    """One shard's images that keep a row. changes: (rows,) bool, whether a row is the first of its image."""
    start = np.flatnonzero(changes).astype(np.int64)
    rows = np.diff(np.append(start, len(changes))).astype(np.int64)
    used = np.add.reduceat(kept.astype(np.int64), start) > 0 if len(start) else np.zeros(0, bool)
    start, rows = start[used], rows[used]
    return Index(np.full(len(start), number, np.int64), start, rows, (kept,))


def join(shards: list[Index]) -> Index:
    """The index of all shards, in their order."""
    if not shards:
        nothing = np.zeros(0, np.int64)
        return Index(nothing, nothing, nothing, ())
    return Index(
        np.concatenate([shard.file for shard in shards]),
        np.concatenate([shard.start for shard in shards]),
        np.concatenate([shard.rows for shard in shards]),
        tuple(kept for shard in shards for kept in _files(shard)),
    )


def _files(shard: Index) -> Iterable[npt.NDArray[np.bool_]]:
    return shard.kept.values() if isinstance(shard.kept, Mapping) else shard.kept


def windows(index: Index, shuffle: bool, seed: int, epoch: int) -> Iterator[Window]:
    """The whole epoch, window by window."""
    if not len(index):
        return
    group = index.start // BLOCK_ROWS
    new_block = np.append(True, (np.diff(index.file) != 0) | (np.diff(group) != 0))
    firsts = np.flatnonzero(new_block)
    blocks = np.split(np.arange(len(index), dtype=np.int64), firsts[1:])
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = random.permutation(len(blocks)) if shuffle else np.arange(len(blocks))
    position = 0
    for begin in range(0, len(order), WINDOW_BLOCKS):
        images = np.concatenate([blocks[number] for number in order[begin : begin + WINDOW_BLOCKS]])
        yield Window(position, random.permutation(images) if shuffle else images)
        position += len(images)


def own_positions(total: int, consumed: int, share: Share, even: bool) -> Integers:
    """Positions of [consumed, total) that are the consumer's, rising.

    even: every rank gets as many images as the others, as DistributedDataParallel needs; up to world - 1 of the epoch's
    last images are then left out.
    """
    left = max(0, total - consumed)
    count = left // share.world if even else (left - share.rank + share.world - 1) // share.world
    turn = np.arange(max(0, count), dtype=np.int64)
    own = turn[(turn // share.batch_size) % share.workers == share.worker]
    return consumed + share.rank + own * share.world


def own_images(plan: Iterator[Window], own: Integers) -> Iterator[Integers]:
    """The images at positions `own`, window by window; windows without any of them are passed over."""
    for window in plan:
        low, high = np.searchsorted(own, [window.position, window.position + len(window.images)])
        if high > low:
            yield window.images[own[low:high] - window.position]
