"""`relabel plan`: the first step of `relabel run` alone, and what the rest would take."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jobs import console, progress
from jobs.options import (
    PANEL_OPERATION,
    AdapterUri,
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
    together,
    unread_code,
)
from pipeline.errors import RefusedError
from pipeline.words import plural

if TYPE_CHECKING:
    from pipeline.request import Request

PANEL_ESTIMATE = "Estimate"


def plan(
    masks: MasksUri,
    output: OutputUri,
    images: ImagesUri = None,
    images_inventory: ImagesInventory = None,
    source: SourceName = None,
    config: ConfigUri = None,
    prune: Prune = False,
    checksum: Checksum = False,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Refine a sample; estimate hours and cost of the rest.", rich_help_panel=PANEL_ESTIMATE
        ),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images to measure.", rich_help_panel=PANEL_ESTIMATE)
    ] = 32,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="GPUs like this machine's. Default: 1.", rich_help_panel=PANEL_ESTIMATE),
    ] = None,
    price_per_gpu_hour: Annotated[
        float, typer.Option(min=0, metavar="PRICE", help="In any currency.", rich_help_panel=PANEL_ESTIMATE)
    ] = 0.0,
    machines: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Without GPUs: machines like this one. Default: 1.",
            rich_help_panel=PANEL_ESTIMATE,
        ),
    ] = None,
    price_per_machine_hour: Annotated[
        float, typer.Option(min=0, metavar="PRICE", help="In any currency.", rich_help_panel=PANEL_ESTIMATE)
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print plan and estimate as JSON.")] = False,
    model: ModelNames = None,
    checkpoint: CheckpointUris = None,
    adapter: AdapterUri = None,
    refiner: RefinerName = None,
    preset: PresetName = "default",
    iterations: Iterations = None,
    chunk_images: ChunkImages = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster that reads many large files: auto, local, host:port. Default: $RAY_ADDRESS, else none.",
            rich_help_panel=PANEL_OPERATION,
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
    assume_exclusive: AssumeExclusive = None,
    max_unread: MaxUnread = None,
    ignore: Ignore = None,
) -> None:
    """Read the masks and commit what is new to the output's plan; refine nothing.

    `relabel run` with the same arguments continues from it. --estimate refines
    a sample of the pending images on this machine, discards it, and estimates
    hours and cost of all pending images, with a confidence interval.

    Example: relabel plan --images s3://b/photos --masks s3://b/coarse.json --output s3://b/refined
    --estimate --machines 10 --price-per-machine-hour 0.40
    """
    overrides: dict[str, dict[str, Any]] = {
        "method": {"model": together(model), "refiner": refiner, "iterations": iterations},
        "operation": {
            "chunk_images": chunk_images,
            "endpoint_url": endpoint_url,
            "assume_exclusive": assume_exclusive,
            "max_unread": max_unread,
            "ignore": ignore or None,
        },
    }
    from pipeline.job import clusters, plan_increment  # these take a second to import
    from pipeline.planning.increment import read_plan
    from pipeline.planning.scans import scan_entry
    from pipeline.refining.pending import pending
    from pipeline.request import Wanted, make_request
    from pipeline.storage.lease import check_store

    wanted = Wanted(
        masks=masks,
        output=output,
        images=images,
        source=source,
        config=config,
        preset=preset,
        overrides=overrides,
        checkpoint=tuple(checkpoint or ()),
        adapter=adapter,
    )
    request = make_request(
        wanted,
        with_weights=estimate,
        address=address,
        prune=prune,
        checksum=checksum,
        images_inventory=images_inventory,
    )
    device_gpus = 0
    if estimate:
        with console.err.doing("looking for GPUs"):
            device_gpus = _gpus(request, gpus, machines)

    store, run_store = request.stores()
    if not request.config.operation.assume_exclusive:
        check_store(store)
    with progress.drawing() as draw, clusters(request, draw) as connect:
        plan_increment(request, draw, connect)
    planned = read_plan(store)
    result: dict[str, Any] = {
        "images": planned.images,
        "masks": planned.masks,
        "chunks": len(planned.chunks),
    }
    if estimate:
        tasks = pending(planned, run_store, None)
        devices, price = (gpus, price_per_gpu_hour) if device_gpus else (machines, price_per_machine_hour)
        result["estimate"] = _measure(request, tasks, sample, device_gpus, devices or 1, price)
    scan = scan_entry(store)
    if as_json:
        typer.echo(json.dumps({**result, "scan": scan.as_dict() if scan else None}, indent=1))
    else:
        _show(result)
    raise typer.Exit(unread_code(scan, request.config.operation.max_unread))


def _gpus(request: Request, gpus: int | None, machines: int | None) -> int:
    """This machine's GPUs, 0 to measure on its CPU. Raises RefusedError where the two do not fit the question."""
    from pipeline.models.ceiling import gpus_here  # torch takes seconds to import

    here = 0 if request.config.operation.gpus_per_actor == 0 else gpus_here()
    if gpus and not here:
        raise RefusedError(
            "--gpus: there is no GPU here to measure; run this on a machine with one, or give --machines for CPUs"
        )
    if machines and here:
        raise RefusedError(
            "--machines is for CPUs, and this machine has GPUs: give --gpus, or operation.gpus_per_actor: 0"
        )
    return here


def _measure(request: Request, tasks: Any, sample: int, gpus: int, devices: int, price: float) -> dict[str, Any]:
    from pipeline.request import make_job
    from pipeline.speed import estimate

    operation = request.config.operation
    job = make_job(request, "cuda" if gpus else "cpu")
    chosen = estimate.spread(tasks, sample)
    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TextColumn("images"))
    with Progress(*columns, console=console.err, transient=True) as bar:
        shown = bar.add_task("measuring", total=sum(task.images for task in chosen))
        groups = estimate.measure(chosen, job, lambda count: bar.advance(shown, count))
    machine = estimate.Machine(os.cpu_count() or 1, gpus, operation.threads_per_actor)
    images, masks = sum(task.images for task in tasks), sum(task.chunk.masks for task in tasks)
    return estimate.project(groups, images, masks, machine, devices, price)


def _show(result: dict[str, Any]) -> None:
    console.out.tell(f"planned: {_counted(result)} in {plural(result['chunks'], 'chunk')}")
    if not (guess := result.get("estimate")):
        return
    took, gpu = guess["sample"], guess["device"] == "gpu"
    cores = plural(guess["machine"]["cores"], "core")
    devices = plural(guess["devices"], "GPU" if gpu else "machine") + " like this one" + ("" if gpu else f" ({cores})")
    each = ", ".join(f"{name} {1000 * took[f'{name}_s_per_image']:.0f} ms" for name in ("fetch", "decode", "refine"))
    console.out.tell(
        f"measured: {_counted(took)} of {plural(took['groups'], 'chunk')}; an image takes: {each}",
        f"pending: {_counted(guess)} on {devices}: "
        f"{guess['images_per_s']:.2f} images/s, {_time(guess['hours'])} "
        f"({_time(guess['hours_low'])} to {_time(guess['hours_high'])})",
        f"cost: {_amount(guess['device_hours'])} {'GPU' if gpu else 'machine'}-hours{_price(guess)}",
    )
    if gpu:
        console.out.tell(f"each GPU needs {guess['cores_per_gpu']:.1f} CPU cores that decode for it")
    console.out.tell("planning, start-up and sealing are not included; the interval is that of the sample (about 95 %)")


def _counted(counts: dict[str, Any]) -> str:
    return f"{plural(counts['images'], 'image')} with {plural(counts['masks'], 'mask')}"


def _price(guess: dict[str, Any]) -> str:
    """What it costs, where a price was given."""
    if not guess["price_per_device_hour"]:
        return "; --price-per-gpu-hour or --price-per-machine-hour turns them into money"
    return f", {_amount(guess['cost'])} ({_amount(guess['cost_low'])} to {_amount(guess['cost_high'])})"


def _amount(number: float) -> str:
    """Two decimals, or two digits of what is less."""
    return f"{number:,.2f}" if number >= 0.1 else f"{number:.2g}"


def _time(hours: float) -> str:
    units = (("hours", 1), ("minutes", 60), ("seconds", 3600))
    name, number = next(((name, number) for name, number in units if hours * number >= 1), units[-1])
    return f"{hours * number:.1f} {name}"
