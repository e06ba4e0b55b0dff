"""`relabel findings`: what is wrong with masks besides their outlines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs import console
from jobs.targets import target_file
from pipeline.corrections import patch_file
from pipeline.errors import RefusedError
from pipeline.storage import Access, split_uri
from pipeline.words import plural


def findings(
    output: Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Only this: duplicate, several, inside, half, overlap, box; uncovered, class (with a model). May be "
            "repeated. Default: all.",
        ),
    ] = None,
    duplicate_iou: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=1,
            help="Above it two masks are duplicates; of one class above 5/8 of it, of two above 3/4 where neither lies "
            "in the other.",
        ),
    ] = 0.8,
    boxes: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="COCO or LVIS JSON that the masks came from: its boxes are compared with them."
        ),
    ] = None,
    with_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show the images to this model, too (lite, ...): objects without a mask, wrong classes.",
        ),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(metavar="URI", help="Its weights; lite has its own.")] = None,
    images: Annotated[str | None, typer.Option(metavar="URI", help="Where the images are now, if they moved.")] = None,
    device: Annotated[str, typer.Option(help="Of the model: cpu, cuda, or auto, a GPU where there is one.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.")] = 2,
    as_patches: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Write them as patches to judge, .json or .parquet (`relabel patch`)."),
    ] = None,
    min_certainty: Annotated[float, typer.Option(min=0, max=1, help="Of those that are written as patches.")] = 0.0,
    accept_above: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="In the patches, the verdict is yes from this certainty on. Default: nowhere."),
    ] = None,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Look for duplicates, masks of several objects or of half of one, overlaps and boxes that disagree.

    What is found is kept beside the result, ranked by certainty, and changes
    nothing. The page of `relabel report` shows it. To act on it, write it as
    patches, fill in their verdicts and bring them with `relabel patch`.

    --with-model looks at the images: objects that no mask covers are candidates,
    which only a person adds and gives a class; masks that look like another class
    are told by what the others of their class look like.

    Exit code 3: masks could not be read, or images not be shown to the model.

    Example: relabel findings s3://bucket/refined --as-patches patches.json
    """
    access, before = Access(endpoint_url), dict[str, str]()
    if as_patches is not None:
        target_file("--as-patches", as_patches, access, [output, boxes])
        before = _judged(as_patches, access)
    if with_model is None and (alone := {"--checkpoint": checkpoint, "--images": images}) and any(alone.values()):
        raise RefusedError(f"{next(name for name in alone if alone[name])} goes with --with-model")
    with console.err.doing("looking at masks" if with_model is None else "loading the model"):
        from pipeline.findings import by_model, show  # it takes a second to import
        from pipeline.findings.find import Asked, find

        model = None
        if with_model is not None:
            model = by_model.model_for(with_model, checkpoint, access, device, threads)
    asked = Asked(tuple(kind or ()), duplicate_iou, boxes, model, images)
    with console.err.doing("looking at masks") as status:
        looked = find(
            output,
            asked,
            access,
            lambda done, of: status.update(f"looking at masks: {done:,} of {plural(of, 'image')}"),
        )
    console.out.show(show.table(looked))
    console.out.tell(f"kept in {output.rstrip('/')}/{looked.path}")
    if looked.unread:
        console.err.tell(f"{plural(looked.unread, 'mask')} could not be read")
    if looked.unseen:
        console.err.tell(
            f"not shown to the model: {plural(looked.unseen, 'image')}, which cannot be read, or whose masks cannot"
        )
    if as_patches is not None:
        store, name = split_uri(as_patches, access)
        written = show.as_patches(looked.table, as_patches, min_certainty, accept_above)
        if lost := patch_file.lost(before, written, as_patches):
            what = f"{plural(lost, 'verdict')} that somebody gave would be lost"
            raise RefusedError(f"--as-patches {as_patches}: {what}: bring them (`relabel patch`), or name another file")
        store.put(name, written)
        console.out.tell(
            f"wrote {as_patches}: {'fill in `verdict` (yes or no), then' if looked.table.num_rows else 'empty'}"
        )
        if looked.table.num_rows:
            console.out.offer(f"apply it: relabel patch {output} --from {as_patches}")
    if looked.unread or looked.unseen:
        raise typer.Exit(3)


def _judged(uri: str, access: Access) -> dict[str, str]:
    """What somebody has said in the file of patches that is there, by finding. Raises RefusedError for another file."""
    store, name = split_uri(uri, access)
    is_device = store.is_local and not Path(store.full(name)).is_file()
    if is_device or not store.exists(name) or not store.size(name):
        return {}
    try:
        return {
            patch.finding_id: patch.verdict
            for patch in patch_file.read(uri, access)
            if patch.finding_id and patch.verdict
        }
    except RefusedError:
        raise RefusedError(f"--as-patches {uri} is there, and is no file of patches: name another one") from None
