"""Results of many shards: what `order.py` promises, though nobody knows beforehand how many images come."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.order import BLOCK_ROWS, WINDOW_BLOCKS, Index, Share
from pipeline.dataset.streaming import UNKNOWN, Blocks, blocks_of, latest, no_begins, own_found, windows_from

numbers = st.integers(1, 5)
sizes = st.lists(st.integers(0, 6), min_size=1, max_size=30)


def indexed(images: list[int]) -> tuple[Blocks, list[list[str]]]:
    """Blocks of one shard with so many images each, and the images' names."""
    names = [[f"{block}-{image}" for image in range(count)] for block, count in enumerate(images)]
    return blocks_of([BLOCK_ROWS * len(images)]), names


class Epoch:
    """One consumer's view of an epoch."""

    def __init__(self, images: list[int], seeds: list[int] | None) -> None:
        self.blocks, self.names = indexed(images)
        self.begins, self.looked = no_begins(self.blocks), 0
        self._seeds = seeds

    def look(self, blocks: Blocks) -> Index:
        self.looked += 1
        starts = [np.arange(len(self.names[start // BLOCK_ROWS])) + start for start in blocks.start]
        start = np.concatenate(starts)
        return Index(np.zeros(len(start), np.int64), start, np.ones(len(start), np.int64), {})

    def drawn(self, share: Share, consumed: int = 0, even: bool = False) -> Iterator[str]:
        first = latest(self.begins, consumed)
        found = windows_from(first, self.blocks, self.look, self.begins, self._seeds)
        for index, images in own_found(found, consumed, share, even):
            for start in index.start[images].tolist():
                yield self.names[start // BLOCK_ROWS][start % BLOCK_ROWS]


@settings(max_examples=60, deadline=None)
@given(images=sizes, world=numbers, workers=numbers, batch=numbers, consumed=st.integers(0, 60), even=st.booleans())
def test_every_image_goes_to_one_consumer(
    images: list[int], world: int, workers: int, batch: int, consumed: int, even: bool
) -> None:
    whole = list(Epoch(images, [3, 1]).drawn(Share()))
    assert sorted(whole) == sorted(chain(*indexed(images)[1]))
    ranks = [
        [
            list(Epoch(images, [3, 1]).drawn(Share(rank, world, worker, workers, batch), consumed, even))
            for worker in range(workers)
        ]
        for rank in range(world)
    ]
    rest = whole[consumed:]
    left = len(rest) // world * world if even else len(rest)
    assert sorted(chain(*chain(*ranks))) == sorted(rest[:left])
    for rank in range(world):
        mine = rest[:left][rank::world]
        assert ranks[rank] == [
            [name for turn, name in enumerate(mine) if turn // batch % workers == worker] for worker in range(workers)
        ], "in turn, as `order.own_positions` has it"


@settings(max_examples=60, deadline=None)
@given(images=sizes, world=numbers, steps=st.integers(0, 20), even=st.booleans())
def test_a_resumed_epoch_begins_at_its_window(images: list[int], world: int, steps: int, even: bool) -> None:
    whole = list(Epoch(images, [5, 0]).drawn(Share()))
    first = Epoch(images, [5, 0])
    taken = [name for name, _ in zip(first.drawn(Share(world - 1, world), even=even), range(steps), strict=False)]
    consumed = len(taken) * world
    window = latest(first.begins, consumed)
    later = Epoch(images, [5, 0])
    later.begins[:] = UNKNOWN
    later.begins[window] = first.begins[window]
    assert list(later.drawn(Share(), consumed)) == whole[consumed:]
    passed = sum(int(later.begins[number] != UNKNOWN) for number in range(window))
    assert passed == 0, "windows before it are not looked at again"


def test_epochs_and_seeds_shuffle_differently_and_repeatably() -> None:
    images = [4] * 20
    one, other, again = (list(Epoch(images, seeds).drawn(Share())) for seeds in ([0, 1], [0, 2], [0, 1]))
    assert one == again != other
    assert list(Epoch(images, None).drawn(Share())) == list(chain(*indexed(images)[1]))


def test_the_first_images_need_the_first_window_only() -> None:
    epoch = Epoch([4] * 400, [0, 0])
    assert next(epoch.drawn(Share()))
    assert epoch.looked == 1
    assert epoch.blocks.windows == 400 // WINDOW_BLOCKS
    blocks = blocks_of([1, 0, BLOCK_ROWS + 1])
    assert blocks.file.tolist() == [0, 2, 2]
    assert blocks.start.tolist() == [0, 0, BLOCK_ROWS]
