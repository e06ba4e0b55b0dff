"""`relabel export`: a result in the form that a trainer or a labeling tool reads."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer
from rich.table import Table

from jobs import console
from jobs.targets import inside
from pipeline import exports
from pipeline.dataset import Result, open_result
from pipeline.dataset.verdicts import rejected
from pipeline.errors import RefusedError
from pipeline.exports.driver import Exported
from pipeline.exports.driver import export as run_export
from pipeline.exports.image_files import UNREAD
from pipeline.exports.types import Options
from pipeline.storage import Access, Store
from pipeline.storage.paths import absolute
from pipeline.storage.preflight import check_readable, check_writable
from pipeline.words import plural

PARALLEL_MASKS = 100_000
FIRST_UNREAD = 5
DECISIONS = ("refined", "kept_coarse", "review", "corrected")


def export(
    output: Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)],
    form: Annotated[str, typer.Option("--format", metavar="NAME", help=f"{', '.join(exports.EXPORTS)}.")],
    to: Annotated[
        str, typer.Option(metavar="URI", help="Folder to write to, outside OUTPUT: empty, or one to resume.")
    ],
    min_quality: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="Q", help="Only masks of at least this quality.")
    ] = None,
    decision: Annotated[
        str | None, typer.Option(metavar="NAMES", help=f"Only masks so decided; of {','.join(DECISIONS)}.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help="Only masks with, e.g., \"category in ('cat', 'dog') and area > 100\"."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="SHARES", help="Cut by the hash of the image's id, e.g. train=0.9,val=0.1."),
    ] = None,
    keep_empty: Annotated[bool, typer.Option("--keep-empty", help="Keep images with no selected masks.")] = False,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Polygons in place of RLE, where the format has both (holes are filled).")
    ] = False,
    void: Annotated[
        str | None,
        typer.Option(metavar="URI", help="class-maps: the coarse maps; void (255) stays where no class is."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="URI", help="Where the images are. Default: where the run read them.")
    ] = None,
    copy_images: Annotated[
        bool, typer.Option("--images-too/--no-images", help="Copy the images where the format holds them.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes. Default: one per CPU, at most one per shard.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew in a folder that holds an export, this one or another.")
    ] = False,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Write the result in another format. Can be interrupted; rerun to resume, and to add what could not be read.

    What the format cannot hold (holes of polygons, overlaps in one PNG) is counted and reported. Masks that a person
    rejected (`relabel review`) are left out. Exit code 3: images, or void maps, could not be read, or are not what was
    refined; the first are named here, all in unread.jsonl.

    Example: relabel export s3://b/refined --format coco --to s3://b/coco --min-quality 0.8 --split train=0.9,val=0.1
    """
    chosen = exports.find(form)
    _check_outside(to, output)
    if void is not None and not chosen.has_void:
        raise RefusedError(f"--void: {form} has no place for void; {_with_void()} has")
    access = Access(endpoint_url)
    result = open_result(output, access)
    options = Options(
        min_quality=min_quality,
        decisions=parse_decisions(decision),
        where=where,
        splits=parse_splits(split),
        keep_empty=keep_empty,
        polygons=polygons,
        void=void and absolute(void),
        with_images=copy_images and chosen.copies_images,
        rejected=tuple(sorted(rejected(output, access))),
    )
    if void is not None:
        check_readable(void, access, "void maps")
    target = Store(to, access)
    check_writable(target)
    photos = Store(absolute(images) if images else result.manifest.images_root, access)
    with console.err.doing("exporting") as status:
        done = run_export(
            result,
            target,
            photos,
            form,
            options,
            workers=workers or default_workers(result),
            overwrite=overwrite,
            on_group=lambda count, total: status.update(f"exporting: {count} of {plural(total, 'shard')}"),
        )
    console.out.show(_table(to, form, done))
    if not done.report["counts"]["masks"]:
        console.err.tell("no mask is selected: the export has none")
    if unread := done.report.get("unread", {}).get("images", 0):
        what, how = ("without void", "--void and --overwrite") if void else ("left out", "--images")
        console.err.tell(
            f"relabel: {plural(unread, 'image')} {what}: missing, unreadable or changed; named above and in "
            f"{to.rstrip('/')}/{UNREAD}. Put them there and rerun, which adds them; from another folder, with {how}"
        )
        raise typer.Exit(3)


def _table(to: str, form: str, done: Exported) -> Table:
    """What was written, left out and lost, and the first of what could not be read by name."""
    report = done.report
    table = Table(
        title=f"{to} · {form} · generation {report['generation']} of {report['fingerprint']}", title_justify="left"
    )
    table.add_column("")
    table.add_column("count", justify="right")
    for what, number in [*report["counts"].items(), *(("lost: " + k, n) for k, n in report["lost"].items())]:
        table.add_row(what, f"{number:,}")
    for one in report.get("unread", {}).get("first", [])[:FIRST_UNREAD]:
        table.add_row(f"not read: {one['image_uri']}: {one['why']}", "")
    return table


def _with_void() -> str:
    return ", ".join(name for name, form in exports.EXPORTS.items() if form.has_void)


def _check_outside(to: str, output: str) -> None:
    """Refuse a folder in which `relabel verify` would find files that nothing names."""
    if inside(to, output):
        raise RefusedError(
            f"--to {to} lies in the output {output}, which holds the result alone: name a folder outside"
        )


def default_workers(result: Result) -> int:
    """One process per CPU; this one alone where starting others would take longer than the work."""
    masks = sum(shard.rows for shard in result.manifest.masks)
    return usable_cpus() if masks >= PARALLEL_MASKS else 1


def usable_cpus() -> int:
    """CPUs that this process may run on; where the system cannot say (not on Linux), all that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_decisions(text: str | None) -> tuple[str, ...]:
    """`refined,review` -> its names. Raises RefusedError."""
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if text is not None and not names:
        raise RefusedError(f"--decision {text!r} names none of {', '.join(DECISIONS)}")
    for name in names:
        if name not in DECISIONS:
            raise RefusedError(f"--decision takes {', '.join(DECISIONS)}, not {name!r}")
    return names


def parse_splits(text: str | None) -> tuple[tuple[str, float], ...]:
    """`train=0.9,val=0.1` -> its shares. Raises RefusedError unless they add up to 1."""
    shares = []
    for entry in (text or "").split(",") if text else ():
        name, _, share = entry.strip().partition("=")
        try:
            shares.append((name, float(share)))
        except ValueError:
            raise RefusedError(f"--split takes NAME=SHARE,..., not {entry!r}") from None
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or not 0 < shares[-1][1] <= 1:
            raise RefusedError(f"--split: {entry!r} is not a plain name with a share between 0 and 1")
    total = sum(share for _, share in shares)
    if shares and (abs(total - 1) > 1e-6 or len({name for name, _ in shares}) < len(shares)):
        raise RefusedError(f"--split {text}: the shares of different names must add up to 1")
    return tuple(shares)
