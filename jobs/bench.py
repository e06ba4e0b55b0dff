"""`relabel bench`: how fast a model refines on this machine, and what a corpus would take."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Table

from jobs import console
from jobs.options import together
from pipeline.configuration import read_config
from pipeline.errors import RefusedError
from pipeline.models import registry
from pipeline.storage import Access
from pipeline.words import plural

if TYPE_CHECKING:
    from pipeline.speed.tune import Work

MEASURED = registry.names_where(lambda spec: spec.promptable)
PHOTOS = Path(__file__).parent / "demo_data" / "images"


def bench(
    *,
    model: Annotated[
        list[str] | None, typer.Option(help=f"{MEASURED}. Default: lite. Repeated: these together, with --tune.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="Weights: the official .pth; lite has its own. Repeated like --model."),
    ] = None,
    photos: Annotated[
        Path, typer.Option(show_default=False, help="Folder of JPEGs or PNGs. Default: the demo's.")
    ] = PHOTOS,
    images: Annotated[int, typer.Option(min=1, help="How many images; files repeat when there are fewer.")] = 10,
    masks_per_image: Annotated[int, typer.Option(min=1, help="Made-up masks on each image.")] = 7,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per encoder pass.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Rounds of prompting.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16: of vit_* encoders.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile the encoder, as operation.compile does.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    corpus: Annotated[int | None, typer.Option(min=1, help="Also estimate hours and cost for so many images.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="For --corpus: number of devices like this one.")] = 1,
    price_per_hour: Annotated[float, typer.Option(min=0, help="For --corpus: price of one device and hour.")] = 0.0,
    tuned: Annotated[
        bool, typer.Option("--tune", help="Try ways to divide this machine; print the best as configuration.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Benchmark each stage and the whole pipeline on this machine.

    Also: the encoder's TFLOP/s beside the device's own matrix products, peak
    memory, and with --corpus the hours and the cost of a whole dataset.

    --tune measures how many actors, threads of each, and chunks at once
    refine fastest here (on GPUs: how many actors share one), and prints
    the operation part of a configuration: relabel run --config.

    Example: relabel bench --model vit_h --checkpoint sam_vit_h_4b8939.pth
    --device cuda --dtype bfloat16 --corpus 100000000 --devices 64 --price-per-hour 2.5
    """
    overrides: dict[str, dict[str, Any]] = {
        "method": {"model": together(model), "encode_batch": batch, "iterations": iterations, "dtype": dtype}
    }
    method = read_config(None, "default", overrides, Access()).method
    spec = registry.find(method.model)
    if not spec.promptable:
        raise RefusedError(f"bench measures {MEASURED}, not {method.model}")
    if spec.members and not tuned:
        raise RefusedError(f"the stages of {method.model} are those of each model: measure them one by one, or --tune")
    files = sorted(path for path in photos.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise RefusedError(f"no JPEG or PNG in {photos}")

    with console.err.doing("loading the model"):  # torch takes seconds to import
        from pipeline.models import load_model
        from pipeline.models.weights import resolve
        from pipeline.speed.bench import Ceiling, against_ceiling, estimate
        from pipeline.speed.bench import bench as measure

        weights = resolve(method.model, checkpoint, Access())
    encoded = [files[index % len(files)].read_bytes() for index in range(images)]
    if tuned:
        from pipeline.speed.tune import Work

        _tune(Work(weights, method, device, compiled, encoded, masks_per_image), as_json)
        return
    loaded: Any = load_model(
        method.model,
        weights,
        device,
        threads or os.cpu_count() or 1,
        method.dtype,
        compiled,
        method.encode_batch,
    )

    from pipeline.models.ceiling import counted_tflop, matmul_tflops, peak_memory_mb, settle

    with console.err.doing("measuring"):
        result = measure(loaded, partial(settle, device), encoded, masks_per_image, method)
        ceiling = Ceiling(matmul_tflops(device, method.dtype), spec.encoder_tflop or counted_tflop(loaded))
    result |= against_ceiling(result, ceiling) | {"peak_memory_mb": peak_memory_mb(device)}
    result |= {"model": method.model, "encode_batch": method.encode_batch, "iterations": method.iterations}
    if corpus:
        result["estimate"] = estimate(result["images_per_s"], corpus, devices, price_per_hour)
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    table = Table(
        title=f"{result['model']} · {plural(result['images'], 'image')} · {plural(result['masks'], 'mask')}",
        title_justify="left",
    )
    for column in ("stage", "share", "seconds", "per second"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name, stage in result["stages"].items():
        unit = "images" if name in ("load", "encode") else "prompts"
        table.add_row(name, f"{stage['share']:.0%}", f"{stage['seconds']:.2f}", f"{stage['per_s']:.1f} {unit}")
    console.out.show(table)
    console.out.tell(
        f"whole: {result['images_per_s']:.2f} images/s, {result['masks_per_s']:.2f} masks/s, one image at a time; "
        f"most of the time in {result['bound_by']}",
        f"encoder: {result['encoder_tflops']:.3f} TFLOP/s, "
        f"{result['encoder_share']:.0%} of the {result['ceiling_tflops']:.3f} of this device's matrix products",
        f"peak memory: {result['peak_memory_mb']:.0f} MB",
    )
    if guess := result.get("estimate"):
        images, devices = plural(guess["images"], "image"), plural(guess["devices"], "device")
        price = f", cost {guess['cost']:,.2f}" if guess["cost"] else "; --price-per-hour adds what it costs"
        console.out.tell(f"{images} on {devices} like this one: {guess['hours']:,.1f} hours{price}")


def _tune(work: Work, as_json: bool) -> None:
    """Each way as it is measured, on stderr; the best one, on stdout."""
    from pipeline.models.ceiling import gpus_here
    from pipeline.speed.tune import Measured, cores, tune, ways

    gpus = gpus_here() if work.device == "cuda" else 0
    if work.device == "cuda" and not gpus:
        raise RefusedError("--device cuda: this process can use no GPU; `relabel doctor` says why")
    found: list[Measured] = []

    def told(one: Measured) -> None:
        found.append(one)
        way, rate = one.way, one.failed or f"{one.images_per_s:.2f} images/s"
        share = f", {way.gpus:g} GPU each" if way.gpus else ""
        actors = f"{plural(way.actors, 'actor')} of {plural(way.threads, 'thread')}{share}"
        console.err.tell(f"{actors}, {plural(way.chunks, 'chunk')} at once: {rate}")

    best = tune(work, ways(work.device, cores(), gpus), told)
    if as_json:
        typer.echo(json.dumps({"best": best.way.operation(), "tried": [asdict(one) for one in found]}, indent=1))
    else:
        console.err.tell(f"fastest: {best.images_per_s:.2f} images/s; for a configuration file:")
        typer.echo(yaml.safe_dump({"operation": best.way.operation()}, sort_keys=False).strip())
