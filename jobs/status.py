"""`relabel status` and `relabel files`: what an output holds."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from jobs import console
from pipeline.dataset import open_result, read_current
from pipeline.dataset.failures import failures
from pipeline.errors import RefusedError
from pipeline.output.status import read_status
from pipeline.planning.scans import current_scan, read_scan
from pipeline.sources import scan_table
from pipeline.storage import Access, Store

MAX_FAILURES = 10

Output = Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")]


def status(
    output: Output,
    endpoint_url: Endpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Planned, done, failed, pending and sealed: images and masks of every method run on this output."""
    found = read_status(output, Access(endpoint_url))
    if as_json:
        console.out.print_json(json.dumps([vars(entry) for entry in found]))
        return
    table = Table(title=output)
    names = ("method", "planned", "done", "failed", "pending", "sealed", "generation", "current")
    for name in names:
        table.add_column(name, justify="left" if name == "method" else "right")
    for entry in found:
        table.add_row(
            entry.fingerprint,
            *(
                f"{n} images, {m} masks"
                for n, m in (entry.planned, entry.done, entry.failed, entry.pending, entry.sealed)
            ),
            "-" if entry.generation is None else str(entry.generation),
            "yes" if entry.is_current else "no",
        )
    console.out.print(table)
    for entry in found:
        for who in entry.refining:
            console.out.print(f"{entry.fingerprint} is being refined: {who}", markup=False)
    store = Store(output, Access(endpoint_url))
    if scan := read_scan(store, current_scan(store)):
        for line in scan_table.lines(scan):
            console.out.print(line, markup=False)
    failed = failures(open_result(output, Access(endpoint_url))) if read_current(store) else []
    for failure in failed[:MAX_FAILURES]:
        console.out.print(str(failure), markup=False)
    if len(failed) > MAX_FAILURES:
        console.out.print(f"failed: {len(failed) - MAX_FAILURES} more kinds; `detail` in the shards tells of each row")


def files(
    output: Output,
    endpoint_url: Endpoint = None,
    kind: Annotated[str, typer.Option(help="masks or images.")] = "masks",
) -> None:
    """The live shards of the current generation, one full path per line.

    Example: relabel files s3://b/refined | xargs -n1 duckdb ...
    """
    if kind not in ("masks", "images"):
        raise RefusedError(f"--kind is masks or images, not {kind!r}")
    for path in open_result(output, Access(endpoint_url)).files(kind):
        typer.echo(f"{output.rstrip('/')}/{path}")
