"""The `relabel` command.

Exit codes: 0 done; 1 the job failed; 2 refused to start (wrong options, configuration, input or credentials);
3 done, with more failed rows than --max-failed-share, or something left unread, which is named; 4 `adapt` found no
improvement; 130 interrupted; 141 the reader of standard output has gone; 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated, Any

import typer

from jobs import console, streams
from jobs.lazy_commands import Place, group_of
from pipeline import __version__
from pipeline.errors import RefusedError, RelabelError, RowError
from schemas import secrets
from schemas.config import ConfigError

UNWIND_S = 10.0
ENDED_BY: dict[int, tuple[str, int]] = {signal.SIGTERM: ("terminated", 143), signal.SIGINT: ("interrupted", 130)}
RESUMED = {"run": "chunks", "demo": "chunks", "export": "files"}
"""Commands that go on where they were stopped, and what they keep."""

WrongUseError: type[Exception] = typer.BadParameter.__mro__[1]
"""The command line is not one; of click, or of the copy of it that some versions of typer bring along."""

PANELS = {
    "Start": "demo refine doctor config",
    "Relabel a dataset": "inspect merge plan run status seal",
    "Look at the result": "report review findings patch diff verify files",
    "Hand it on": "export gc",
    "Make it better, and measure it": "calibrate adapt evaluate value bench train-lite",
}
MODULES = {"files": "status"}
"""Of commands that do not stand in a module of their own name."""

COMMANDS = {
    name: Place(panel, MODULES.get(name, name.replace("-", "_")), name.replace("-", "_"))
    for panel, names in PANELS.items()
    for name in names.split()
}
app = typer.Typer(
    cls=group_of(COMMANDS),
    help="Relabel segmentation datasets: refine coarse masks with Segment Anything, in parallel, resumably.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start with: relabel demo",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.out.tell(f"relabel {__version__}")
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
        sys.exit(app(prog_name="relabel", standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except WrongUseError as error:
        sys.exit(_say_wrong_use(error))
    except (RefusedError, ConfigError, RowError) as error:  # a row that fails alone is `refine`'s only input
        sys.exit(_say(error, 2))
    except RelabelError as error:
        sys.exit(_say(error, 1))


def _refuse_secrets() -> None:
    """No argument, nor a variable that stands for one, may hold credentials: most are kept, in files and logs."""
    for given in [*sys.argv[1:], *(value for name, value in os.environ.items() if name.startswith("RELABEL_"))]:
        if why := secrets.refusal(given):
            raise RefusedError(why)


def _unwind(number: int, _frame: Any) -> None:
    """End Ray, release the lease, remove temporary files; but what does not answer is not waited for."""
    word, code = ENDED_BY[number]
    after_the_keys = "\n" if os.isatty(2) else ""  # the terminal has just shown ^C
    kept = RESUMED.get(sys.argv[1] if len(sys.argv) > 1 else "")
    what = f"; finished {kept} are kept. Rerun the same command to resume" if kept else ""
    streams.say(f"{after_the_keys}relabel: {word}{what}\n")
    overdue = threading.Timer(UNWIND_S, os._exit, (code,))
    overdue.daemon = True
    overdue.start()
    sys.exit(code)


def _say_wrong_use(error: Any) -> int:
    """One line for what is no command, option or value; without any arguments, the help."""
    told = error.format_message()
    # The parser itself, of what wants a value, names no command; it has one, or it would not know the option.
    command = error.ctx.command_path if error.ctx else " ".join(["relabel", *sys.argv[1:2]])
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    globbed = "unexpected extra arg" in told and command.endswith("refine")
    hint = " Quote a pattern, so that the shell leaves it as it is." if globbed else ""
    stop = "" if told.endswith((".", "?")) else "."
    console.err.tell(f"relabel: {told}{stop}{hint} `{command} --help` lists what there is.")
    return 2


def _say(error: Exception, code: int) -> int:
    text = f"relabel: {secrets.redacted(str(error))}"
    console.err.tell(*(text.split("\n") if isinstance(error, ConfigError) else [text]))
    return code


if __name__ == "__main__":
    main()
