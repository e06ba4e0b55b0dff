"""Option values that several commands read the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import typer

from jobs import console
from pipeline import sources
from pipeline.errors import REASONS, RefusedError
from pipeline.models import MODELS
from pipeline.models.ensemble import TOGETHER
from pipeline.refiners import REFINERS
from pipeline.words import plural
from schemas.manifest import Scanned
from schemas.presets import PRESETS

PANEL_METHOD = "Method: what is computed"
PANEL_OPERATION = "Operation: how the work is carried out"

MasksUri = Annotated[
    str,
    typer.Option(envvar="RELABEL_MASKS", metavar="URI", help="COCO .json, a folder of mask files, Parquet, tars, ..."),
]
OutputUri = Annotated[
    str,
    typer.Option(
        envvar="RELABEL_OUTPUT", metavar="URI", help="Where the result goes; rerun with the same output to resume."
    ),
]
ImagesUri = Annotated[
    str | None,
    typer.Option(
        envvar="RELABEL_IMAGES",
        metavar="URI",
        help="Folder of images; not needed when the mask files contain or reference them.",
    ),
]
ImagesInventory = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="List the images from this in place of the store: manifest.json of an S3 Inventory, or Parquet with uri "
        "(key, path), size, etag.",
    ),
]
SourceName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"Format of the masks: {', '.join(sources.SOURCES)}. Default: by content."),
]
ConfigUri = Annotated[
    str | None,
    typer.Option(metavar="URI", help="YAML with method, gate and operation; command-line options override it."),
]
Prune = Annotated[bool, typer.Option("--prune", help="Drop planned images that the source no longer has.")]
Checksum = Annotated[
    bool,
    typer.Option(
        "--checksum",
        help="Tell changed images by their content, which is read for it; else by size and time of writing, or etag.",
    ),
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help=f"{', '.join(MODELS)}. Default: lite. Repeated: these together, their answers fused.",
        rich_help_panel=PANEL_METHOD,
    ),
]
CheckpointUris = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        envvar="RELABEL_CHECKPOINT",
        metavar="URI",
        help="Weights: the official .pth; lite has its own. Repeated like --model, in the same order.",
        rich_help_panel=PANEL_METHOD,
    ),
]
AdapterUri = Annotated[
    str | None,
    typer.Option(metavar="URI", help="Adapter file produced by `relabel adapt`.", rich_help_panel=PANEL_METHOD),
]
RefinerName = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"{', '.join(REFINERS)}.", rich_help_panel=PANEL_METHOD)
]


PresetName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Preset: {', '.join(PRESETS)}.",
        rich_help_panel=PANEL_METHOD,
    ),
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
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Ray cluster: auto, ray://..., host:port. Default: $RAY_ADDRESS, else one started here.",
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


def parse_part(text: str) -> tuple[int, int]:
    """K/N. Raises RefusedError for anything else."""
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise RefusedError(f"--part takes K/N with K from 1 to N, not {text}")
    return int(number), int(parts)


def unread_code(scan: Scanned | None, max_unread: int) -> int:
    """3 where more of the input was left unread than may be, else 0; said on stderr. scan: of the manifest."""
    unread = scan.unread if scan else 0
    if unread <= max_unread:
        return 0
    console.err.tell(
        f"relabel: {plural(unread, 'file or entry', 'files or entries')} of the input not read; named above and in "
        f'{scan.path if scan else "scans"}; --ignore "PATTERN" says that it is meant'
    )
    return 3


def parse_reasons(text: str | None, retry_failed: bool) -> tuple[str, ...]:
    """`code,code,...` -> reason codes. Raises RefusedError."""
    if text is None:
        return ()
    if not retry_failed:
        raise RefusedError("--retry-reasons goes with --retry-failed")
    reasons = tuple(part.strip() for part in text.split(",") if part.strip())
    if not reasons:
        raise RefusedError(f"--retry-reasons {text!r} names no reason; there are {', '.join(REASONS)}")
    for reason in reasons:
        if reason not in REASONS:
            raise RefusedError(f"--retry-reasons: unknown reason {reason!r}; there are {', '.join(REASONS)}")
    return reasons


def together(models: Sequence[str] | None) -> str | None:
    """The name of models that refine together, or of the one; None where none is named."""
    return TOGETHER.join(models) if models else None
