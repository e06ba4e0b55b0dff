"""Option values that several commands read the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from pipeline import sources
from pipeline.errors import REASONS, RefusedError
from pipeline.models.weights import MODELS
from pipeline.refiners import REFINERS
from pipeline.storage import Access, brief, split_uri
from schemas.config import PRESETS, Config, resolve

PANEL_METHOD = "Method: what is computed"
PANEL_OPERATION = "Operation: how the work is carried out"

MasksUri = Annotated[
    str,
    typer.Option(envvar="RELABEL_MASKS", metavar="URI", help="COCO .json, a folder of mask files, Parquet, tars, ..."),
]
OutputUri = Annotated[
    str,
    typer.Option(envvar="RELABEL_OUTPUT", metavar="URI", help="Where the result goes; the same output again goes on."),
]
ImagesUri = Annotated[
    str | None,
    typer.Option(
        envvar="RELABEL_IMAGES",
        metavar="URI",
        help="Folder of images. Not needed where the masks' files hold or name them.",
    ),
]
SourceName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"Format of the masks: {', '.join(sources.SOURCES)}. Default: by content."),
]
ConfigUri = Annotated[
    str | None,
    typer.Option(metavar="URI", help="YAML with method, gate and operation; options win over it."),
]
Prune = Annotated[bool, typer.Option("--prune", help="Drop planned images that the source no longer has.")]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"{', '.join(MODELS)}. Default: lite.", rich_help_panel=PANEL_METHOD),
]
CheckpointUri = Annotated[
    str | None,
    typer.Option(
        envvar="RELABEL_CHECKPOINT",
        metavar="URI",
        help="Weights: the official .pth; lite has its own.",
        rich_help_panel=PANEL_METHOD,
    ),
]
AdapterUri = Annotated[
    str | None,
    typer.Option(metavar="URI", help="Of the model's IoU head, by `relabel adapt`.", rich_help_panel=PANEL_METHOD),
]
RefinerName = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"{', '.join(REFINERS)}.", rich_help_panel=PANEL_METHOD)
]
PresetName = Annotated[
    str, typer.Option(metavar="NAME", help=f"Method: {', '.join(PRESETS)}.", rich_help_panel=PANEL_METHOD)
]
Iterations = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Rounds of prompting.", rich_help_panel=PANEL_METHOD)
]
ChunkImages = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Images per chunk, the unit of retry and commit. Default: 64.",
        rich_help_panel=PANEL_OPERATION,
    ),
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="S3 endpoint of a store other than AWS.", rich_help_panel=PANEL_OPERATION),
]
AssumeExclusive = Annotated[
    bool | None,
    typer.Option(
        "--assume-exclusive",
        help="For a store without conditional writes: nothing else writes to the output.",
        rich_help_panel=PANEL_OPERATION,
    ),
]


MaxUnread = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Exit with 3 when more files or entries of the input were not read. Default: 0.",
        rich_help_panel=PANEL_OPERATION,
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="PATTERN",
        help='Files that are meant to be left unread, e.g. "*.txt". May be repeated.',
        rich_help_panel=PANEL_OPERATION,
    ),
]


class Actors(NamedTuple):
    """How many model actors: at least `low`, at most `high`; None leaves it to the cluster's size."""

    low: int | None
    high: int | None


def parse_actors(text: str) -> Actors:
    """`N` or `MIN:MAX`. Raises RefusedError."""
    low, _, high = text.partition(":")
    try:
        actors = Actors(int(low), int(high or low))
    except ValueError:
        raise RefusedError(f"--actors takes N or MIN:MAX, not {text!r}") from None
    if not 1 <= (actors.low or 0) <= (actors.high or 0):
        raise RefusedError(f"--actors takes 1 <= MIN <= MAX, not {text!r}")
    return actors


def unread_code(scan: Mapping[str, Any] | None, max_unread: int) -> int:
    """3 where more of the input was left unread than may be, else 0; said on stderr. scan: of the manifest."""
    unread = int(scan["unread"]) if scan else 0
    if unread <= max_unread:
        return 0
    typer.echo(
        f"relabel: {unread} files or entries of the input were not read; they are named above and in "
        f'{scan["path"] if scan else "scans/"}; --ignore "PATTERN" says that it is meant',
        err=True,
    )
    return 3


def parse_reasons(text: str | None, retry_failed: bool) -> tuple[str, ...]:
    """`code,code,...` -> reason codes. Raises RefusedError."""
    if text is None:
        return ()
    if not retry_failed:
        raise RefusedError("--retry-reasons goes with --retry-failed")
    reasons = tuple(part.strip() for part in text.split(",") if part.strip())
    for reason in reasons:
        if reason not in REASONS:
            raise RefusedError(f"--retry-reasons: unknown reason {reason!r}; there are {', '.join(REASONS)}")
    return reasons


def read_config(
    uri: str | None,
    preset: str,
    overrides: Mapping[str, Mapping[str, Any]],
    access: Access,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Base of the method, then preset, then the YAML at `uri`, then options. Raises RefusedError or ConfigError."""
    if uri is None:
        return resolve(preset, None, overrides, base)
    store, name = split_uri(uri, access)
    try:
        text = store.read(name).decode("utf-8")
    except FileNotFoundError:
        raise RefusedError(f"the configuration {uri} does not exist") from None
    except Exception as error:  # each store has exceptions of its own
        raise RefusedError(f"cannot read the configuration {uri}: {brief(error)}") from None
    return resolve(preset, text, overrides, base)


def absolute(uri: str) -> str:
    """Local paths made absolute: workers may run in another folder."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())
