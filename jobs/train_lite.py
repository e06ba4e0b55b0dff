"""`relabel train-lite`: train the embedded model; progress on the screen, curves as JSON lines beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.errors import RefusedError

if TYPE_CHECKING:
    from pipeline.models.lite.training.loop import Event

LOG_EVERY = 20  # steps


def train_lite(
    data: Annotated[Path, typer.Argument(help="Folder with gt.json (COCO, RLE) and images/.")],
    output: Annotated[Path, typer.Argument(help="Folder for checkpoint, weights and curves; resumed if it has one.")],
    *,
    steps: Annotated[int | None, typer.Option(help="Length of the schedule in steps: repeats exactly.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Length of the schedule in minutes of work.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Weights (safetensors) to start from instead of ImageNet's.")
    ] = None,
    head_rate: Annotated[
        float, typer.Option(help="Peak learning rate of all but the backbone (its own: 1e-4).")
    ] = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    processes: Annotated[int, typer.Option(help="Single-threaded processes that share each step; one per core.")] = 2,
) -> None:
    """Train the embedded model `lite` from ImageNet weights, or resume the last run."""
    from pipeline.models.lite.training.loop import TrainConfig, train

    if (steps is None) == (minutes is None):
        raise RefusedError("give the length of the schedule: either --steps or --minutes")
    if not (data / "gt.json").exists():
        raise RefusedError(f"{data / 'gt.json'} does not exist: point DATA at a folder with gt.json and images/")
    output.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        (output / "curve.jsonl").open("a") as curve,
        Progress(*columns, console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bar,
    ):
        task = bar.add_task("starting", total=1.0)

        def report(event: Event) -> None:
            if event.step % LOG_EVERY == 0 or event.validation is not None:
                curve.write(json.dumps(_line(event)) + "\n")
                curve.flush()
            if event.validation is not None:
                bar.console.print(f"step {event.step}: {_say(event.validation._asdict())}")
            text = f"step {event.step} side {event.side} mask loss {event.mask_loss:.3f}"
            bar.update(task, completed=event.progress, description=text)

        config = TrainConfig(
            data, output, steps, minutes, head_rate=head_rate, init=init, seed=seed, processes=processes
        )
        weights = train(config, report)
    Console(stderr=True).print(f"weights: {weights}")


def _line(event: Event) -> dict[str, float | dict[str, float]]:
    values = {name: value for name, value in vars(event).items() if name != "validation"}
    if event.validation is not None:
        values["validation"] = event.validation._asdict()
    return values


def _say(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
