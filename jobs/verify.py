"""`relabel verify`: is the result whole?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from jobs import console
from jobs.status import Endpoint, Output
from pipeline.storage import Access
from pipeline.verify.check import verify as verify_output
from pipeline.verify.files import Report


def verify(
    output: Output,
    endpoint_url: Endpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Recompute the accounting of the current result, and check every file and every row.

    Exit codes: 0 sound; 1 something is wrong, a line for each finding; 2 there is nothing to verify.

    Example: relabel verify s3://b/refined
    """
    columns = (SpinnerColumn(), TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, console=console.err, transient=True) as bar:
        task = bar.add_task("verify", total=None)
        report = verify_output(
            output, Access(endpoint_url), lambda count, total: bar.update(task, advance=count, total=total)
        )
    if as_json:
        numbers = {key: value for key, value in asdict(report).items() if not key.startswith("_")}
        console.out.print_json(json.dumps({"sound": not report.findings, **numbers}))
    else:
        _print(report)
    raise typer.Exit(1 if report.findings else 0)


def _print(report: Report) -> None:
    for finding in report.findings:
        typer.echo(f"{finding.kind}: {finding.path}: {finding.detail}")
    for note in report.notes:
        typer.echo(f"note: {note}")
    parts = [
        f"{name} {numbers['images']} images, {numbers['masks']} masks"
        for name, numbers in (
            ("planned", report.planned),
            ("done", report.done),
            ("failed", report.failed),
            ("pending", report.pending),
        )
    ]
    verdict = f"{len(report.findings)} findings" if report.findings else "sound"
    typer.echo(f"{verdict}: {report.output}, {report.files} files; {'; '.join(parts)}")
