"""What the tests of the connection have done beside Ray, by name."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RefusedError, StorageError

logger = logging.getLogger("pipeline.of.a.test")


def count(_items: Iterator[Any], number: int) -> Iterator[int]:
    """0, 1, ..., with a line of log for each."""
    for item in range(number):
        logger.warning("item %d", item)
        yield item


def fail(_items: Iterator[Any], kind: str) -> Iterator[int]:
    """One item, then an error."""
    yield 0
    if kind == "refused":
        raise RefusedError("not like this")
    raise KeyError("a fault of ours")


def for_ever(_items: Iterator[Any]) -> Iterator[int]:
    """The process's id, then nothing for a long time, with nothing that could be interrupted."""
    yield os.getpid()
    while True:
        time.sleep(3600)


def squares(items: Iterator[int]) -> Iterator[int]:
    """Each as soon as it is there."""
    return map(square, items)


def square(number: int) -> int:
    if number < 0:
        raise StorageError(f"cannot square {number}")
    return number * number


def up_to(number: int) -> Iterator[int]:
    """0, 1, ..., each with the time that it takes to make it."""
    for item in range(number):
        time.sleep(0.01)
        yield item
    if number < 0:
        raise StorageError(f"cannot count to {number}")


@dataclass(frozen=True)
class KilledOnce:
    """The function; the process that is the first to have yielded something is killed."""

    function: Callable[[Any], Iterable[Any]]
    killed: str

    def __call__(self, item: Any) -> Iterator[Any]:
        for result in self.function(item):
            yield result
            with suppress(FileExistsError):  # another was killed already
                Path(self.killed).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
