"""`relabel report`: a page to look at a result."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs import console
from jobs.pictures import tell_unread_pictures
from jobs.targets import target_file
from pipeline.storage import Access

Output = Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")]


def report(
    output: Output,
    to: Annotated[str, typer.Option(help="Where the page goes: one HTML file, path or URI.")] = "report.html",
    ground_truth: Annotated[
        str | None, typer.Option(help="COCO JSON of true masks of some images: adds measured figures.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Where the images are now, if they were moved.")] = None,
    sample: Annotated[
        int, typer.Option(min=0, max=2000, help="Masks to show of each kind: largest change, lowest quality, ...")
    ] = 60,
    endpoint_url: Endpoint = None,
) -> None:
    """Write the audit page: figures, and a sample of masks to judge with the keyboard. Opens without a network.

    Exit code 3: images of the sample could not be read; their masks are on the page without a picture.

    Example: relabel report s3://bucket/refined --to report.html
    """
    access = Access(endpoint_url)
    store, name = target_file("--to", to, access, [output, ground_truth])
    with console.err.doing("reading the result and drawing a sample of it"):
        from pipeline.report.page import report as make  # keeps `relabel --help` quick

        page = make(output, access=access, ground_truth=ground_truth, images_root=images, per_stratum=sample)
    html = page.html.encode(errors="backslashreplace")
    store.put(name, html)
    console.out.offer(f"wrote {to} ({len(html) / 1e6:.1f} MB)\nbring its verdicts home: relabel review {output} FILE")
    tell_unread_pictures(page.unread, to)
