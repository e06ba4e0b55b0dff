"""Joins predictions with ground truth, annotation by annotation, and accounts for those that have no partner.

The join is on ids: a prediction's `source_mask_id` equals the ground-truth annotation's id as a string. Nothing is
matched by overlap, so a mask that went astray is a bad mask, never a missing one. Every ground-truth annotation ends
in exactly one place: a pair, `left_out` (with the reason: no prediction, failed, unreadable, ...) or `not_asked`
(crowd regions, and annotations with no pixel outside their ignore region: there is nothing to compare with).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipeline.errors import MaskError, RefusedError
from pipeline.masks import binary
from pipeline.masks.binary import Rle

SHOWN_IDS = 3  # in error messages


@dataclass(frozen=True)
class Truth:
    """One ground-truth annotation. `ignore` marks pixels that count neither for nor against a mask."""

    annotation_id: str
    image_id: str
    image_name: str
    source: str
    category: str
    mask: Rle
    ignore: Rle | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Prediction:
    """One relabeled mask: what came in, what the refiner made of it, what is to be trained on, and its scores.

    mask      the label; None for a failed row, whose `reason` says why
    coarse    None where the predictions do not carry it
    refined   None where the refiner returned nothing, or where the predictions do not carry it
    scores    estimates of IoU in [0, 1] by column name (`quality`, `predicted_iou`, ...); those that are absent or
              null are not in the mapping
    score     detection score for average precision, where the predictions have one
    """

    source_mask_id: str
    image_name: str
    mask: Rle | None
    coarse: Rle | None = None
    refined: Rle | None = None
    decision: str | None = None
    reason: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    score: float = 1.0


@dataclass(frozen=True)
class Pair:
    """One annotation and its prediction, both readable and of one size."""

    truth: Truth
    prediction: Prediction


@dataclass(frozen=True)
class Pairing:
    """All ground-truth annotations in scope, each accounted for once.

    pairs            what is measured
    left_out         annotations that should have been measured and could not be, by reason
    not_asked        annotations that no mask can be compared with, by reason
    without_truth    predictions whose id the ground truth does not have
    other_image      pairs whose images have different file names: a sign of ids that do not belong together
    """

    pairs: list[Pair]
    left_out: list[tuple[Truth, str]]
    not_asked: Counter[str]
    without_truth: int
    other_image: int


def pair(
    truths: list[Truth],
    predictions: list[Prediction],
    coarse: Mapping[str, Rle] | None = None,
    images: Collection[str] | None = None,
) -> Pairing:
    """Join on `source_mask_id == annotation_id`.

    coarse   masks by annotation id: supplies the coarse side where predictions do not carry it
    images   file names or image ids: only these images are in scope
    """
    by_id = _by_id(predictions)
    known = {truth.annotation_id for truth in truths}
    if not known & by_id.keys():
        raise RefusedError(
            "no prediction joins the ground truth: a prediction's source_mask_id (in COCO JSON: its id) must equal a "
            f"ground-truth annotation id. Predictions have {_some(by_id)}; ground truth has {_some(known)}"
        )
    pairs, left_out, not_asked = [], [], Counter[str]()
    for truth in truths if images is None else _on(images, truths):
        if unusable := _not_comparable(truth):
            not_asked[unusable] += 1
            continue
        prediction = by_id.get(truth.annotation_id)
        if prediction is not None and coarse is not None:
            prediction = _with_coarse(prediction, coarse)
        reason = _unusable(truth, prediction, needs_coarse=coarse is not None)
        if prediction is None or reason:
            left_out.append((truth, reason or "missing"))
        else:
            pairs.append(Pair(truth, prediction))
    if not pairs:
        reasons = dict(Counter(reason for _, reason in left_out))
        raise RefusedError(f"no annotation of the ground truth has a usable prediction: {reasons}")
    other_image = sum(
        PurePosixPath(item.truth.image_name).name != PurePosixPath(item.prediction.image_name).name for item in pairs
    )
    return Pairing(pairs, left_out, not_asked, len(by_id.keys() - known), other_image)


def _by_id(predictions: list[Prediction]) -> dict[str, Prediction]:
    by_id: dict[str, Prediction] = {}
    for prediction in predictions:
        if prediction.source_mask_id in by_id:
            raise RefusedError(f"duplicate prediction for annotation {prediction.source_mask_id}")
        by_id[prediction.source_mask_id] = prediction
    return by_id


def _on(images: Collection[str], truths: list[Truth]) -> list[Truth]:
    """The annotations on `images`."""
    wanted = set(images)
    chosen = [truth for truth in truths if truth.image_name in wanted or truth.image_id in wanted]
    if not chosen:
        raise RefusedError(f"none of the {len(wanted)} listed images is in the ground truth; list file names or ids")
    return chosen


def _not_comparable(truth: Truth) -> str:
    """Why nothing can be compared with this annotation, or an empty string."""
    if truth.crowd:
        return "crowd"
    if binary.area(truth.mask) == 0:
        return "truth_empty"
    if truth.ignore is not None and not (binary.decode(truth.mask) & ~binary.decode(truth.ignore) & 1).any():
        return "truth_ignored"
    return ""


def _unusable(truth: Truth, prediction: Prediction | None, needs_coarse: bool) -> str:
    """Why this annotation cannot be measured, or an empty string."""
    if prediction is None:
        return "missing"
    if prediction.mask is None:
        return f"failed: {prediction.reason or 'no reason given'}"
    if needs_coarse and prediction.coarse is None:
        return "no_coarse_mask"
    for rle in (prediction.mask, prediction.coarse, prediction.refined):
        if rle is None:
            continue
        try:
            binary.check(rle)
        except MaskError as error:
            return error.reason
        if rle["size"] != truth.mask["size"]:
            return "mask_size_mismatch"
    return ""


def _with_coarse(prediction: Prediction, coarse: Mapping[str, Rle]) -> Prediction:
    return Prediction(**{**prediction.__dict__, "coarse": coarse.get(prediction.source_mask_id)})


def _some(ids: Collection[str]) -> str:
    shown = ", ".join(sorted(ids)[:SHOWN_IDS])
    return f"{len(ids)} ids ({shown}, ...)" if len(ids) > SHOWN_IDS else f"{len(ids)} ids ({shown})"
