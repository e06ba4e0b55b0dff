"""`relabel doctor`: would a run work here, and what is in its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from jobs import console
from pipeline.storage import Access

if TYPE_CHECKING:
    from pipeline.doctor import Finding

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
WIDTH = 18


def doctor(
    output: Annotated[
        str | None,
        typer.Argument(help="An output to try: a few small files are written there and deleted.", show_default=False),
    ] = None,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to try. Default: one is started here.")] = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Don't start or connect to Ray.")] = False,
) -> None:
    """Check Python, packages, memory, disks, GPUs, Ray and a store, and say what to do about what is wrong.

    Exit codes: 0 nothing is in the way; 1 something is.

    Example: relabel doctor s3://b/refined
    """
    console.out.print("relabel doctor", style="bold")

    from pipeline.doctor import diagnose  # imports pyarrow

    problems = 0
    for finding in _as_they_come(diagnose(output, Access(endpoint_url), address, with_ray=not no_ray)):
        problems += finding.state == "problem"
        _show(finding)
    raise typer.Exit(1 if problems else 0)


def _as_they_come(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What is found; a check of some seconds, as that of Ray, is seen to go on."""
    while True:
        with console.err.doing("checking"):
            finding = next(findings, None)
        if finding is None:
            return
        yield finding


def _show(finding: Finding) -> None:
    head = f"{finding.state:8} {finding.check:{WIDTH}} "
    line = Text(console.out.fitted(head + finding.found, len(head)))
    line.stylize(COLOURS[finding.state], 0, len(finding.state))
    line.stylize("bold", len("problem  "), len(head))
    console.out.print(line)
    if finding.do:
        console.out.tell(f"{'':{len(head)}}-> {finding.do}")
