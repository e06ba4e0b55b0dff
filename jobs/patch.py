"""`relabel patch`: changes to masks that people decided on, as a file."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs import console
from jobs.review import MAX_SAID, hold_of
from pipeline.storage import Access
from pipeline.words import plural


def patch(
    output: Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)],
    patches: Annotated[
        str,
        typer.Option("--from", metavar="URI", help="The file of patches, .json or .parquet.", show_default=False),
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the patches. Default: the file's.")] = None,
    assume_exclusive: Annotated[
        bool, typer.Option("--assume-exclusive", help="Take no lease: nobody else writes this output.")
    ] = False,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Change masks by a list: remove, add, split, mark as a crowd, give another class.

    The list is written by hand, by a program, or by `relabel findings --as-patches`:
    then a patch is applied where its verdict is yes, and the findings that were
    judged are not shown again. Patches are kept beside the result under a name and
    applied by the next `relabel seal`; `relabel review --list` shows them,
    `relabel review --undo NAME` takes them back. Exit code 3: some cannot be
    applied, and are named.

    Example: relabel patch s3://bucket/refined --from patches.json
    """
    access = Access(endpoint_url)
    with console.err.doing("comparing with the result"):
        from pipeline.corrections.patch import patch as keep  # it takes a second to import

        done = keep(output, patches, name, access, hold_of(output, access, assume_exclusive))
    if done.name:
        said = ", ".join(f"{count} {action}" for action, count in done.counts.items())
        console.out.tell(f"{done.name}: {said}; kept in {output.rstrip('/')}/{done.path}")
    if done.judged:
        console.out.tell(f"kept {plural(done.judged, 'verdict')} on findings")
    if done.rejected or done.unjudged:
        unjudged = plural(done.unjudged, "finding")
        console.out.tell(f"not applied: {done.rejected} with the verdict no, {unjudged} without a verdict")
    for line in done.refused[:MAX_SAID]:
        console.err.tell(f"not taken: {line}")
    if len(done.refused) > MAX_SAID:
        console.err.tell(f"not taken: and {len(done.refused) - MAX_SAID} more")
    if done.name:
        console.out.offer(f"apply it: relabel seal {output}\ntake it back: relabel review {output} --undo {done.name}")
    raise typer.Exit(3 if done.refused else 0)
