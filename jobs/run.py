"""`relabel run`: plan, refine, seal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs import console
from jobs.options import Actors, absolute, parse_actors, parse_reasons, read_config
from jobs.watch import watch
from pipeline import sources
from pipeline.calibration_files import NAMED
from pipeline.models.weights import MODELS, resolve, with_adapter
from pipeline.refiners import REFINERS, check_refiner
from pipeline.start_checks import check_readable, check_writable
from pipeline.storage import Access, Store
from schemas.config import PRESETS, Config

PANEL_METHOD = "Method: what is computed"
PANEL_OPERATION = "Operation: how the work is carried out"


def run(
    masks: Annotated[
        str,
        typer.Option(
            envvar="RELABEL_MASKS", metavar="URI", help="COCO .json, a folder of mask files, Parquet, tars, ..."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            envvar="RELABEL_OUTPUT", metavar="URI", help="Where the result goes; the same output again goes on."
        ),
    ],
    images: Annotated[
        str | None,
        typer.Option(
            envvar="RELABEL_IMAGES",
            metavar="URI",
            help="Folder of images. Not needed where the masks' files hold or name them.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Format of the masks: {', '.join(sources.SOURCES)}. Default: by content."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="URI", help="YAML with method, gate and operation; options win over it."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refine only the first N images of the plan.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Drop planned images that the source no longer has.")] = False,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Refine all again when the method differs from the result's.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Then refine once more what failed: images with a failed row.")
    ] = False,
    retry_reasons: Annotated[
        str | None, typer.Option(metavar="CODE,...", help="Retry only rows that failed for one of these reasons.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{', '.join(MODELS)}. Default: lite.", rich_help_panel=PANEL_METHOD),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            envvar="RELABEL_CHECKPOINT",
            metavar="URI",
            help="Weights: the official .pth; lite has its own.",
            rich_help_panel=PANEL_METHOD,
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Of the model's IoU head, by `relabel adapt`.", rich_help_panel=PANEL_METHOD),
    ] = None,
    refiner: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"{', '.join(REFINERS)}.", rich_help_panel=PANEL_METHOD)
    ] = None,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help=f"Method: {', '.join(PRESETS)}.", rich_help_panel=PANEL_METHOD)
    ] = "default",
    iterations: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rounds of prompting.", rich_help_panel=PANEL_METHOD)
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="File of `relabel calibrate`; packaged (default), or none: the fixed formula.",
            rich_help_panel=PANEL_METHOD,
        ),
    ] = None,
    chunk_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Images per chunk, the unit of retry and commit. Default: 64.",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster: auto, ray://..., host:port. Default: $RAY_ADDRESS, else one started here.",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    actors: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:MAX", help="Model actors. Default: one a GPU, else a CPU.", rich_help_panel=PANEL_OPERATION
        ),
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Default: 1 where the cluster has GPUs, else 0 (CPU).",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="S3 endpoint of a store other than AWS.", rich_help_panel=PANEL_OPERATION),
    ] = None,
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
    assume_exclusive: Annotated[
        bool | None,
        typer.Option(
            "--assume-exclusive",
            help="For a store without conditional writes: nothing else writes to the output.",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
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
) -> None:
    """Refine every coarse mask of a dataset into Parquet, with a quality for each mask.

    Kill it at any time: the same command goes on where it stopped.
    Run it again on a grown dataset: only what is new or changed is done.

    Exit codes: 0 done; 1 the job failed; 2 refused to start; 3 done, with failed rows.

    Example: relabel run --images s3://b/photos --masks s3://b/coarse.json --output s3://b/refined
    """
    wanted = parse_actors(actors) if actors else Actors(None, None)
    overrides: dict[str, dict[str, Any]] = {
        "method": {"model": model, "refiner": refiner, "iterations": iterations},
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
        },
    }
    stated = Access(read_config(config, preset, overrides, Access(endpoint_url)).operation.endpoint_url)
    check_readable(masks, stated, "masks")
    source = source or sources.detect(masks, stated)
    images = sources.images_root(source, images, masks, stated)
    reasons = parse_reasons(retry_reasons, retry_failed)
    semantic = sources.parse(source)[0] in sources.SEMANTIC
    base = {"split_regions": True, "exclusive": True} if semantic else None
    resolved = read_config(config, preset, overrides, Access(endpoint_url), base)
    access = _check(resolved, images, output)
    weights = resolve(resolved.method.model, checkpoint, access)
    weights = weights if adapter is None else with_adapter(weights, adapter)
    hashes = {"weights_sha256": weights.sha256, "adapter_sha256": weights.adapter.sha256 if weights.adapter else ""}
    method = resolved.method.model_copy(update=hashes)
    resolved = resolved.model_copy(update={"method": method})

    from pipeline.run import Request  # Ray takes a second to import
    from pipeline.run import run as run_pipeline

    request = Request(
        images=absolute(images),
        masks=absolute(masks),
        output=absolute(output),
        source=source,
        config=resolved,
        weights=weights,
        address=address,
        limit=limit,
        prune=prune,
        new_version=new_version,
        retry_failed=retry_failed,
        retry_reasons=reasons,
    )
    with watch(resolved.operation) as watching:
        sealed = run_pipeline(request, watching.progress)
        watching.sealed(sealed.manifest, output)
    raise typer.Exit(_exit_code(sealed.manifest["counts"], resolved.operation.max_failed_share))


def _check(config: Config, images: str, output: str) -> Access:
    """Refuse what cannot work, before any work."""
    operation = config.operation
    access = Access(operation.endpoint_url, operation.storage_tries, operation.storage_timeout_s)
    check_refiner(config.method.refiner)
    check_readable(images, access, "image folder")
    check_writable(Store(output, access))
    return access


def _exit_code(counts: dict[str, dict[str, int]], max_failed_share: float) -> int:
    failed = counts["images"].get("failed", 0) + counts["decisions"].get("failed", 0)
    rows = sum(counts["images"].values()) + sum(counts["decisions"].values())
    if failed <= max_failed_share * rows:
        return 0
    console.err.print(f"relabel: done, but {failed} of {rows} rows failed ({failed / rows:.2%}); reasons above")
    return 3
