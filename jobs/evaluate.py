"""`relabel evaluate`: how good the labels are, against ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import console
from jobs.targets import target_file
from pipeline.errors import RefusedError
from pipeline.evaluation import plots, report, show, summary
from pipeline.evaluation.detections import compare
from pipeline.evaluation.inputs import TruthIds, read_image_list, unknown_images
from pipeline.evaluation.paired import paired
from pipeline.evaluation.precision import COCO_DETECTIONS
from pipeline.storage import Access, split_uri
from pipeline.storage.preflight import check_folder
from pipeline.words import plural

STDOUT = "-"
SHOWN_IMAGES = 3


def evaluate(
    *,
    predictions: Annotated[
        str,
        typer.Option(help="Output folder of `relabel run` (any fsspec URI), or COCO JSON with the truth's ids."),
    ],
    ground_truth: Annotated[
        str,
        typer.Option(
            help="COCO JSON of accurate masks. An image's `source` reports that source apart; an annotation's "
            "`ignore` (RLE) marks pixels that do not count."
        ),
    ],
    truth_ids: Annotated[
        str, typer.Option(metavar="FIELD", help="The truth's field that holds the labels' ids: source_id for COCO-ReM.")
    ] = "id",
    truth_source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only the truth's annotations whose `source` is this: coco for COCO-ReM."),
    ] = None,
    coarse: Annotated[
        str | None,
        typer.Option(help="COCO JSON of the coarse masks, where the predictions are COCO JSON: adds gain and harm."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Only these images: LIST.json, or SPLITS.json:NAME for one list of several (split.json:B)."),
    ] = None,
    detections: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="COCO results of a detector, with masks: AP and boundary AP against the coarse masks, the labels and "
            "the truth, joined by the ids of images and classes. May be repeated: ranks detectors.",
        ),
    ] = None,
    only_detections: Annotated[
        bool,
        typer.Option(
            "--only-detections",
            help="No figures mask by mask: for a truth whose masks have no ids in common with the labels' (Sama-COCO).",
        ),
    ] = False,
    max_detections: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of an image and class, that count; LVIS counts 300.")
    ] = COCO_DETECTIONS,
    json_out: Annotated[
        str | None,
        typer.Option("--json", help="Write every figure as JSON to this file, or to standard output with '-'."),
    ] = None,
    plots_to: Annotated[
        Path | None,
        typer.Option(
            "--plots", help="Folder for plots: reliability, risk and coverage, gain (needs the extra `plots`)."
        ),
    ] = None,
    replicates: Annotated[
        int, typer.Option(min=1, help="Bootstrap draws of the images behind each 95 % interval.")
    ] = 1000,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Compare labels with ground truth: are they better than the input masks, and is the quality score predictive?

    Masks are joined by id: source_mask_id equals the annotation's id, or another
    field of it (--truth-ids), where the truth is an annotation of its own.
    Coarse masks, always refining, the labels that the gate kept and the best
    possible gate stand side by side. Gains are paired, with 95 % intervals
    from resampling images. The ground truth may be a sample of the labels.
    Exit code 3: --images names some that the ground truth does not have.

    Examples:

    relabel evaluate --predictions out/ --ground-truth sample.json

    relabel evaluate --predictions s3://bucket/out --ground-truth gt.json
    --images split.json:B --json figures.json

    relabel evaluate --predictions out/ --ground-truth instances_valrem.json
    --truth-ids source_id --truth-source coco

    relabel evaluate --predictions instances_val2017.json --ground-truth
    instances_valrem.json --truth-ids source_id --truth-source coco
    --detections mask2former.json --detections vitdet.json

    relabel evaluate --predictions theirs.json --ground-truth gt.json
    --coarse coarse.json --plots plots/
    """
    if only_detections and (not detections or plots_to is not None):
        raise RefusedError("--only-detections goes with --detections, and without --plots")
    if plots_to is not None:
        plots.check_available()
        check_folder(str(plots_to))
    access = Access(endpoint_url)
    if json_out is not None and json_out != STDOUT:
        target_file("--json", json_out, access, [predictions, ground_truth, coarse, *(detections or ())])
    tree: summary.Tree = {}
    unknown = unknown_images(read_image_list(images, access), ground_truth, access) if images is not None else []
    if not only_detections:
        with console.err.doing("reading and pairing masks"):
            pairs = paired(predictions, ground_truth, coarse, images, access, TruthIds(truth_ids, truth_source))
        with console.err.doing(f"measuring {plural(len(pairs.pairs), 'mask')}"):
            tree, measures = report.evaluate(pairs, replicates)
    shown: list[Any] = [] if only_detections else [show.tables(tree)]
    if detections:
        given = (predictions, coarse, ground_truth)
        tree["detections"] = _detections(detections, given, images, access, max_detections)
        shown += [compare.table(tree["detections"]), *compare.notes(tree["detections"])]
    _write(_as_json(tree, predictions, ground_truth, images), shown, json_out, access)
    if plots_to is not None:
        for path in plots.draw(tree, measures, plots_to):
            console.err.tell(f"wrote {path}")
    if unknown:
        named = ", ".join(unknown[:SHOWN_IMAGES]) + (", ..." if len(unknown) > SHOWN_IMAGES else "")
        console.err.tell(
            f"--images: the ground truth does not have {plural(len(unknown), 'image')} of the list: {named}"
        )
        raise typer.Exit(3)


def _detections(
    files: list[str],
    given: tuple[str, str | None, str],
    images: str | None,
    access: Access,
    most: int,
) -> summary.Tree:
    wanted = None if images is None else read_image_list(images, access)
    with console.err.doing("measuring detections") as status:
        return compare.compare(files, given, wanted, access, most, lambda file: status.update(f"measuring {file}"))


def _write(figures: str, shown: list[Any], json_out: str | None, access: Access) -> None:
    """The figures as JSON, where they are asked for; what is shown, unless they go to standard output."""
    if json_out == STDOUT:
        typer.echo(figures)
        return
    for each in shown:
        if isinstance(each, str):
            console.out.tell(*each.split("\n"))
        else:
            console.out.show(each)
    if json_out is not None:
        store, name = split_uri(json_out, access)
        store.put(name, figures.encode())


def _as_json(tree: summary.Tree, predictions: str, ground_truth: str, images: str | None) -> str:
    asked = {"predictions": predictions, "ground_truth": ground_truth, "images": images}
    return json.dumps({**asked, **report.to_json(tree)}, indent=1)
