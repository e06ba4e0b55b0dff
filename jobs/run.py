"""`relabel run`: plan, refine, seal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs import console
from jobs.options import (
    PANEL_METHOD,
    PANEL_OPERATION,
    Actors,
    AdapterUri,
    Address,
    AssumeExclusive,
    CheckpointUris,
    Checksum,
    ChunkImages,
    ConfigUri,
    EndpointUrl,
    Ignore,
    ImagesInventory,
    ImagesUri,
    Iterations,
    MasksUri,
    MaxUnread,
    ModelNames,
    OutputUri,
    PresetName,
    Prune,
    RefinerName,
    SourceName,
    parse_actors,
    parse_part,
    parse_reasons,
    together,
    unread_code,
)
from pipeline.calibration.files import NAMED
from pipeline.storage.paths import absolute
from pipeline.words import plural

OF_ALL = "the table above says why, and --retry-failed tries them again"
OF_A_PART = "lines above say why, and --retry-failed tries them again when all parts are done"


def run(
    masks: MasksUri,
    output: OutputUri,
    images: ImagesUri = None,
    images_inventory: ImagesInventory = None,
    source: SourceName = None,
    config: ConfigUri = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refine only the first N images of the plan.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Refine the K-th of N parts of the plan: one of N runs side by side. The last of them seals.",
        ),
    ] = None,
    no_plan: Annotated[
        bool, typer.Option("--no-plan", help="Read no input: refine what `relabel plan` has planned by now.")
    ] = False,
    prune: Prune = False,
    checksum: Checksum = False,
    new_version: Annotated[
        bool,
        typer.Option("--new-version", help="Allow a different method: re-refine everything beside the old result."),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Finish pending work, then retry images that have failed rows.")
    ] = False,
    retry_reasons: Annotated[
        str | None, typer.Option(metavar="CODE,...", help="Retry only rows that failed for one of these reasons.")
    ] = None,
    model: ModelNames = None,
    checkpoint: CheckpointUris = None,
    adapter: AdapterUri = None,
    refiner: RefinerName = None,
    preset: PresetName = "default",
    iterations: Iterations = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="File of `relabel calibrate`; packaged (default), or none: the fixed formula.",
            rich_help_panel=PANEL_METHOD,
        ),
    ] = None,
    chunk_images: ChunkImages = None,
    address: Address = None,
    actors: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Model actors. Default: one per GPU, else per CPU.",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Default: what suits the model where the cluster has GPUs, 1 at most; else 0 (CPU).",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
    keep_generations: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Results that keep their shards. Default: 1.", rich_help_panel=PANEL_OPERATION
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long a replaced result keeps its shards beyond that. Default: 0.",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    assume_exclusive: AssumeExclusive = None,
    max_failed_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Exit with 3 when more of the rows failed. Default: 0.",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    max_unread: MaxUnread = None,
    ignore: Ignore = None,
) -> None:
    """Refine every coarse mask of a dataset into Parquet, with a quality for each mask.

    Kill it at any time: rerun the same command to resume. Run it again after
    the dataset has grown: only new or changed images are processed.

    Several runs on one output, each with another --part, share the work, and the
    result is that of one. Exit code 0 of a part: all that it had to do is done;
    it says what is left to others.

    Exit codes: 0 done; 1 the job failed; 2 refused to start; 3 done, with failed rows or unread files.

    Example: relabel run --images s3://b/photos --masks s3://b/coarse.json --output s3://b/refined
    """
    with console.err.doing("reading the configuration"):
        from jobs.observe import watch  # these take a second to import
        from pipeline.job import run as run_pipeline
        from pipeline.job import run_share
        from pipeline.planning.scans import scan_entry
        from pipeline.refining.pending import Share, Unsealed
        from pipeline.request import Wanted, make_request

    wanted = parse_actors(actors) if actors else Actors(None, None)
    overrides: dict[str, dict[str, Any]] = {
        "method": {"model": together(model), "refiner": refiner, "iterations": iterations},
        "gate": {"calibration": absolute(calibration) if calibration not in (None, *NAMED) else calibration},
        "operation": {
            "chunk_images": chunk_images,
            "actors_min": wanted.low,
            "actors_max": wanted.high,
            "gpus_per_actor": gpus_per_actor,
            "endpoint_url": endpoint_url,
            "keep_generations": keep_generations,
            "grace_s": grace,
            "assume_exclusive": assume_exclusive,
            "max_failed_share": max_failed_share,
            "max_unread": max_unread,
            "ignore": ignore or None,
        },
    }
    reasons, share = parse_reasons(retry_reasons, retry_failed), Share(*parse_part(part)) if part else None
    request = make_request(
        Wanted(
            masks=masks,
            output=output,
            images=images,
            source=source,
            config=config,
            preset=preset,
            overrides=overrides,
            checkpoint=tuple(checkpoint or ()),
            adapter=adapter,
        ),
        address=address,
        limit=limit,
        no_plan=no_plan,
        prune=prune,
        checksum=checksum,
        images_inventory=images_inventory,
        new_version=new_version,
        retry_failed=retry_failed,
        retry_reasons=reasons,
    )

    operation = request.config.operation
    with watch(operation) as watching:
        ended = run_share(request, share, watching.on_event) if share else run_pipeline(request, watching.on_event)
        if isinstance(ended, Unsealed):
            watching.unsealed(ended)
            failed, rows, why = watching.rows.failed, watching.rows.refined, OF_A_PART
            scan = scan_entry(request.stores()[0])
        else:
            watching.sealed(ended.manifest, output)
            failed, rows, why = ended.manifest.counts.failed, ended.manifest.counts.rows, OF_ALL
            scan = ended.manifest.scan
    code = 0 if failed <= operation.max_failed_share * rows else _tell_failed(failed, rows, why)
    raise typer.Exit(max(code, unread_code(scan, operation.max_unread)))


def _tell_failed(failed: int, rows: int, why: str) -> int:
    console.err.tell(
        f"relabel: done, but {failed} of {plural(rows, 'row')} failed ({failed / rows:.2%}; images and masks): {why}"
    )
    return 3
