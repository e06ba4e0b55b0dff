"""Work that is done here, or elsewhere and several pieces at a time: what comes of it comes in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Flow(Protocol):
    """What a function yields of one item after another; items may be at work elsewhere, several at a time."""

    def __call__(self, function: Callable[[Item], Iterable[Result]], items: Iterable[Item], /) -> Iterator[Result]: ...


class Spread(Protocol):
    """As `map`; items may be at work elsewhere, several at a time."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item], /) -> Iterator[Result]: ...


def in_turn(function: Callable[[Item], Result], items: Sequence[Item], /) -> Iterator[Result]:
    """In this process."""
    return map(function, items)


def one_by_one(function: Callable[[Item], Iterable[Result]], items: Iterable[Item], /) -> Iterator[Result]:
    """In this process."""
    for item in items:
        yield from function(item)
