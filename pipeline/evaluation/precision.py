"""Mask AP and boundary AP: average precision over IoU 0.50 ... 0.95, by pycocotools.

Boundary AP takes the lesser of mask IoU and boundary IoU as the overlap of two masks (Cheng et al., CVPR 2021). The
category of a prediction is that of its annotation: outlines are tested here, not class labels. A left-out
annotation is one that was not found. Where predictions carry no detection score all have the same one.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.evaluation.measures import Floats, decode_truth, outside
from pipeline.evaluation.pairing import Pair, Truth
from pipeline.masks import binary
from pipeline.masks.binary import Rle

SIZES = ("all", "small", "medium", "large")  # COCO's: area below 32², below 96², above
COCO_DETECTIONS = 100  # per image and category, unless the truth has more

CACHED_BANDS = 100_000  # about 1 kB each


class BoundedEval(COCOeval):
    """COCOeval whose overlaps leave out ignored pixels and, when `bounded`, do not exceed the boundary IoU.

    A truth has `truth`, with `ignore`, besides pycocotools' fields; what is `bounded`, and no crowd, has `band`.
    """

    def __init__(self, truth: COCO, found: COCO, bounded: bool) -> None:
        super().__init__(truth, found, iouType="segm")
        self._bounded = bounded

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803  # pycocotools' names
        """(found, truths) float64 overlaps of one image and category, found ones by falling score."""
        truths = self._gts[imgId, catId]
        found = sorted(self._dts[imgId, catId], key=lambda item: -item["score"])[: self.params.maxDets[-1]]
        if not truths or not found:
            return []
        return np.stack([self._overlaps(found, truth) for truth in truths], axis=1)

    def _overlaps(self, found: Sequence[dict[str, Any]], truth: dict[str, Any]) -> Floats:
        """(found,) overlaps with one truth."""
        if truth["truth"].ignore is not None:
            return np.array([_counted_overlap(item["segmentation"], truth["truth"], self._bounded) for item in found])
        crowd = truth["iscrowd"]
        overlap = coco_mask.iou([item["segmentation"] for item in found], [truth["segmentation"]], [crowd])[:, 0]
        if self._bounded and not crowd:
            bands = coco_mask.iou([item["band"] for item in found], [truth["band"]], [0])[:, 0]
            overlap = np.minimum(overlap, bands)
        return np.asarray(overlap, dtype=np.float64)


def _counted_overlap(rle: Rle, truth: Truth, bounded: bool) -> float:
    """IoU outside the truth's ignore region, bounded by the boundary IoU on request."""
    true_mask, counted = decode_truth(truth)
    mask = outside(binary.decode(rle), true_mask, counted)
    inside = counted.astype(bool)
    overlap = binary.iou(mask[inside], true_mask[inside])
    if not bounded:
        return overlap
    return min(overlap, binary.iou(binary.boundary(mask)[inside], binary.boundary(true_mask)[inside]))


def average_precision(truths: Sequence[Truth], pairs: Sequence[Pair], side: str, bounded: bool) -> dict[str, Any]:
    """AP of one side ("coarse", "refined" or "mask") of all `pairs`, among all `truths`; NaN where undefined.

    -> {"ap", "ap50", "ap75", "small", "medium", "large": float, "by_category": {name: float}}.
    """
    categories = sorted({truth.category for truth in truths})
    truth_set, found_set = _coco_sets(truths, pairs, side, categories, bounded)
    evaluation = BoundedEval(truth_set, found_set, bounded)
    evaluation.params.maxDets = [max([COCO_DETECTIONS, *_per_image(truths)])]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation.evaluate()
        evaluation.accumulate()
    precision = _of_all(evaluation)
    by_category = {name: _mean(precision[:, :, index, 0]) for index, name in enumerate(categories)}
    return {**summed_up(evaluation), "by_category": by_category}


def summed_up(evaluation: COCOeval) -> dict[str, float]:
    """Of an evaluation that was accumulated -> {"ap", "ap50", "ap75", "small", "medium", "large"}; NaN undefined."""
    precision = _of_all(evaluation)
    by_size = {size: _mean(precision[..., index]) for index, size in enumerate(SIZES)}
    return {
        "ap": by_size.pop("all"),
        "ap50": _mean(precision[0, ..., 0]),
        "ap75": _mean(precision[5, ..., 0]),
        **by_size,
    }


def _of_all(evaluation: COCOeval) -> Floats:
    """(thresholds, recalls, categories, sizes) precision; -1 where undefined."""
    return np.asarray(evaluation.eval["precision"][..., -1], np.float64)


def _coco_sets(
    truths: Sequence[Truth], pairs: Sequence[Pair], side: str, categories: Sequence[str], bounded: bool
) -> tuple[COCO, COCO]:
    """Ground truth and predictions as pycocotools' indexes; ids count from 1 (0 means "no match" to pycocotools)."""
    image_ids = {name: number for number, name in enumerate(sorted({truth.image_id for truth in truths}), start=1)}
    category_ids = {name: number for number, name in enumerate(categories, start=1)}
    sizes = {truth.image_id: truth.mask["size"] for truth in truths}

    def annotation(of: Truth, rle: Rle, **more: Any) -> dict[str, Any]:
        return {
            "image_id": image_ids[of.image_id],
            "category_id": category_ids[of.category],
            "segmentation": rle,
            "area": binary.area(rle),
            "iscrowd": 0,
            "band": band(rle) if bounded else None,
            **more,
        }

    def index(annotations: Iterable[dict[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image_ids[name], "height": h, "width": w} for name, (h, w) in sizes.items()],
            "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
            "annotations": [{**item, "id": number} for number, item in enumerate(annotations, start=1)],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco

    found = (
        annotation(pair.truth, rle, score=pair.prediction.score)
        for pair in pairs
        if (rle := getattr(pair.prediction, side)) is not None
    )
    return index(annotation(truth, truth.mask, truth=truth) for truth in truths), index(found)


def band(rle: Rle) -> Rle:
    """The boundary band of a mask; those asked for last are kept."""
    return _band(rle["counts"], *rle["size"])


@lru_cache(maxsize=CACHED_BANDS)
def _band(counts: str, height: int, width: int) -> Rle:
    """The boundary band of a mask, kept: groups and sides ask for the same masks again."""
    return binary.encode(binary.boundary(binary.decode({"size": [height, width], "counts": counts})))


def _per_image(truths: Sequence[Truth]) -> list[int]:
    """How many annotations each image and category has."""
    pairs = [f"{truth.image_id}\0{truth.category}" for truth in truths]
    return [int(count) for count in np.unique(pairs, return_counts=True)[1]]


def _mean(precision: Floats) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")
