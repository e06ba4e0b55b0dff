"""`relabel value`: what refined labels are worth to training."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jobs import console
from jobs.targets import target_file
from pipeline.errors import RefusedError
from pipeline.storage import Access, Store, split_uri
from pipeline.storage.preflight import check_writable
from pipeline.words import plural

STDOUT = "-"


def value(
    output: Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)],
    *,
    ground_truth: Annotated[str, typer.Option(help="COCO JSON of accurate masks, with the ids of the labels'.")],
    test: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Images to test on: LIST.json, or SPLITS.json:NAME. Default: half of the truth's, by their names.",
        ),
    ] = None,
    train: Annotated[
        str | None, typer.Option(metavar="LIST", help="Images to learn from. Default: all that are not tested on.")
    ] = None,
    truth_ids: Annotated[
        str, typer.Option(metavar="FIELD", help="The truth's field that holds the labels' ids.")
    ] = "id",
    truth_source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only the truth's annotations whose `source` is this.")
    ] = None,
    images: Annotated[str | None, typer.Option(metavar="URI", help="Where the images are now, if they moved.")] = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Frozen network below the segmenter: efficientnet-lite0 (extra `value`), resnet18, resnet50, or lite, "
            "which is no independent judge of its own masks.",
        ),
    ] = "efficientnet-lite0",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings with each kind of labels.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the masks; as many steps for each kind.")] = 12,
    power: Annotated[float, typer.Option(min=0, help="Of `quality`, as the weight of a mask.")] = 8.0,
    keep: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the masks that the filter by `quality` leaves.")
    ] = 0.75,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Masks to learn from and to test on, at most.")] = 2000,
    cache: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Folder that keeps finished trainings: the same command goes on from there."),
    ] = None,
    json_out: Annotated[
        str | None,
        typer.Option("--json", help="Write every figure as JSON to this file, or to standard output with '-'."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Train the same small segmenter on coarse and on refined labels, and ask the truth which taught it better.

    It learns to cut an object out of a window, on a frozen network's features:
    from the masks that came in, from those to train on, from these weighted by
    `quality`, from the best of these by `quality`, and from the true masks, where
    all have one. Everything else is the same. It is tested on true masks of
    images that it did not learn from. Intervals are of images and seeds drawn
    again. No GPU; a few hundred masks take minutes.

    Example: relabel value s3://bucket/refined --ground-truth s3://bucket/truth.json
    --test split.json:B --cache trainings/ --json worth.json
    """
    with console.err.doing("loading the network"):  # torch takes seconds to import
        from pipeline.dataset import open_result
        from pipeline.dataset.samples import Photos
        from pipeline.evaluation.inputs import TruthIds, read_image_list, read_truth, unknown_images
        from pipeline.value import features as networks
        from pipeline.value import figures, objects, trials
        from pipeline.value.lessons import Settings

    access = Access(endpoint_url)
    result = open_result(output, access)
    if json_out is not None and json_out != STDOUT:
        target_file("--json", json_out, access, [output, ground_truth])
    kept = Store(cache, access) if cache else None
    if kept is not None:
        check_writable(kept)
    with console.err.doing("loading the network"):
        network = networks.load(features, threads)
    truths = read_truth(ground_truth, access, TruthIds(truth_ids, truth_source))
    if test and (unknown := unknown_images(read_image_list(test, access), ground_truth, access)):
        raise RefusedError(
            f"--test {test}: the ground truth does not have {plural(len(unknown), 'image')}: {unknown[0]}"
        )
    tested, learned = objects.images_of(truths, test, train, access)
    chosen = objects.choose(result, truths, tested, learned, limit)
    with console.err.doing("looking at images") as status:
        windows = list(objects.seen(chosen, Photos.of(result, images)))
        given = trials.material(windows, network, lambda count: status.update(f"features of {count:,} windows"))
        found = trials.run(
            given,
            Settings(power, keep),
            seeds,
            epochs,
            kept,
            lambda name, seed: status.update(f"training on {name} labels, seed {seed + 1} of {seeds}"),
        )
    asked = {"output": output, "ground_truth": ground_truth, "features": features, "power": power, "keep": keep}
    told = figures.tree(found, chosen.left_out, asked)
    written = json.dumps(figures.as_json(told), indent=1)
    if json_out == STDOUT:
        typer.echo(written)
        return
    console.out.show(figures.table(told))
    for line in figures.notes(told):
        console.out.tell(line)
    if json_out is not None:
        store, name = split_uri(json_out, access)
        store.put(name, written.encode())
