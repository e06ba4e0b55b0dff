"""Standard output and error as the command line has them: what does not go into them is told, and costs the exit code.

Results go to standard output: where it takes no more, the command ends with one line and exit code 1, or quietly with
141 where its reader has gone (`| head -1`). What goes to standard error is about the work, which goes on without it;
the exit code is then 1 in place of 0. One that was closed before the start swallows what it is given, and its number is
not free for a file to be opened under. What the terminal's encoding has no character for is shown as `\\xe9`.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

FAILED, NO_READER = 1, 141
"""Exit codes; the second is what a shell says of whatever ended by SIGPIPE."""

_ANY = "relabel-any"
"""How the streams' encoding takes what it has no character for."""

_codes: list[int] = []


def watch() -> None:
    """Put streams that are watched in the place of `sys.stdout` and `sys.stderr`. Call it before a file is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free is this one
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_ANY, _any)
    sys.stdout, sys.stderr = _watched(1, sys.stdout), _watched(2, sys.stderr)


def exit_code(code: int) -> int:
    """The code to end with, where the work ended with `code`."""
    return code or max(_codes, default=0)


class _Watched(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            return self._give_up(error, len(memoryview(data).cast("B")))

    def _give_up(self, error: OSError, size: int) -> int:
        """Nothing goes there from now on. error: why not."""
        number = self.fileno()
        _codes.append(NO_READER if error.errno == errno.EPIPE and number == 1 else FAILED)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
        if number == 2:
            return size
        if _codes[-1] == FAILED:
            say(f"relabel: standard output takes no more: {error.strerror}. Files that are written stay; rerun it\n")
        raise SystemExit(_codes[-1])  # no exception of the work, which its handlers would take for one


def _any(error: UnicodeError) -> tuple[str | bytes, int]:
    """A byte of a file's name, which Python could not decode either, as it is; any other character as its number."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def say(line: str) -> None:
    """A line on standard error, past every buffer; for a moment at which nothing may go wrong."""
    with suppress(OSError):
        os.write(2, line.encode(errors="backslashreplace"))


def _watched(number: int, given: TextIO | None) -> io.TextIOWrapper:
    """A text stream as Python made it, or would have made it."""
    like = given if isinstance(given, io.TextIOWrapper) else None
    return io.TextIOWrapper(
        io.BufferedWriter(_Watched(number, "wb", closefd=False)),
        encoding=like.encoding if like else "utf-8",
        errors=_ANY,
        line_buffering=like.line_buffering if like else number == 2,
        write_through=like.write_through if like else False,
    )
