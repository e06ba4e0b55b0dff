"""`relabel status` and `relabel files`: what an output holds."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from jobs import console
from pipeline.dataset import open_result, read_current
from pipeline.dataset.failures import failures
from pipeline.errors import RefusedError
from pipeline.output.status import RunStatus, read_status
from pipeline.planning.scans import current_scan, read_scan, scan_entry
from pipeline.sources import scan_table
from pipeline.storage import Access, Store
from pipeline.words import plural

COUNTS = ("planned", "done", "failed", "pending", "sealed")
MAX_FAILURES = 10

Output = Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")]


def status(
    output: Output,
    endpoint_url: Endpoint = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Machine-readable: of each method [images, masks]; what was decided of what is sealed, and why; "
            "`scan`: the pass over the input, and how much of it was not read.",
        ),
    ] = False,
) -> None:
    """Planned, done, failed, pending and sealed: images and masks of every method run on this output."""
    store = Store(output, Access(endpoint_url))
    with console.err.doing("reading the output"):
        found = read_status(output, store.access)
    if as_json:
        scanned = scan_entry(store)
        scan = scanned.as_dict() if scanned else None
        console.out.data([{**vars(one), "scan": scan} for one in found])
        return
    console.out.tell(output)
    for entry in found:
        console.out.show(_table(entry))
    for entry in found:
        for who in entry.refining:
            console.out.tell(f"{entry.fingerprint} is being refined: {who}")
    if read := read_scan(store, current_scan(store)):
        for line in scan_table.lines(read):
            console.out.tell(line)
    with console.err.doing("looking for failed rows"):
        failed = failures(open_result(output, store.access)) if read_current(store) else []
    for failure in failed[:MAX_FAILURES]:
        console.out.tell(str(failure))
    if len(failed) > MAX_FAILURES:
        more = plural(len(failed) - MAX_FAILURES, "more kind")
        console.out.tell(f"failed: {more}; the column `detail` of the shards says why each row failed")


def _table(entry: RunStatus) -> Table:
    """One method: images and masks below each other, which fits where eight columns side by side do not."""
    sealed = "not sealed yet" if entry.generation is None else f"generation {entry.generation}"
    current = ", current" if entry.is_current else ""
    title = f"method {entry.fingerprint}: {sealed}{current}" if entry.fingerprint else "planned; no run has begun"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in COUNTS:
        table.add_column("of them failed" if name == "failed" else name, justify="right")
    for at, what in enumerate(("images", "masks")):
        table.add_row(what, *(f"{getattr(entry, name)[at]:,}" for name in COUNTS))
    return table


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
