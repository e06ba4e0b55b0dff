"""`relabel diff`: what differs between two results."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jobs import console
from jobs.pictures import tell_unread_pictures
from jobs.targets import same, target_file
from pipeline.errors import RefusedError
from pipeline.storage import Access, split_uri

STDOUT = "-"
SIDE = "OUTPUT, OUTPUT@GENERATION, or OUTPUT@coarse for the masks that came in"


def diff(
    before: Annotated[str, typer.Argument(help=f"{SIDE}.", show_default=False)],
    after: Annotated[
        str | None,
        typer.Argument(help="The same of another. Default: BEFORE's own masks that came in are compared with it."),
    ] = None,
    html: Annotated[str | None, typer.Option(help="Write a page with pictures to this file, path or URI.")] = None,
    json_out: Annotated[
        str | None,
        typer.Option("--json", help="Write every figure as JSON to this file, or to standard output with '-'."),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, max=500, help="Examples of each: changed, added, removed.")] = 24,
    images: Annotated[str | None, typer.Option(help="Where the images are now, if they were moved.")] = None,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Compare two results, mask by mask: what was added, removed and changed, by category, size and decision.

    Masks are joined by image and mask id, which depend on the image's path and the
    id in the source: results of the same dataset by other methods, its earlier
    generations and results that were refined again can be compared. Exit code 3:
    --html shows masks without their images, which could not be read.

    Example: relabel diff s3://bucket/refined

    Example: relabel diff s3://bucket/refined@3 s3://bucket/refined --html changes.html
    """
    with console.err.doing("comparing"):
        from pipeline.comparison import page, show  # they take a second to import
        from pipeline.comparison.compare import compare
        from pipeline.comparison.sides import COARSE, find_side, is_plain, output_of

    access = Access(endpoint_url)
    if after is None:
        if not is_plain(before):
            raise RefusedError(f"name what {before} is to be compared with: relabel diff BEFORE AFTER")
        before, after = f"{before}@{COARSE}", before
    _check(html, json_out, access, [output_of(side) for side in (before, after)])
    with console.err.doing("comparing"):
        sides = find_side(before, access), find_side(after, access)
        found = compare(*sides, sample)
    drawn = None
    if html is not None:
        with console.err.doing("drawing examples"):
            drawn = page.page(found, *sides, images)
    figures = json.dumps(show.to_json(found, drawn.unread if drawn else {}), indent=1)
    if json_out == STDOUT:
        typer.echo(figures)
    else:
        console.out.show(show.tables(found))
        if json_out is not None:
            _write(json_out, figures, access)
    if html is not None and drawn is not None:
        _write(html, drawn.html, access)
        tell_unread_pictures(drawn.unread, html)


def _check(html: str | None, json_out: str | None, access: Access, read: list[str]) -> None:
    """Refuse files that cannot be written, or would be written over what is read or each other."""
    if html == STDOUT:
        raise RefusedError("--html -: name a file; a page is not written to standard output")
    if html is not None:
        target_file("--html", html, access, read)
    if json_out is not None and json_out != STDOUT:
        target_file("--json", json_out, access, read)
    if html is not None and json_out is not None and same(html, json_out):
        raise RefusedError(f"--html and --json name one file, {html}: name two")


def _write(uri: str, text: str, access: Access) -> None:
    store, name = split_uri(uri, access)
    store.put(name, text.encode(errors="backslashreplace"))
    console.err.tell(f"wrote {uri}")
