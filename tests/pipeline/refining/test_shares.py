"""Shares of a plan: together every chunk once, each a range of an increment, whatever comes later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.planning.increment import Plan, read_plan
from pipeline.refining.pending import Share, Unsealed, left_over, pending, pieces
from tests.pipeline.outputs import Output


def planned(output: Output, *corpora: dict[int, tuple[int, str]]) -> Plan:
    for corpus in corpora:
        output.plan(corpus)
    return read_plan(output.store)


def numbered(plan: Plan, of: int) -> dict[str, int]:
    numbers = np.zeros(len(plan.chunks), int)
    for number, places in pieces(plan, of):
        numbers[places] = number
    return dict(zip((chunk.chunk_id for chunk in plan.chunks), numbers.tolist(), strict=True))


@pytest.mark.parametrize("of", [1, 2, 3, 7, 50])
def test_every_chunk_is_in_one_share_a_range_of_each_increment(tmp_path: Path, of: int) -> None:
    first = dict.fromkeys(range(23), (1, ""))
    plan = planned(Output(tmp_path, chunk_images=1), first, first | dict.fromkeys(range(23, 27), (1, "")))
    taken = np.stack([Share(number, of).takes(plan) for number in range(1, of + 1)])
    assert (len(plan.chunks), plan.committed) == (27, {0: 23, 1: 4})
    assert taken.sum(axis=0).tolist() == [1] * 27
    for own in (taken[:, :23], taken[:, 23:]):
        assert np.ptp(own.sum(axis=1)) <= 1, "no share has two chunks more than another one"
        assert all(np.count_nonzero(np.diff(row.astype(int), prepend=0) == 1) <= 1 for row in own), "in one piece"


def test_later_increments_do_not_move_what_is_planned(tmp_path: Path) -> None:
    output = Output(tmp_path, chunk_images=2)
    before = numbered(planned(output, dict.fromkeys(range(20), (1, ""))), 4)
    changed = {number: (1, "redrawn" if number < 9 else "") for number in range(24)}
    after = numbered(planned(output, changed), 4)
    assert len(before.keys() - after.keys()) >= 1, "chunks of which nothing is left"
    assert {chunk_id: after[chunk_id] for chunk_id in before.keys() & after.keys()}.items() <= before.items()


def test_increments_of_one_chunk_are_not_all_the_same_share(tmp_path: Path) -> None:
    corpora = [dict.fromkeys(range(count), (1, "")) for count in (1, 2, 3, 4)]
    assert sorted(numbered(planned(Output(tmp_path), *corpora), 4).values()) == [1, 2, 3, 4]


def test_what_is_pending_and_what_is_left_to_others(tmp_path: Path) -> None:
    output, share = Output(tmp_path), Share(1, 2)
    plan = planned(output, dict.fromkeys(range(30), (1, "")))
    own = pending(plan, output.run, None, share)
    other = pending(plan, output.run, None, Share(2, 2))
    assert [task.chunk for task in [*own, *other]] == list(plan.chunks)
    assert left_over(plan, output.run, None, share) == Unsealed(share, 10, 30, [1, 2])
    output.refine(own)
    assert len(pending(plan, output.run, None, share)) == 0
    left = left_over(plan, output.run, None, share)
    assert left == Unsealed(share, 5, 15, [2])
    assert left.line() == "part 1/2 is done; not sealed yet: 5 chunks (15 images) left to part 2 of 2"
    assert left_over(plan, output.run, 15, share) is None, "of the first 15 images nothing is left"
    output.refine(other)
    assert left_over(plan, output.run, None, share) is None


def test_many_shares_are_named_in_short() -> None:
    assert (
        Unsealed(Share(1, 99), 98, 980, range(2, 100))
        .line()
        .endswith("left to parts 2, 3, 4, 5, 6, 7, 8, 9, ... of 99")
    )
