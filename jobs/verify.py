"""`relabel verify`: is the result whole?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from jobs import console
from jobs.options import parse_part
from jobs.status import Endpoint, Output
from pipeline.storage import Access
from pipeline.verify.check import verify as verify_output
from pipeline.verify.files import Report
from pipeline.verify.sample import Share, verify_share
from pipeline.words import plural


def verify(
    output: Output,
    endpoint_url: Endpoint = None,
    sample: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Check this share of the shards, and say what that tells."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Check every N-th shard from the K-th on: one of N processes side by side."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Another sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Recompute the accounting of the current result, and check every file and every row.

    --sample and --part check shards one by one, against the rows that the plan
    has for them, in memory that does not grow with the result. Parts 1/N to N/N
    check every shard once; one that was killed is run again alone.

    Exit codes: 0 sound; 1 something is wrong, a line for each finding; 2 there is nothing to verify.

    Example: relabel verify s3://b/refined
    """
    columns = (SpinnerColumn(), TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, console=console.err, transient=True) as bar:
        task = bar.add_task("verify", total=None)

        def on_file(count: int, total: int) -> None:
            bar.update(task, advance=count, total=total or None)

        access = Access(endpoint_url)
        if sample is None and part is None:
            report = verify_output(output, access, on_file)
        else:
            report = verify_share(output, access, Share(sample or 1.0, *parse_part(part or "1/1"), seed), on_file)
    if as_json:
        numbers = {key: value for key, value in asdict(report).items() if not key.startswith("_")}
        console.out.data({"sound": not report.findings, **numbers})
    else:
        _print(report)
    raise typer.Exit(1 if report.findings else 0)


def _print(report: Report) -> None:
    for finding in report.findings:
        console.out.tell(f"{finding.kind}: {finding.path}: {finding.detail}")
    for note in report.notes:
        console.out.tell(f"note: {note}")
    parts = [
        f"{name} {plural(numbers['images'], 'image')}, {plural(numbers['masks'], 'mask')}"
        for name, numbers in (
            ("planned", report.planned),
            ("done", report.done),
            ("failed", report.failed),
            ("pending", report.pending),
        )
    ]
    verdict = plural(len(report.findings), "finding") if report.findings else "sound"
    console.out.tell(f"{verdict}: {report.output}, {plural(report.files, 'file')}; {'; '.join(parts)}")
