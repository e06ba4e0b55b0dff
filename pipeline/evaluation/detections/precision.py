"""Mask AP and boundary AP of detections against all annotations of some images, by pycocotools.

As COCO counts: 100 detections of an image and class at most, crowds take any number of them, classes without an
annotation do not count. As LVIS counts, where an annotation says so of its images: a class that is neither annotated in
an image nor said to be absent is not looked at there, and where not every object of a class is annotated, detections
of it that match none are left out. Boundary AP takes the lesser of mask IoU and boundary IoU as overlap (Cheng et al.,
CVPR 2021); with crowds, which have no outline of their own, the mask's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from pipeline.evaluation.detections.annotations import Annotation, Annotations, Detection
from pipeline.evaluation.precision import COCO_DETECTIONS, BoundedEval, band, summed_up
from pipeline.masks import binary

Row = dict[str, Any]


class DetectionEval(BoundedEval):
    """BoundedEval that leaves out what matches nothing of a class that is not annotated exhaustively.

    not_exhaustive: (image, class) as pycocotools numbers them.
    """

    not_exhaustive: Collection[tuple[int, int]] = ()

    def evaluateImg(self, imgId: int, catId: int, aRng: Any, maxDet: int) -> Any:  # noqa: N802, N803
        """As pycocotools has it."""
        found = super().evaluateImg(imgId, catId, aRng, maxDet)
        if found is not None and (imgId, catId) in self.not_exhaustive:
            found["dtIgnore"] = np.logical_or(found["dtIgnore"], found["dtMatches"] == 0)
        return found


def average_precision(
    annotated: Annotations,
    detections: Sequence[Detection],
    images: Collection[str],
    bounded: bool,
    most: int = COCO_DETECTIONS,
) -> dict[str, Any]:
    """On `images` alone -> {"ap", "ap50", "ap75", "small", "medium", "large"}; NaN where there is no annotation."""
    numbers = {image: number for number, image in enumerate(sorted(images), start=1)}
    objects = [one for one in annotated.objects if one.image in numbers]
    classes = sorted({one.category_id for one in objects})
    said = _said(annotated, objects, numbers)
    found = [one for one in detections if one.category_id in said.get(one.image, ())]
    truth = _index([_truth(one, numbers, bounded) for one in objects], annotated, numbers, classes)
    answers = _index([_found(one, numbers, bounded) for one in found], annotated, numbers, classes)
    evaluation = DetectionEval(truth, answers, bounded)
    evaluation.not_exhaustive = {
        (number, one) for image, number in numbers.items() for one in annotated.images[image].not_exhaustive
    }
    evaluation.params.maxDets = [most]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation.evaluate()
        evaluation.accumulate()
    return summed_up(evaluation)


def _said(annotated: Annotations, objects: Sequence[Annotation], images: Collection[str]) -> dict[str, Collection[int]]:
    """By image, the classes of which the annotation says something there."""
    classes = {one.category_id for one in objects}
    there: dict[str, set[int]] = {image: set() for image in images}
    for one in objects:
        there[one.image].add(one.category_id)
    negative = {image: annotated.images[image].negative for image in images}
    return {image: classes if (absent := negative[image]) is None else own | absent for image, own in there.items()}


def _truth(one: Annotation, numbers: dict[str, int], bounded: bool) -> Row:
    return {
        **_entry(one, numbers, bounded and not one.crowd),
        "area": one.area,
        "iscrowd": int(one.crowd),
        "truth": one,
    }


def _found(one: Detection, numbers: dict[str, int], bounded: bool) -> Row:
    return {**_entry(one, numbers, bounded), "score": one.score, "iscrowd": 0}


def _entry(one: Annotation | Detection, numbers: dict[str, int], bounded: bool) -> Row:
    return {
        "image_id": numbers[one.image],
        "category_id": one.category_id,
        "segmentation": one.mask,
        "area": float(binary.area(one.mask)),
        "band": band(one.mask) if bounded else None,
    }


def _index(entries: Sequence[Row], annotated: Annotations, numbers: dict[str, int], classes: Sequence[int]) -> COCO:
    """Ids count from 1: 0 means "no match" to pycocotools."""
    coco = COCO()
    sizes = {number: annotated.images[image].size_hw for image, number in numbers.items()}
    coco.dataset = {
        "images": [{"id": number, "height": height, "width": width} for number, (height, width) in sizes.items()],
        "categories": [{"id": one, "name": str(one)} for one in classes],
        "annotations": [{**entry, "id": number} for number, entry in enumerate(entries, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
