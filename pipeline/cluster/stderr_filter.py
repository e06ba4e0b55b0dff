"""Keeps lines that a C library writes off stderr, which Python's own logging cannot do."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

STDOUT, STDERR = 1, 2


def silence() -> None:
    """From now on nothing that this process writes to stdout or stderr is seen, whatever writes it."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (STDOUT, STDERR):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def without_lines(holding: bytes) -> Iterator[None]:
    """While inside, hold back what is written to the file descriptor of stderr; then pass on all lines but these.

    Processes that are started inside keep writing to a file that nobody reads.
    """
    sys.stderr.flush()
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, STDERR)
            os.close(kept)
            caught.seek(0)
            os.write(STDERR, b"".join(line for line in caught if holding not in line))
