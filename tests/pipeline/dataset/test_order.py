"""Which images, in which order, for whom: nothing lost, nothing twice, and the machines change nothing."""

from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.order import BLOCK_ROWS, Index, Share, index_shard, join, own_images, own_positions, windows

numbers = st.integers(1, 6)


def big_index(files: int = 3, blocks: int = 5, images_per_block: int = 7) -> Index:
    """Images of 3 rows, spread over blocks of several files."""
    start = np.concatenate([np.arange(images_per_block) * 3 + block * BLOCK_ROWS for block in range(blocks)])
    one = [Index(np.full(len(start), f, np.int64), start, np.full(len(start), 3), ()) for f in range(files)]
    return join(one)


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(0, 90),
    world=numbers,
    workers=numbers,
    batch=numbers,
    consumed=st.integers(0, 90),
    even=st.booleans(),
)
def test_every_position_goes_to_one_consumer(
    total: int, world: int, workers: int, batch: int, consumed: int, even: bool
) -> None:
    consumed = min(consumed, total)
    ranks = [
        [own_positions(total, consumed, Share(rank, world, worker, workers, batch), even) for worker in range(workers)]
        for rank in range(world)
    ]
    found = sorted(np.concatenate([part for rank in ranks for part in rank]).tolist())
    left = (total - consumed) // world * world if even else total - consumed
    assert found == list(range(consumed, consumed + left))
    if even:
        assert len({sum(map(len, rank)) for rank in ranks}) == 1


@settings(max_examples=40, deadline=None)
@given(world=numbers, workers=numbers, batch=numbers, steps=st.integers(0, 5), later_world=numbers)
def test_a_resumed_epoch_is_the_rest_of_it_on_any_machines(
    world: int, workers: int, batch: int, steps: int, later_world: int
) -> None:
    index = big_index()

    def drawn(share: Share, consumed: int) -> list[int]:
        own = own_positions(len(index), consumed, share, even=False)
        return [int(i) for images in own_images(windows(index, True, 7, 3), own) for i in images]

    whole = drawn(Share(), 0)
    assert sorted(whole) == list(range(len(index)))
    by_rank = [drawn(Share(rank, world), 0)[: steps * batch] for rank in range(world)]
    if min(map(len, by_rank)) < steps * batch:  # past the end
        return
    consumed = steps * batch * world
    rest = [
        drawn(Share(rank, later_world, w, workers, batch), consumed)
        for rank in range(later_world)
        for w in range(workers)
    ]
    assert sorted(chain(*by_rank)) == sorted(whole[:consumed])
    assert sorted(chain(*by_rank, *rest)) == list(range(len(index)))


def test_the_batches_of_a_rank_do_not_depend_on_its_workers() -> None:
    def batches(workers: int) -> list[list[int]]:
        queues = [own_positions(50, 4, Share(1, 2, worker, workers, 3), True).tolist() for worker in range(workers)]
        taken, turn = [], 0
        while any(queues):  # as DataLoader does: a batch from each worker in turn
            queue = queues[turn % workers]
            taken.append(queue[:3])
            del queue[:3]
            turn += 1
        return [batch for batch in taken if batch]

    assert batches(1) == batches(2) == batches(5)


def test_epochs_and_seeds_shuffle_differently_and_repeatably() -> None:
    index = big_index()

    def epoch(seed: int, number: int, shuffle: bool = True) -> list[int]:
        return [int(i) for window in windows(index, shuffle, seed, number) for i in window.images]

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(0, 1) != epoch(1, 1)
    assert epoch(0, 0, shuffle=False) == list(range(len(index)))
    positions = [window.position for window in windows(index, True, 0, 0)]
    assert positions == [0, 28, 56, 84]  # four blocks of seven images each


def test_an_image_counts_when_one_of_its_rows_is_kept() -> None:
    changes = np.array([1, 0, 1, 1, 0, 0], bool)
    index = index_shard(2, changes, np.array([0, 1, 0, 0, 0, 1], bool))
    assert index.start.tolist() == [0, 3]
    assert index.rows.tolist() == [2, 3]
    assert index.file.tolist() == [2, 2]
    assert len(index_shard(0, np.zeros(0, bool), np.zeros(0, bool))) == 0
    assert len(join([])) == 0
