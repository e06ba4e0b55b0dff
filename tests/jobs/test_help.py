"""Every `--help`, as it stands on screens of 80 and 120 columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import COMMANDS, app
from jobs.plain_help import reflowed, value_of
from tests.conftest import ROOT


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_it_reads_plainly(command: str, columns: int) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert not re.findall(r"<[a-z ]+>|\{\w+\}|list\[", done.stdout), "types as the code has them"
    assert str(ROOT) not in done.stdout.replace("\n", ""), "a path of this machine"
    assert re.search(r"--help +Show", done.stdout), "something stands behind a flag"


def test_values_are_called_by_what_they_are() -> None:
    assert value_of("photos", Path | None) == "PATH"
    assert value_of("iou", list[float] | None) == "X"
    assert value_of("prune", bool) == ""
    assert value_of("endpoint_url", str | None) == "URL"
    assert value_of("checkpoint", str | None) == "URI"


def test_paragraphs_are_wrapped_by_the_screen() -> None:
    text = """First line.

    A paragraph that the source
    breaks.

    Example: relabel a
    Example: relabel b
    """
    assert reflowed(text) == (
        "First line.\n\nA paragraph that the source breaks.\n\nExample: relabel a\nExample: relabel b"
    )
