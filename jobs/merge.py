"""`relabel merge`: two annotations of the same images made one."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Annotated

import typer

from jobs import console, options
from jobs.targets import target_file
from pipeline.errors import RefusedError
from pipeline.storage import Access, read_text
from pipeline.storage.paths import absolute
from pipeline.storage.preflight import check_readable

MAX_NAMES_BYTES = 1 << 24


def merge(
    first: Annotated[str, typer.Argument(help="Annotations, as `relabel run --masks` takes them.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Others of the same images.", show_default=False)],
    images: Annotated[
        str, typer.Option(metavar="URI", envvar="RELABEL_IMAGES", help="The folder of images that both are of.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="URI", help="The COCO .json to write.")],
    first_source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Format of the first. Default: by content.")
    ] = None,
    second_source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Format of the second. Default: by content.")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(metavar="FIRST,SECOND", help="What their masks' `source` says. Default: the files' names."),
    ] = None,
    key: Annotated[
        str,
        typer.Option(help="What an image is known by in both: its path below --images, its name, or its name's stem."),
    ] = "path",
    classes: Annotated[
        str | None,
        typer.Option(metavar="URI", help='JSON of classes that are called differently: {"television_set": "tv"}.'),
    ] = None,
    only_known: Annotated[
        bool, typer.Option("--only-known", help="Leave classes that the first does not have.")
    ] = False,
    only_first_images: Annotated[
        bool, typer.Option("--only-first-images", help="Leave images that the first does not have.")
    ] = False,
    max_unread: options.MaxUnread = None,
    endpoint_url: options.EndpointUrl = None,
) -> None:
    """Make one annotation of two: of each class in each image, the one with more instances counts.

    What the first lacks is added. Classes that an LVIS file says it has not
    annotated exhaustively in an image are not taken from it; crowd regions of the
    first stay. Each annotation says where it comes from (`source`, `source_id`);
    ids of the first stay as they are. Exit code 3: more was not read than
    --max-unread.

    Example: relabel merge instances_val2017.json lvis_v1_val.json --images val2017 --only-known
    --only-first-images --names coco,lvis -o merged.json
    """
    from pipeline import sources
    from pipeline.merging.merge import Asked, lines
    from pipeline.merging.merge import merge as make
    from pipeline.merging.reading import KEYS, Given
    from pipeline.sources import scan_table

    access = Access(endpoint_url)
    if key not in KEYS:
        raise RefusedError(f"--key takes {', '.join(KEYS)}, not {key!r}")
    if PurePosixPath(output).suffix.lower() != ".json":
        raise RefusedError(f"--output {output}: name a .json file")
    for uri in (first, second, images):
        check_readable(uri, access, "input")
    target, path = target_file("--output", output, access, [first, second])
    called = _names(names, first, second)
    own, other = (
        Given(absolute(uri), source or sources.detect(uri, access, images), name)
        for uri, source, name in zip((first, second), (first_source, second_source), called, strict=True)
    )
    asked = Asked(own, other, absolute(images), key, _classes(classes, access), only_known, only_first_images)
    with console.err.doing("merging"):
        done = make(asked, target, path, access)
    for name, scan in zip(called, done.scans, strict=True):
        title, *rest = scan_table.lines(scan)
        for line in (f"{name}: {title}", *rest):
            console.err.tell(line)
    for line in lines(done, asked):
        console.out.tell(line)
    for example in done.examples:
        console.err.tell(f"cannot be read: {example}")
    console.out.tell(f"wrote {output}")
    unread = done.unread + sum(scan["unread"] for scan in done.scans)
    raise typer.Exit(3 if unread > (max_unread or 0) else 0)


def _names(text: str | None, first: str, second: str) -> tuple[str, str]:
    found = [part.strip() for part in text.split(",")] if text else [PurePosixPath(uri).stem for uri in (first, second)]
    if len(found) != 2 or found[0] == found[1] or not all(found):
        raise RefusedError(f"--names takes two names, as in coco,lvis; not {', '.join(found)}")
    return found[0], found[1]


def _classes(uri: str | None, access: Access) -> dict[str, str]:
    if uri is None:
        return {}
    try:
        content = json.loads(read_text(uri, access, MAX_NAMES_BYTES, "names of classes"))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"--classes {uri} is not valid JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise RefusedError(f'--classes {uri}: not an object of names, as in {{"television_set": "tv"}}')
    return content
