"""`relabel train-lite`: train the embedded model; progress on the screen, curves as JSON lines beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jobs import console
from pipeline.errors import RefusedError

if TYPE_CHECKING:
    from pipeline.models.lite.training.config import Event

LOG_EVERY = 20  # steps


def train_lite(
    data: Annotated[list[Path], typer.Argument(help="Folders with gt.json (COCO, RLE) and images/, one or several.")],
    output: Annotated[Path, typer.Argument(help="Folder for checkpoint, weights and curves; resumed if it has one.")],
    *,
    device: Annotated[str, typer.Option(help="cpu or cuda; a run may be resumed on another one.")] = "cpu",
    steps: Annotated[
        int | None, typer.Option(help="Length of the schedule in steps; the same steps give the same weights.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Length of the schedule in minutes of work.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Weights (safetensors) to start from instead of ImageNet's.")
    ] = None,
    head_rate: Annotated[
        float, typer.Option(help="Peak learning rate of all layers but the backbone, whose own is 1e-4.")
    ] = 1e-3,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    processes: Annotated[int, typer.Option(help="Single-threaded processes that share each step; CPUs only.")] = 2,
    workers: Annotated[int, typer.Option(help="Workers per process that prepare examples; 0: the process itself.")] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded images, shared by processes and runs.")] = None,
    photo_limit: Annotated[int | None, typer.Option(help="Use at most so many images of each folder.")] = None,
) -> None:
    """Train the embedded model `lite` from ImageNet weights, or resume the last run.

    Training sleeps while a file OUTPUT/pause exists.

    Example: relabel train-lite train/ weights/ --minutes 60
    """
    if (steps is None) == (minutes is None):
        raise RefusedError("give the length of the schedule: either --steps or --minutes")
    with console.err.doing("reading the data"):  # torch takes seconds to import
        from pipeline.models import check_device
        from pipeline.models.lite.training.config import TrainConfig, of_device
        from pipeline.models.lite.training.data import check_parts, has_truth
        from pipeline.models.lite.training.loop import train

    check_device(device)
    for folder in data:
        if not has_truth(folder):
            raise RefusedError(f"{folder / 'gt.json'} does not exist: point DATA at a folder with gt.json and images/")
    check_parts(data)
    output.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        (output / "curve.jsonl").open("a") as curve,
        Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as bar,
    ):
        task = bar.add_task("starting", total=1.0)

        def report(event: Event) -> None:
            curve.write(json.dumps(_line(event)) + "\n")
            curve.flush()
            if event.validation is not None:
                console.err.tell(f"step {event.step}: {_say(event.validation._asdict())}")
            text = f"step {event.step}, side {event.side}, mask loss {event.mask_loss:.3f}"
            bar.update(task, completed=event.progress, description=text)

        config = TrainConfig(
            data,
            output,
            steps,
            minutes,
            device,
            **of_device(device),
            head_rate=head_rate,
            init=init,
            seed=seed,
            processes=1 if device != "cpu" else processes,
            report_every=LOG_EVERY,
            workers=workers,
            cache=cache,
            photo_limit=photo_limit,
        )
        weights = train(config, report)
    console.err.offer(f"weights: {weights}\nuse them: relabel run ... --checkpoint {weights}")


def _line(event: Event) -> dict[str, float | dict[str, float]]:
    values = {name: value for name, value in vars(event).items() if name != "validation"}
    if event.validation is not None:
        values["validation"] = event.validation._asdict()
    return values


def _say(values: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ').replace('iou', 'IoU')} {value:.3f}" for name, value in values.items())
