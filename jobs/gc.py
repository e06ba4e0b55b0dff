"""`relabel gc`: remove what an output no longer needs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from jobs import console
from jobs.status import Endpoint, Output
from pipeline.errors import RefusedError
from pipeline.output.garbage import collect
from pipeline.output.manifest import Retention
from pipeline.planning.attempts import committed
from pipeline.storage import Access, Store
from pipeline.storage.documents import Switch, read_switch
from pipeline.storage.lease import Patience, check_store, held, unguarded
from pipeline.words import plural


def gc(
    output: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list it.")] = False,
    keep_generations: Annotated[
        int, typer.Option(min=1, metavar="N", help="Results that keep their shards, the current one included.")
    ] = 1,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long a replaced result keeps its shards beyond that.")
    ] = 0.0,
    other_methods: Annotated[
        bool, typer.Option("--other-methods", help="Also all results of methods other than the current one.")
    ] = False,
    assume_exclusive: Annotated[
        bool, typer.Option("--assume-exclusive", help="For a store without conditional writes: nothing else writes.")
    ] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Remove what killed runs left behind, replaced shards, and superseded parts.

    The current result is never touched, nor anything a later run needs to resume.

    Example: relabel gc s3://b/refined --dry-run
    """
    store = Store(output, Access(endpoint_url, exclusive=assume_exclusive))
    if read_switch(store) == Switch(None, None) and not committed(store):
        raise RefusedError(f"{output} holds neither a plan nor a result: nothing of ours to remove")
    if not assume_exclusive:
        check_store(store)
    hold = unguarded if assume_exclusive else partial(held, store, Patience(), console.err.tell)
    retention = Retention(keep_generations, grace)
    with console.err.doing("looking for what nothing names"):
        found = collect(store, hold, retention, other_methods=other_methods, dry_run=dry_run)
    for name, who in found.spared.items():
        console.err.tell(f"kept: {name} is being refined ({'; '.join(who)})")
    for one in found.garbage:
        console.out.tell(f"{one.path}: {one.why}, {plural(one.bytes, 'byte')}")
    if not found.garbage:
        console.out.tell("nothing to remove")
        return
    total = sum(one.bytes for one in found.garbage)
    console.out.tell(
        f"{'would remove' if dry_run else 'removed'} {plural(len(found.garbage), 'file')}, {total / 1e6:.1f} MB"
    )
