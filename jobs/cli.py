"""The `relabel` command.

Exit codes: 0 done; 1 the job failed; 2 refused to start (wrong options, configuration, input or credentials);
3 done, with more failed rows than --max-failed-share; 4 `adapt` found no improvement; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer

from jobs import console
from jobs.adapt import adapt
from jobs.bench import bench
from jobs.calibrate import calibrate
from jobs.config import config
from jobs.demo import demo
from jobs.diff import diff
from jobs.doctor import doctor
from jobs.evaluate import evaluate
from jobs.export import export
from jobs.findings import findings
from jobs.gc import gc
from jobs.inspect import inspect
from jobs.merge import merge
from jobs.patch import patch
from jobs.plan import plan
from jobs.refine import refine
from jobs.report import report
from jobs.review import review
from jobs.run import run
from jobs.seal import seal
from jobs.status import files, status
from jobs.train_lite import train_lite
from jobs.verify import verify
from pipeline import __version__
from pipeline.errors import RefusedError, RelabelError, RowError
from schemas import secrets
from schemas.config import ConfigError

UNWIND_S = 10.0
ENDED_BY: dict[int, tuple[str, int]] = {signal.SIGTERM: ("terminated", 143), signal.SIGINT: ("interrupted", 130)}

app = typer.Typer(
    help="Relabel segmentation datasets: refine coarse masks with Segment Anything, in parallel, resumably.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start with: relabel demo",
)
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (demo, refine, doctor, config),
    "Relabel a dataset": (inspect, merge, plan, run, status, seal),
    "Look at the result": (report, review, findings, patch, diff, verify, files),
    "Hand it on": (export, gc),
    "Make it better, and measure it": (calibrate, adapt, evaluate, bench, train_lite),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relabel {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Entry point: expected errors become one line and an exit code, never a traceback."""
    for number in ENDED_BY:  # as PID 1 there would be no handler of SIGTERM
        signal.signal(number, _unwind)
    try:
        _refuse_secrets()
        app()
    except (RefusedError, ConfigError) as error:
        sys.exit(_say(error, 2))
    except (RelabelError, RowError) as error:
        sys.exit(_say(error, 1))


def _refuse_secrets() -> None:
    """No argument, nor a variable that stands for one, may hold credentials: most are kept, in files and logs."""
    for given in [*sys.argv[1:], *(value for name, value in os.environ.items() if name.startswith("RELABEL_"))]:
        if why := secrets.refusal(given):
            raise RefusedError(why)


def _unwind(number: int, _frame: Any) -> None:
    """End Ray, release the lease, remove temporary files; but what does not answer is not waited for."""
    word, code = ENDED_BY[number]
    os.write(2, f"relabel: {word}; finished chunks are kept. Rerun the same command to resume\n".encode())
    overdue = threading.Timer(UNWIND_S, os._exit, (code,))
    overdue.daemon = True
    overdue.start()
    sys.exit(code)


def _say(error: Exception, code: int) -> int:
    console.err.print(f"relabel: {secrets.redacted(str(error))}", markup=False)
    return code


if __name__ == "__main__":
    main()
