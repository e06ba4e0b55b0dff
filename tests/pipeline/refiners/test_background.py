"""Work that overlaps with the model: in order, bounded, and no error lost."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import pytest

from pipeline.refiners.background import Overlapped


def test_calls_run_in_order_in_one_other_thread() -> None:
    threads, order = set(), []

    def work(number: int) -> int:
        threads.add(threading.get_ident())
        order.append(number)
        return number * number

    with Overlapped(4) as overlapped:
        results = [overlapped.submit(work, number) for number in range(50)]
    assert order == list(range(50))
    assert [result.result() for result in results] == [number * number for number in range(50)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def until(condition: Callable[[], bool]) -> None:
    """Waits; not for ever."""
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_no_more_are_held_than_it_was_told() -> None:
    gate, done = threading.Event(), []

    def submit_five(overlapped: Overlapped) -> None:
        for number in range(5):
            overlapped.submit(gate.wait)
            done.append(number)

    with Overlapped(3) as overlapped:
        submitting = threading.Thread(target=submit_five, args=[overlapped])
        submitting.start()
        until(lambda: len(done) >= 3)
        assert done == [0, 1, 2]  # the fourth cannot return before the gate is open
        gate.set()
        submitting.join()
    assert done == [0, 1, 2, 3, 4]


def test_an_error_is_raised_to_who_submits_next_and_to_who_asks() -> None:
    def fail() -> None:
        raise ValueError("as asked")

    with Overlapped(1) as overlapped:
        failed = overlapped.submit(fail)
        with pytest.raises(ValueError, match="as asked"):
            overlapped.submit(int)
    with pytest.raises(ValueError, match="as asked"):
        failed.result()


def test_after_an_error_outside_what_waits_is_not_begun() -> None:
    gate, begun = threading.Event(), []

    def first() -> None:
        begun.append("first")
        gate.wait()

    def fail_outside() -> Future[None]:
        with suppress(KeyError), Overlapped(8) as overlapped:
            overlapped.submit(first)
            later = overlapped.submit(begun.append, "later")
            threading.Thread(target=lambda: (until(later.cancelled), gate.set())).start()
            raise KeyError
        return later

    assert fail_outside().cancelled()
    assert begun == ["first"]
