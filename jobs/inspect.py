"""`relabel inspect`: what planning would read of a dataset, and pictures of its masks, before anything is paid for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.options import ConfigUri, EndpointUrl, Ignore, ImagesUri, MasksUri, MaxUnread, SourceName
from pipeline.errors import RefusedError
from pipeline.words import plural

if TYPE_CHECKING:
    from pipeline.inspection.look import Asked, Found
    from pipeline.storage import Access

PNG, HTML = "sheet.png", "sheet.html"


def inspect(
    masks: MasksUri,
    images: ImagesUri = None,
    source: SourceName = None,
    output: Annotated[
        str, typer.Option(metavar="URI", help=f"Folder for the contact sheet, {PNG} and {HTML} (with zoom).")
    ] = "inspection",
    sample: Annotated[
        int, typer.Option(min=0, max=1000, metavar="N", help="Images to load and draw; 0: none, and no sheet.")
    ] = 36,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Images with masks to read; 0: all. Fewer than there are: a sample.")
    ] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    config: ConfigUri = None,
    endpoint_url: EndpointUrl = None,
    max_unread: MaxUnread = None,
    ignore: Ignore = None,
) -> None:
    """Look at a dataset before running: format, coverage, categories, what is odd, and a sheet of images with masks.

    Takes seconds, needs no Ray, and plans nothing. Exits with 0 where `relabel plan` would accept everything (of a
    sample, where one was read: it says so), with 2 where it would refuse, and with 3 where it would leave more
    unread than --max-unread.

    Example: relabel inspect --images s3://bucket/photos --masks s3://bucket/coarse.json --output looked-at
    """
    from pipeline.configuration import read_config  # these take a second to import
    from pipeline.inspection.look import Asked, look
    from pipeline.inspection.words import as_dict, lines
    from pipeline.storage import Access

    operation = {"endpoint_url": endpoint_url, "max_unread": max_unread, "ignore": ignore or None}
    settings = read_config(config, "default", {"operation": operation}, Access(endpoint_url))
    access = Access(settings.operation.endpoint_url)
    asked = Asked(
        masks=masks,
        images=images,
        source=source,
        access=access,
        ignore=settings.operation.ignore,
        limit=limit,
        sample=sample,
        threads=settings.operation.fetch_threads,
        method=settings.method,
    )
    if sample:
        _check_output(asked, output)
    with console.err.doing("reading the masks"):
        found = look(asked)
    written = _write(found, output, access, settings.operation.max_unread) if found.seen else []
    if as_json:
        typer.echo(json.dumps(as_dict(found, settings.operation.max_unread, written), indent=1))
    else:
        said = lines(found, settings.operation.max_unread)
        for line in [*said, *(f"wrote {uri}" for uri in written)]:
            console.out.tell(line)
    if found.refused is not None:
        raise RefusedError(found.refused)
    raise typer.Exit(3 if found.unread > settings.operation.max_unread else 0)


def _check_output(asked: Asked, output: str) -> None:
    """Refuse a folder that cannot be written to, or whose pictures the next planning pass would find."""
    from pipeline.sources.walks import location
    from pipeline.storage import Store
    from pipeline.storage.preflight import check_writable

    for name, root in (("--images", asked.images), ("--masks", asked.masks)):
        if root and f"{location(output)}/".startswith(f"{location(root)}/"):
            raise RefusedError(f"--output {output} lies in {name}, where planning would find the sheet: name another")
    check_writable(Store(output, asked.access))


def _write(found: Found, output: str, access: Access, max_unread: int) -> list[str]:
    """The sheet, twice; returns where."""
    from pipeline.inspection.page import page
    from pipeline.inspection.sheet import contact_sheet
    from pipeline.inspection.views import views
    from pipeline.storage import Store

    store, pictures = Store(output, access), views(found.seen)
    title = f"{found.masks_uri} ({found.source}), {len(pictures)} of {plural(found.images, 'image')}"
    store.put(PNG, contact_sheet(title, pictures))
    store.put(HTML, page(found, pictures, max_unread).encode(errors="backslashreplace"))
    return [f"{output.rstrip('/')}/{name}" for name in (PNG, HTML)]
