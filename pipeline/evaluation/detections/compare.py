"""Every file of detections against every annotation of the images: the figures, and how each ranks the detectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePosixPath
from typing import Any

from rich import box
from rich.table import Table

from pipeline.evaluation.detections.annotations import all_of, common_images, detections
from pipeline.evaluation.detections.precision import average_precision
from pipeline.evaluation.precision import COCO_DETECTIONS
from pipeline.evaluation.show import points
from pipeline.storage import Access
from pipeline.words import plural

KINDS = ("mask", "boundary")
Tree = dict[str, Any]


def compare(
    files: Sequence[str],
    given: tuple[str, str | None, str],
    images: Collection[str] | None,
    access: Access,
    most: int = COCO_DETECTIONS,
    on_file: Callable[[str], None] = lambda _file: None,
) -> Tree:
    """given: predictions, coarse, ground truth, as `relabel evaluate` has them; images: only these; most: detections of
    an image and class that count. on_file: is told of each file of detections.

    -> {"images": n, "annotations": {name: {"objects", "crowds", "unreadable"}},
        "files": {file: {"measured", "left_out", "precision": {name: {"mask" | "boundary": {"ap", ...}, "rank"}}}}}.
    A rank is of mask AP, from 1. Raises RefusedError.
    """
    predictions, coarse, ground_truth = given
    sets = all_of(predictions, coarse, ground_truth, access)
    common = common_images(sets, images)
    found: dict[str, Tree] = {}
    for file in files:
        on_file(file)
        own = detections(file, common, access)
        precision = {
            name: {kind: average_precision(one, own.found, common, kind == "boundary", most) for kind in KINDS}
            for name, one in sets.items()
        }
        found[file] = {"measured": len(own.found), "left_out": dict(own.left_out), "precision": precision}
    for name in sets:
        _rank([of["precision"][name] for of in found.values()])
    annotations = {}
    for name, one in sets.items():
        there = [each for each in one.objects if each.image in common]
        crowds = sum(each.crowd for each in there)
        annotations[name] = {"objects": len(there) - crowds, "crowds": crowds, "unreadable": one.unreadable}
    return {"images": len(common), "annotations": annotations, "files": found}


def _rank(precisions: list[Tree]) -> None:
    """Give each its place by mask AP; what has none is last."""
    values = [-1.0 if math.isnan(one["mask"]["ap"]) else one["mask"]["ap"] for one in precisions]
    for one, value in zip(precisions, values, strict=True):
        one["rank"] = 1 + sum(other > value for other in values)


def table(tree: Tree) -> Table:
    """Mask AP, boundary AP and place of each file, for each annotation; in points of 100."""
    names = list(tree["annotations"])
    objects = ", ".join(f"{name} {tree['annotations'][name]['objects']:,}" for name in names)
    title = f"Detections on {plural(tree['images'], 'image')} (objects: {objects}): AP, boundary AP, place"
    shown = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("detections", overflow="fold")
    for name in names:
        for head in (f"{name} AP", "bAP", "#"):
            shown.add_column(head, justify="right")
    for file, of in tree["files"].items():
        cells = []
        for name in names:
            own = of["precision"][name]
            cells += [points(own["mask"]["ap"]), points(own["boundary"]["ap"]), str(own["rank"])]
        shown.add_row(PurePosixPath(file).name, *cells)
    return shown


def notes(tree: Tree) -> list[str]:
    """What was not measured, and whether the detectors change places."""
    said = [
        f"{PurePosixPath(file).name}: left out "
        + ", ".join(f"{why} {count:,}" for why, count in of["left_out"].items())
        for file, of in tree["files"].items()
        if of["left_out"]
    ]
    said += [
        f"{name}: left out {plural(of['unreadable'], 'mask')} that cannot be read"
        for name, of in tree["annotations"].items()
        if of["unreadable"]
    ]
    if len(tree["files"]) > 1:
        first, *others = (
            [of["precision"][name]["rank"] for of in tree["files"].values()] for name in tree["annotations"]
        )
        said.append(
            "the order of the detectors changes" if any(o != first for o in others) else "their order is the same"
        )
    return said
