"""`relabel`, and `python -m jobs`: the command line, if what it is about to import is this project."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from jobs import streams

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the command; exit code 2 and one line where another `pipeline` or `schemas` would be imported."""
    for number in (signal.SIGINT, signal.SIGTERM):  # until the command line has its own
        signal.signal(number, _stop)
    streams.watch()
    for name in ("pipeline", "schemas"):
        found = find_spec(name)
        origin = found.origin if found else None
        if origin is None or Path(origin).resolve().parents[1] != ROOT:
            sys.stderr.write(f"relabel: Python finds {origin or 'nothing'} for `{name}`, not {ROOT / name}: ")
            sys.stderr.write("start in another folder, or take that one off PYTHONPATH\n")
            sys.exit(2)

    from jobs.cli import main as command

    ended = [1]
    atexit.register(_leave, ended)  # first, and so the last to be called
    try:
        command()
    except SystemExit as end:
        ended[0] = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def _stop(number: int, _frame: object) -> None:
    """Nothing has begun: end without a traceback of imports."""
    streams.say("relabel: interrupted\n")
    os._exit(128 + number)


def _leave(code: list[int]) -> None:
    """End without taking the interpreter down: a thread of Arrow's that still lets go of a Python object would abort
    the process after everything is done.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, SystemExit):  # what is lost has been told, or nobody is left to be told
            stream.flush()
    os._exit(streams.exit_code(code[0]))


if __name__ == "__main__":
    main()
