"""`relabel refine`: one image, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import console
from jobs.options import PresetName
from pipeline.configuration import read_config
from pipeline.models import registry
from pipeline.refiners import REFINERS
from pipeline.storage import Access

PROMPTABLE = registry.names_where(lambda spec: spec.promptable)


def refine(
    image: Annotated[Path, typer.Argument(help="The image.", show_default=False)],
    mask: Annotated[Path, typer.Argument(help="Its coarse mask: non-zero pixels are the object.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Where the mask goes, as a black and white PNG.")],
    picture: Annotated[
        Path | None, typer.Option(help="Also write image, coarse and refined outlines side by side.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"{PROMPTABLE}. Default: lite, which is packaged.")] = None,
    refiner: Annotated[str | None, typer.Option(help=f"{', '.join(REFINERS)}. Default: samrefiner.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weights of the model, path or URI.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter file produced by `relabel adapt`.")] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Calibration produced by `relabel calibrate`; packaged or none. Default: packaged."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    preset: PresetName = "default",
    iterations: Annotated[int | None, typer.Option(min=1, help="Rounds of prompting.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML as `relabel run --config` takes it.")] = None,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Write the refined mask whatever its scores.")] = False,
) -> None:
    """Refine the mask of one image, without Ray, and print its scores.

    Example: relabel refine photo.jpg coarse.png --output refined.png --picture compare.png
    """
    overrides: dict[str, dict[str, Any]] = {
        "method": {"model": model, "refiner": refiner, "iterations": iterations},
        "gate": {"enabled": False if no_gate else None, "calibration": calibration},
    }
    resolved = read_config(config, preset, overrides, Access())

    from pipeline import single  # torch takes seconds to import
    from pipeline.masks import drawing  # torch takes seconds to import

    with console.err.status("refining"):
        [outcome] = single.refine_with_scores(
            image,
            mask,
            checkpoint=checkpoint,
            adapter=adapter,
            method=resolved.method,
            gate=resolved.gate,
            device=device,
        )
    drawing.write_mask(output, outcome.mask)
    if picture:
        pixels = single.read_image(image, resolved.method.max_image_pixels)
        coarse = single.read_mask(mask, (pixels.shape[0], pixels.shape[1]))
        kept = f"{outcome.decision.decision}, quality {outcome.kept_quality:.2f}"
        captions = ("image", f"coarse, quality {outcome.quality.coarse:.2f}", kept)
        drawing.write_comparison(picture, pixels, [coarse], [outcome.mask], captions)
    scores = outcome.scores
    console.out.print(
        f"{outcome.decision.decision} ({outcome.decision.reason}): {output}\n"
        f"IoU of refined and coarse {scores['coarse_iou']:.3f}, area {scores['area_ratio']:.2f} times, "
        f"predicted IoU {scores['predicted_iou']:.3f}, stability {scores['stability']:.3f}, "
        f"quality {outcome.quality.coarse:.3f} -> {outcome.quality.refined:.3f} "
        f"(calibration {outcome.calibration_id})"
    )
