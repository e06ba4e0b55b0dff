"""What the tests of the connection have done beside Ray, by name."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

from pipeline.errors import RefusedError, StorageError

logger = logging.getLogger("pipeline.of.a.test")


def count(number: int) -> Iterator[int]:
    """0, 1, ..., with a line of log for each."""
    for item in range(number):
        logger.warning("item %d", item)
        yield item


def fail(kind: str) -> Iterator[int]:
    """One item, then an error."""
    yield 0
    if kind == "refused":
        raise RefusedError("not like this")
    raise KeyError("a fault of ours")


def for_ever() -> Iterator[int]:
    """The process's id, then nothing for a long time, with nothing that could be interrupted."""
    yield os.getpid()
    while True:
        time.sleep(3600)


def square(number: int) -> int:
    if number < 0:
        raise StorageError(f"cannot square {number}")
    return number * number
