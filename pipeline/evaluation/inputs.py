"""Reads what is compared: ground truth and image lists (JSON), predictions (an output folder, or COCO JSON).

All places are fsspec URIs or local paths; output folders are read through `dataset.py`. What cannot be used is
refused in one sentence that names the place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipeline.dataset import open_result
from pipeline.errors import MaskError, RefusedError
from pipeline.evaluation.pairing import Prediction, Truth
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.storage import Access, brief, read_uri

SCORES = ("quality", "quality_coarse", "quality_refined", "predicted_iou")
COLUMNS = ["source_mask_id", "image_uri", "coarse_rle", "refined_rle", "mask_rle", "decision", "reason", *SCORES]
MAX_JSON_BYTES = 1 << 33  # held in memory, where it takes several times that
AS_CONFIGURED = Access()  # endpoint and credentials from the environment
NO_SOURCE = "all"  # the source of images whose ground truth names none


@dataclass(frozen=True)
class TruthIds:
    """Which field of the truth's annotations has the id of what they are the truth of.

    source: only annotations whose field `source` says this; None for all. COCO-ReM's have ids of their own, and COCO's
    or LVIS's as `source_id`, with `source`.
    """

    field: str = "id"
    source: str | None = None


OWN_IDS = TruthIds()


def read_truth(uri: str, access: Access = AS_CONFIGURED, ids: TruthIds = OWN_IDS) -> list[Truth]:
    """COCO JSON -> its annotations. An image's `source` and an annotation's `ignore` (RLE) are optional.

    Raises RefusedError where no annotation is of the source, or one lacks the field of ids.
    """
    coco = read_coco(uri, access)
    if ids.source is not None:
        own = [one for one in coco["annotations"] if str(one.get("source")) == ids.source]
        if not own:
            there = sorted({str(one.get("source")) for one in coco["annotations"]})
            raise RefusedError(
                f"{uri}: no annotation is of the source {ids.source!r}; there are {', '.join(there[:8])}"
            )
        coco = {**coco, "annotations": own}
    images = {image["id"]: image for image in coco["images"]}
    categories = {category["id"]: str(category["name"]) for category in coco.get("categories", [])}
    try:
        return [_truth(annotation, images, categories, ids.field) for annotation in coco["annotations"]]
    except (KeyError, TypeError, ValueError, MaskError) as error:
        raise RefusedError(f"{uri}: an annotation cannot be used: {error!r}") from error


def _truth(annotation: dict[str, Any], images: dict[Any, Any], categories: dict[Any, str], id_field: str) -> Truth:
    image = images[annotation["image_id"]]
    size_hw = (int(image["height"]), int(image["width"]))
    ignore = annotation.get("ignore")
    # COCO also knows `ignore: 0 or 1`, a flag; only a region is one
    region = binary.from_segmentation(ignore, size_hw) if isinstance(ignore, dict | list) else None
    category_id = annotation.get("category_id")
    return Truth(
        annotation_id=str(annotation[id_field]),
        image_id=str(image["id"]),
        image_name=image_name(image),
        source=str(image.get("source", NO_SOURCE)),
        category=categories.get(category_id, str(category_id)),
        mask=binary.from_segmentation(annotation["segmentation"], size_hw),
        ignore=region,
        crowd=bool(annotation.get("iscrowd", 0)),
    )


def image_name(image: dict[str, Any]) -> str:
    """Of an entry of `images`; LVIS names a file by its URL alone. Raises KeyError where neither is there."""
    return str(image.get("file_name") or str(image["coco_url"]).rpartition("/")[2])


def read_image_list(spec: str, access: Access = AS_CONFIGURED) -> list[str]:
    """`URI` of a JSON list of image file names or ids, or `URI:KEY` for one list of a JSON object (split.json:B)."""
    uri, key = spec, None
    if not spec.endswith(".json"):
        uri, _, key = spec.rpartition(":")
        if not uri.endswith(".json"):
            raise RefusedError(f"--images {spec}: give LIST.json, or SPLITS.json:NAME for one list of several")
    content = read_json(uri, access)
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            keys = ", ".join(content) if isinstance(content, dict) else "a single list"
            raise RefusedError(f"--images {spec}: {uri} has no list {key!r}; it has {keys}")
        content = content[key]
    if not isinstance(content, list) or not content:
        raise RefusedError(f"--images {spec}: not a JSON list of image file names or ids")
    return [str(name) for name in content]


def unknown_images(names: Sequence[str], truth: str, access: Access = AS_CONFIGURED) -> list[str]:
    """Those of a list of images, by file name or id, that the COCO file of the truth does not have."""
    images = read_coco(truth, access)["images"]
    known = {str(image["id"]) for image in images} | {image_name(image) for image in images}
    return [name for name in names if name not in known]


def read_predictions(uri: str, annotation_ids: Collection[str], access: Access = AS_CONFIGURED) -> list[Prediction]:
    """COCO JSON where the name says so, else the output folder of a run; only what `annotation_ids` may join.

    (All of a COCO file is returned; of an output, whose masks may be millions, the rows with these ids.)
    """
    if is_coco(uri):
        return _read_coco_predictions(uri, access)
    return _read_output(uri, annotation_ids, access)


def is_coco(uri: str) -> bool:
    """Whether predictions at `uri` are COCO JSON, by name, and not an output folder."""
    return uri.endswith(".json")


def check_coarse(predictions: str, coarse: str | None) -> None:
    """Raise RefusedError where coarse masks are given beside an output, which has its own."""
    if coarse is not None and not is_coco(predictions):
        raise RefusedError("--coarse goes with COCO JSON predictions; an output folder has its own coarse masks")


def read_coarse(uri: str, access: Access = AS_CONFIGURED) -> dict[str, Rle]:
    """COCO JSON -> masks by annotation id; unreadable ones are left out."""
    return {
        prediction.source_mask_id: prediction.mask
        for prediction in _read_coco_predictions(uri, access)
        if prediction.mask is not None
    }


def _read_coco_predictions(uri: str, access: Access) -> list[Prediction]:
    """COCO JSON whose annotation ids are those of the ground truth. Columns of an output (`decision`, `reason`,
    `quality`, ...) and a detection `score` are taken where an annotation has them."""
    coco = read_coco(uri, access)
    images = {image["id"]: image for image in coco["images"]}
    predictions = []
    for annotation in coco["annotations"]:
        image = images.get(annotation.get("image_id"), {})
        rle, reason = _rle_or_reason(annotation.get("segmentation"), (image.get("height", 0), image.get("width", 0)))
        predictions.append(
            Prediction(
                source_mask_id=str(annotation.get("id")),
                image_name=str(image.get("file_name", "")),
                mask=rle,
                decision=annotation.get("decision"),
                reason=reason or annotation.get("reason"),
                scores=_scores(annotation),
                score=float(annotation.get("score", 1.0)),
            )
        )
    return predictions


def _rle_or_reason(segmentation: Any, size_hw: tuple[int, int]) -> tuple[Rle | None, str | None]:
    """The mask, or the reason code of its failure."""
    try:
        return binary.from_segmentation(segmentation, size_hw), None
    except MaskError as error:
        return None, error.reason


def _read_output(uri: str, annotation_ids: Collection[str], access: Access) -> list[Prediction]:
    """The live masks of an output whose `source_mask_id` is one of `annotation_ids`; shard by shard."""
    result = open_result(uri, access)
    wanted = pc.field("source_mask_id").isin(sorted(annotation_ids))
    predictions = []
    for path in result.files("masks"):
        shard = result.store.read_parquet(path, COLUMNS).filter(wanted)
        predictions += [_prediction(row) for row in shard.to_pylist()]
    return predictions


def _prediction(row: dict[str, Any]) -> Prediction:
    failed = row["decision"] == "failed"
    return Prediction(
        source_mask_id=str(row["source_mask_id"]),
        image_name=str(row["image_uri"] or ""),
        mask=None if failed else row["mask_rle"],
        coarse=row["coarse_rle"],
        refined=row["refined_rle"],
        decision=row["decision"],
        reason=row["reason"],
        scores=_scores(row),
    )


def _scores(row: dict[str, Any]) -> dict[str, float]:
    """The scores that a row has: finite numbers only."""
    return {name: float(row[name]) for name in SCORES if row.get(name) is not None and math.isfinite(row[name])}


def read_coco(uri: str, access: Access) -> dict[str, Any]:
    """COCO JSON, whole. Raises RefusedError where it is none."""
    content = read_json(uri, access)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise RefusedError(f"{uri}: not COCO JSON with `images` and `annotations`")
    return content


def read_json(uri: str, access: Access) -> Any:
    """Any JSON, whole. Raises RefusedError where it is none."""
    data = read_uri(uri, access, MAX_JSON_BYTES)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{uri} is not valid JSON: {brief(error)}") from None
