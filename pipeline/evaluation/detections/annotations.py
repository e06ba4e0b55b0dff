"""All annotations of some images, by the ids of a COCO file; and detections of the same ids (COCO's results).

An output of `relabel run` knows the image ids of the file that it was made from as `source_image_id`. What LVIS says of
its images (classes that are certainly not there, or not annotated exhaustively) is kept.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.dataset.by_image import groups, read_group
from pipeline.dataset.result import Result, open_result
from pipeline.errors import MaskError, RefusedError
from pipeline.evaluation.inputs import check_coarse, image_name, is_coco, read_coco, read_json
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.storage import Access

NEGATIVE, NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"  # LVIS's names
COLUMNS = ["category_id", "crowd", "coarse_rle", "mask_rle", "decision"]
SIDES = {"coarse": "coarse_rle", "label": "mask_rle"}

Row = dict[str, Any]


class Annotation(NamedTuple):
    """One object, or a crowd of them. area: in pixels, as its file says; ignore: pixels of it that do not count."""

    image: str
    category_id: int
    mask: Rle
    crowd: bool
    area: float
    ignore: Rle | None = None


class Image(NamedTuple):
    """size_hw in pixels. negative: classes that are not there; None where every class is looked for.

    not_exhaustive: classes of which some objects are annotated.
    """

    name: str
    size_hw: tuple[int, int]
    negative: frozenset[int] | None = None
    not_exhaustive: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Annotations:
    """Every annotation of some images, by image id. unreadable: masks that are none, and stand for nothing here."""

    images: dict[str, Image]
    objects: list[Annotation]
    unreadable: int = 0


class Detection(NamedTuple):
    """What a detector says of an image."""

    image: str
    category_id: int
    mask: Rle
    score: float


@dataclass(frozen=True)
class Detections:
    """A file of them. left_out: how many cannot be measured, by reason."""

    found: list[Detection]
    left_out: Counter[str]


def of_coco(uri: str, access: Access) -> Annotations:
    """COCO, LVIS, COCO-ReM, Sama-COCO. Raises RefusedError where it is none of them."""
    content = read_coco(uri, access)
    try:
        images = {str(one["id"]): _image(one, image_name(one)) for one in content["images"]}
        objects, unreadable = [], 0
        for one in content["annotations"]:
            found = _annotation(one, images)
            unreadable += found is None
            objects += [found] if found else []
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"{uri}: an image or annotation cannot be used: {error!r}") from error
    return Annotations(images, objects, unreadable)


def _image(one: Row, name: str) -> Image:
    negative = one.get(NEGATIVE)
    return Image(
        name,
        (int(one["height"]), int(one["width"])),
        None if negative is None else frozenset(map(int, negative)),
        frozenset(map(int, one.get(NOT_EXHAUSTIVE) or ())),
    )


def _annotation(one: Row, images: Mapping[str, Image]) -> Annotation | None:
    image = str(one["image_id"])
    size_hw = images[image].size_hw
    try:
        mask = binary.from_segmentation(one.get("segmentation"), size_hw)
        region = one.get("ignore")
        ignore = binary.from_segmentation(region, size_hw) if isinstance(region, dict | list) else None
    except MaskError:
        return None
    area = float(one["area"]) if one.get("area") is not None else float(binary.area(mask))
    return Annotation(image, int(one["category_id"]), mask, bool(one.get("iscrowd", 0)), area, ignore)


def of_output(output: str, access: Access) -> dict[str, Annotations]:
    """`coarse` and `label` of an output of `relabel run`. Raises RefusedError where its images have no ids of one."""
    result = open_result(output, access)
    images: dict[str, Image] = {}
    objects: dict[str, list[Annotation]] = {side: [] for side in SIDES}
    unreadable: Counter[str] = Counter()
    for image, masks in _by_image(result):
        number = str(image["source_image_id"] or "")
        if not number:
            continue
        images[number] = _image({**json.loads(image["extra"] or "{}"), **image}, image["image_uri"])
        for row in masks:
            for side, column in SIDES.items():
                rle = row[column]
                if rle is None:
                    unreadable[side] += 1
                elif area := binary.area(rle):
                    crowd = bool(row["crowd"])
                    objects[side].append(Annotation(number, int(row["category_id"] or 0), rle, crowd, float(area)))
    if not images:
        raise RefusedError(f"{output}: its images have no ids of a COCO file, by which detections could be joined")
    return {side: Annotations(images, objects[side], unreadable[side]) for side in SIDES}


def _by_image(result: Result) -> Any:
    for group in groups(result):
        for _, image, masks in read_group(result, group, COLUMNS):
            if image["status"] == "ok":
                yield image, masks


def all_of(predictions: str, coarse: str | None, ground_truth: str, access: Access) -> dict[str, Annotations]:
    """What `relabel evaluate` was given: `coarse`, where there is one, `label` and `truth`."""
    check_coarse(predictions, coarse)
    if is_coco(predictions):
        found = {"coarse": of_coco(coarse, access)} if coarse else {}
        found["label"] = of_coco(predictions, access)
    else:
        found = of_output(predictions, access)
    return {**found, "truth": of_coco(ground_truth, access)}


def detections(uri: str, images: Mapping[str, Image], access: Access) -> Detections:
    """COCO's results with masks: a list of image_id, category_id, segmentation and score. Raises RefusedError."""
    content = read_json(uri, access)
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise RefusedError(f"{uri}: not COCO results, a JSON list of image_id, category_id, segmentation, score")
    if content and not any(one.get("segmentation") for one in content):
        raise RefusedError(f"{uri}: detections without masks: none of {len(content)} has a `segmentation`")
    found, left_out = [], Counter[str]()
    for one in content:
        detection = _detection(one, images)
        if isinstance(detection, str):
            left_out[detection] += 1
        else:
            found.append(detection)
    if not found:
        raise RefusedError(f"{uri}: no detection can be measured: {dict(left_out) or 'there is none'}")
    return Detections(found, left_out)


def _detection(one: Row, images: Mapping[str, Image]) -> Detection | str:
    """It, or why it cannot be measured."""
    image = images.get(str(one.get("image_id")))
    if image is None:
        return "on_other_images"
    try:
        mask = binary.from_segmentation(one.get("segmentation"), image.size_hw)
        score, category_id = float(one["score"]), int(one["category_id"])
    except (MaskError, KeyError, TypeError, ValueError):
        return "unreadable"
    if tuple(mask["size"]) != image.size_hw:
        return "mask_size_mismatch"
    return Detection(str(one["image_id"]), category_id, mask, score) if math.isfinite(score) else "unreadable"


def common_images(sets: Mapping[str, Annotations], wanted: Collection[str] | None) -> dict[str, Image]:
    """Images that every annotation has, by id; of those, the wanted ones, by name or id. Raises RefusedError."""
    first, *others = sets.values()
    shared = set(first.images).intersection(*(other.images for other in others))
    truth = sets["truth"].images
    if wanted is not None:
        names = set(wanted)
        shared = {number for number in shared if number in names or truth[number].name in names}
    if not shared:
        told = "; ".join(f"{name}: {_some(one.images)}" for name, one in sets.items())
        raise RefusedError(f"--detections: the annotations have no image id in common: {told}")
    return {number: truth[number] for number in sorted(shared)}


def _some(ids: Collection[str]) -> str:
    return f"{len(ids)} ids ({', '.join(sorted(ids)[:3])}, ...)"
