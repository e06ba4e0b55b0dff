"""Rows of shards: what a part's mask becomes when it is sealed, and how rows are counted. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.calibration.apply import Judgement, columns_of, drift_counts, judge
from pipeline.masks import binary
from pipeline.masks import gate as mask_gate
from schemas.calibration import Calibration
from schemas.config import Gate
from schemas.manifest import Counts
from schemas.records import SCORES

Row = dict[str, Any]


def seal_masks(
    part_masks: Sequence[tuple[Row, Row]], gate: Gate, calibration: Calibration | None
) -> tuple[list[Row], dict[str, list[int]]]:
    """(image, mask) rows of parts -> rows of the shard, and how the scores are distributed (`drift_counts`)."""
    refined = [mask for _, mask in part_masks if is_refined(mask)]
    judged = iter(judge(refined, gate, calibration))
    rows = [seal_mask(image, mask, next(judged) if is_refined(mask) else None) for image, mask in part_masks]
    return rows, drift_counts(columns_of(refined), calibration)


def is_refined(mask: Row) -> bool:
    """Whether a part's mask was refined: it did not fail, is no crowd, and its category is not kept as it came."""
    return mask["reason"] is None and not mask.get("crowd") and mask["refined_rle"] is not None


def seal_mask(image: Row, mask: Row, judged: Judgement | None) -> Row:
    """A part's mask -> a row of the shard: decision, quality, and the geometry of the mask that was kept.

    judged: None for a mask that was not refined.
    """
    row = {name: mask[name] for name in ("mask_id", "source_mask_id", "category_id", "category")}
    row |= {name: image[name] for name in ("image_id", "image_uri", "source_image_id", "height", "width")}
    row |= {name: mask.get(name) for name in ("coarse_rle", "refined_rle", *(name for name, _ in SCORES))}
    row |= {"detail": mask.get("detail"), "crowd": bool(mask.get("crowd")), "extra": mask.get("extra")}
    row |= dict.fromkeys(["mask_rle", "bbox_xywh", "area", "quality", "quality_lower"])
    row |= {"quality_coarse": None, "quality_refined": None, "calibration_id": None}
    if judged is None and mask["reason"] is not None:
        return {**row, "decision": "failed", "reason": mask["reason"]}
    if judged is None:
        reason = "crowd" if mask.get("crowd") else "kept_by_method"
        return {**row, "decision": "kept_coarse", "reason": reason, **_geometry(mask["coarse_rle"])}
    return {
        **row,
        "decision": judged.decision.decision,
        "reason": judged.decision.reason,
        **_geometry(mask[f"{judged.decision.kept}_rle"]),
        "quality": _known(judged.kept),
        "quality_lower": judged.lower,
        "quality_coarse": _known(judged.quality.coarse),
        "quality_refined": _known(judged.quality.refined),
        "calibration_id": judged.calibration_id,
    }


def _geometry(kept: binary.Rle) -> Row:
    return {"mask_rle": kept, "bbox_xywh": binary.bbox_xywh(kept), "area": binary.area(kept)}


def _known(value: float) -> float | None:
    """NaN as null: some readers sort NaN above every number, and would take it for the best quality."""
    return None if math.isnan(value) else value


def count(image_rows: Sequence[Row], mask_rows: Sequence[Row]) -> Counts:
    """Images by status, masks by decision, rows of both by reason, and masks by tenths of quality."""
    return Counts(
        images=Counter(row["status"] for row in image_rows),
        decisions=Counter(row["decision"] for row in mask_rows),
        image_reasons=Counter(row["reason"] for row in image_rows if row["reason"]),
        mask_reasons=Counter(row["reason"] for row in mask_rows),
        quality=Counter(mask_gate.tenth(row["quality"]) for row in mask_rows if row["quality"] is not None),
    )


def add_counts(counts: Sequence[Counts]) -> Counts:
    """Sum of several counts, keys sorted."""
    total: dict[str, Counter[str]] = {}
    for one in counts:
        for kind, numbers in one.as_dict().items():
            total.setdefault(kind, Counter()).update(numbers)
    return Counts(**{kind: dict(sorted(numbers.items())) for kind, numbers in total.items()})


def add_drift(counts: Sequence[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Sum of the bin counts of several shards."""
    return {name: [sum(bins) for bins in zip(*(one[name] for one in counts), strict=True)] for name in counts[0]}
