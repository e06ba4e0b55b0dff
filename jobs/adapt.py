"""`relabel adapt`: an adapter of the model's IoU head, from your images and coarse masks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs import console
from jobs.targets import target_file
from pipeline import sources
from pipeline.errors import RefusedError
from pipeline.models import registry
from pipeline.models.weights import resolve
from pipeline.storage import Access, Store, StoredFile
from pipeline.storage.preflight import check_readable
from pipeline.words import plural

if TYPE_CHECKING:
    from pipeline.adaptation import Adaptation

ADAPTABLE = registry.names_where(lambda spec: spec.adaptable)
NO_GAIN = 4
"""Exit code when the adapter does not improve the choice on unseen images: nothing was written."""


def adapt(
    images: Annotated[str, typer.Option(metavar="URI", help="Folder of images, as for `relabel run`.")],
    masks: Annotated[str, typer.Option(metavar="URI", help="Coarse masks, as for `relabel run`.")],
    output: Annotated[str, typer.Option(metavar="URI", help="The adapter's file, NAME.safetensors.")],
    *,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Format of the masks. Default: by name.")] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help=f"{ADAPTABLE}.")] = "lite",
    checkpoint: Annotated[str | None, typer.Option(metavar="URI", help="Weights of the model.")] = None,
    limit: Annotated[int, typer.Option(min=10, metavar="N", help="Images to use, a fixed sample of all.")] = 1000,
    held_out: Annotated[
        float, typer.Option(min=0.1, max=0.9, metavar="SHARE", help="Fraction of images held out for evaluation.")
    ] = 0.3,
    rank: Annotated[int, typer.Option(min=1, max=64, help="Rank of the additions to each layer.")] = 4,
    epochs: Annotated[
        int, typer.Option(min=1, max=100, help="Passes over the masks. 1 as published; lite moves little in so few.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Teach the model which of its candidates to choose on your images; needs no ground truth.

    For a box around each coarse mask, the candidate nearest to the mask should
    rank first. Part of the images is held out; the adapter is written only if the
    choice there improves significantly (95 % interval of the gain above zero).

    Exit codes: 0 written; 1 failed; 2 refused to start; 4 no improvement.

    Example: relabel adapt --images photos/ --masks coarse.json --output a.safetensors
    then: relabel run ... --adapter a.safetensors
    """
    access = Access(endpoint_url)
    source = source or sources.detect(masks)
    root = sources.images_root(source, images, masks, access)
    spec = registry.find(model)
    if not spec.adaptable:
        raise RefusedError(f"--model {model} has no IoU head to adapt; there are {ADAPTABLE}")
    check_readable(root, access, "image folder")
    check_readable(masks, access, "masks")
    store, file_name = target_file("--output", output, access)
    with console.err.doing("loading the model"):  # torch takes seconds to import
        from pipeline import adaptation
        from pipeline.models import load_model
        from pipeline.refining.chunk import Inputs

        weights = resolve(model, checkpoint, access)
    with console.err.doing("reading the masks"):
        listed: dict[str, StoredFile] = {file.path: file for file in Store(root, access).list()}
        planned = adaptation.sample(sources.scan(source, sources.SourceInput(masks, access, listed)), limit)
    loaded = load_model(model, weights, device, threads, spec.defaults.get("dtype", "float32"))
    files = sources.files_root(source, masks)
    inputs = Inputs(Store(root, access), None if files is None else Store(files, access))
    columns = (TextColumn("candidates"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True) as bar:
        task = bar.add_task("candidates", total=len(planned))
        examples = adaptation.collect(
            loaded,  # type: ignore[arg-type]  # of the models above
            adaptation.load(planned, listed, inputs, loaded),  # type: ignore[arg-type]
            regions=sources.find(source).semantic,
            on_image=lambda count: bar.advance(task, count),
        )
    with console.err.doing("training the adapter"):
        adapted = adaptation.adapt(
            loaded,  # type: ignore[arg-type]
            examples,
            held_out=held_out,
            rank=rank,
            seed=seed,
            epochs=epochs,
        )
    console.out.tell(_say(adapted))
    if adapted.adapter is None:
        console.err.tell("relabel: no adapter written: it does not improve the choice on images it has not seen")
        raise typer.Exit(NO_GAIN)
    store.put(file_name, adapted.adapter)
    console.out.offer(f"wrote {output}\nuse it: relabel run ... --adapter {output}")


def _say(adapted: Adaptation) -> str:
    return (
        f"fitted on {plural(adapted.fitted_masks, 'mask')}; on {plural(adapted.held_out_masks, 'mask')} of "
        f"{plural(adapted.held_out_images, 'image')} held out, the chosen candidate's IoU with the coarse mask is "
        f"{adapted.before:.4f} before and {adapted.after:.4f} after: gain {adapted.after - adapted.before:+.4f}, "
        f"95 % interval [{adapted.gain_low:+.4f}, {adapted.gain_high:+.4f}]; choosing the best candidate every time "
        f"would give {adapted.best:.4f}"
    )
