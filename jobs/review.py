"""`relabel review`: what people said of a result's masks, and the masks that they sent back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from pipeline.errors import RefusedError
from pipeline.storage import Access, Store
from pipeline.words import plural

if TYPE_CHECKING:
    from pipeline.corrections.bring import Given
    from pipeline.storage.lease import Hold

PANEL_OVERLAY = "Corrected masks"
MAX_SAID = 10


def review(
    output: Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)],
    verdicts: Annotated[
        str | None, typer.Argument(help="The file that the page of `relabel report` downloaded, path or URI.")
    ] = None,
    corrections: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URI",
            help="Masks that people corrected: CVAT's XML for images, or Label Studio's JSON.",
            rich_help_panel=PANEL_OVERLAY,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the corrections. Default: the file's.", rich_help_panel=PANEL_OVERLAY),
    ] = None,
    sent: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="The export that was corrected: where it held some masks only, or the result has changed since.",
            rich_help_panel=PANEL_OVERLAY,
        ),
    ] = None,
    all_seen: Annotated[
        bool,
        typer.Option(
            "--all-seen",
            help="Every image of the file was looked at: its unchanged masks are right (for `relabel calibrate`).",
            rich_help_panel=PANEL_OVERLAY,
        ),
    ] = False,
    allow_removals: Annotated[
        bool,
        typer.Option(
            "--allow-removals",
            help="Also where more than half of the masks of its images are gone.",
            rich_help_panel=PANEL_OVERLAY,
        ),
    ] = False,
    show: Annotated[
        bool, typer.Option("--list", help="List corrections, and what became of them.", rich_help_panel=PANEL_OVERLAY)
    ] = False,
    undo: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let corrections count no more.", rich_help_panel=PANEL_OVERLAY),
    ] = None,
    assume_exclusive: Annotated[
        bool, typer.Option("--assume-exclusive", help="Take no lease: nobody else writes this output.")
    ] = False,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Bring home what people said of masks: verdicts of the audit page, or masks corrected in CVAT or Label Studio.

    Verdicts: rejected masks stay out of exports, and all can be calibrated on.
    Corrections: what was replaced, added, removed or marked as a crowd is kept
    beside the result under a name, and applied by the next `relabel seal`.

    Example: relabel review s3://bucket/refined verdicts.json
    Example: relabel review s3://bucket/refined --from annotations.xml
    """
    from pipeline.corrections.bring import Given  # it takes a second to import

    access = Access(endpoint_url)
    if sum((verdicts is not None, corrections is not None, show, undo is not None)) != 1:
        raise RefusedError("give one of: a file of verdicts, --from FILE, --list, --undo NAME")
    if verdicts is not None:
        _verdicts(output, verdicts, access)
    elif show:
        _list(output, access)
    elif undo is not None:
        _undo(output, undo, access, hold_of(output, access, assume_exclusive))
    elif corrections is not None:
        given = Given(corrections, name, sent, all_seen, allow_removals)
        _bring(output, given, access, hold_of(output, access, assume_exclusive))


def hold_of(output: str, access: Access, assume_exclusive: bool) -> Hold:
    """What takes the output's lease; one that takes none where nobody else writes."""
    from pipeline.storage.lease import Patience, check_store, held, unguarded

    if assume_exclusive:
        return unguarded
    store = Store(output, access)
    check_store(store)
    return partial(held, store, Patience(), console.err.tell)


def _verdicts(output: str, verdicts: str, access: Access) -> None:
    with console.err.doing("comparing with the result"):
        from pipeline.review.verdicts import review as keep  # it takes a second to import

        kept = keep(output, verdicts, access)
    said = ", ".join(f"{count} {name}" for name, count in kept.taken.items())
    console.out.tell(f"kept {plural(sum(kept.taken.values()), 'verdict')} ({said}) in {output.rstrip('/')}/{kept.path}")
    if kept.stale:
        console.err.tell(f"left out {kept.stale}: the result no longer holds those masks as they were seen")


def _bring(output: str, given: Given, access: Access, hold: Hold) -> None:
    from pipeline.corrections.bring import bring

    with console.err.doing("comparing with the result"):
        kept = bring(output, given, access, hold)
    said = ", ".join(f"{count} {action}" for action, count in kept.counts.items())
    console.out.tell(
        f"{kept.name}: {said}, in {plural(kept.images, 'image')}; kept in {output.rstrip('/')}/{kept.path}"
    )
    if kept.new:
        console.out.tell(f"new categories: {', '.join(kept.new)}")
    if kept.twice:
        console.err.tell(
            f"{plural(kept.twice, 'image')} listed more than once in the file: the last entry of each counts"
        )
    for line in kept.unread[:MAX_SAID]:
        console.err.tell(f"not taken: {line}")
    if len(kept.unread) > MAX_SAID:
        console.err.tell(f"not taken: and {len(kept.unread) - MAX_SAID} more")
    console.out.offer(f"apply it: relabel seal {output}\ntake it back: relabel review {output} --undo {kept.name}")
    raise typer.Exit(3 if kept.unread else 0)


def _list(output: str, access: Access) -> None:
    from pipeline.corrections.bring import states

    found = states(output, access)
    for one in found:
        said = ", ".join(f"{count} {action}" for action, count in one.counts.items())
        lost = (
            f"; {one.without_effect} without effect: the mask or image is gone, or changed"
            if one.without_effect
            else ""
        )
        console.out.tell(f"{one.name}: {one.state}: {said}{lost}")
    if not found:
        console.out.tell("no corrections")


def _undo(output: str, name: str, access: Access, hold: Hold) -> None:
    from pipeline.dataset import overlays

    overlays.undo(Store(output, access), name, hold)
    console.out.tell(f"{name} counts no more. `relabel seal {output}` takes it out of the result")
