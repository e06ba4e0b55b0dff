"""What was found of the planted faults, and what the dataset is worth before and after."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline.comparison.measure import rle_iou
from pipeline.dataset import findings, open_result
from tests.recipe.reviewer import is_right, planted

Row = dict[str, Any]
MATCH = 0.5


def of_merge(first: Path, merged: Path, truth: Path) -> Row:
    """Instances that the first left out, and the merged has: of all of them; of all that were added, those."""
    ids = [
        {one["truth_id"] for one in read(path) if one.get("truth_id") is not None} for path in (first, merged, truth)
    ]
    joined = {truth_id for one in read(first) for truth_id in one.get("joined", ())}
    lacking = ids[2] - ids[0] - joined
    added = [one for one in read(merged) if one["source"] == "lvis" and one.get("truth_id") not in ids[0] | joined]
    return {
        "instances": len(ids[2]),
        "left out": len(lacking),
        "recall": len(lacking & ids[1]) / max(1, len(lacking)),
        "precision": sum(one.get("truth_id") in lacking for one in added) / max(1, len(added)),
    }


def of_findings(output: Path) -> dict[str, Row]:
    """By kind: how many were planted and are left after merging, found, right; precision, recall, average precision."""
    known = planted(output)
    found = findings.latest(open_result(str(output)))
    rows = found.rows.to_pylist() if found else []
    figures = {}
    for kind in ("duplicate", "several", "box"):
        own = sorted((row for row in rows if row["kind"] == kind), key=lambda row: -row["certainty"])
        right = [is_right(row, known) for row in own]
        faults = _faults(kind, known)
        caught = {_fault(kind, row, known) for row, good in zip(own, right, strict=True) if good}
        figures[kind] = {
            "planted": len(faults),
            "found": len(own),
            "precision": float(np.mean(right)) if right else None,
            "recall": len(caught & faults) / max(1, len(faults)),
            "average precision": average_precision(right, len(faults)),
        }
    others = Counter(row["kind"] for row in rows if row["kind"] not in figures)
    return {**figures, **{kind: {"found": count} for kind, count in sorted(others.items())}}


def _faults(kind: str, known: dict[str, Row]) -> set[Any]:
    """Objects that are there twice; masks that are planted otherwise."""
    if kind != "duplicate":
        return {mask_id for mask_id, row in known.items() if row.get("planted") == kind}
    times = Counter(row["truth_id"] for row in known.values() if row.get("truth_id") is not None)
    return {truth_id for truth_id, count in times.items() if count > 1}


def _fault(kind: str, row: Row, known: dict[str, Row]) -> Any:
    return known[row["mask_id"]]["truth_id"] if kind == "duplicate" else row["mask_id"]


def average_precision(right: list[bool], faults: int) -> float | None:
    if not faults:
        return None
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    return float(sum(precision[place] for place, good in enumerate(right) if good) / faults)


def of_dataset(annotations: list[Row], truth: Path) -> Row:
    """Masks against every accurate one of their image, each taken once: what a trainer would get.

    iou: of instances that are matched, at IoU 0.5 and above; recall, precision: of instances, whatever their class.
    """
    by_image = defaultdict(list)
    for one in annotations:
        by_image[one["image"]].append(one["rle"])
    true = defaultdict(list)
    content = json.loads(truth.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for one in content["annotations"]:
        true[names[one["image_id"]]].append(one["segmentation"])
    matched = [iou for image, own in true.items() for iou in _matches(own, by_image[image])]
    total = sum(map(len, true.values()))
    return {
        "masks": len(annotations),
        "recall": len(matched) / total,
        "precision": len(matched) / max(1, len(annotations)),
        "iou": float(np.mean(matched)),
    }


def _matches(true: list[Row], found: list[Row]) -> list[float]:
    """IoUs of pairs, the best first, each mask in one."""
    pairs = [(rle_iou(a, b), i, j) for i, a in enumerate(true) for j, b in enumerate(found)]  # type: ignore[arg-type]
    taken: tuple[set[int], set[int]] = set(), set()
    kept = []
    for iou, i, j in sorted(pairs, reverse=True):
        if iou >= MATCH and i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            kept.append(iou)
    return kept


def of_coco(path: Path) -> list[Row]:
    """The masks of a COCO file."""
    content = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return [{"image": names[one["image_id"]], "rle": one["segmentation"]} for one in content["annotations"]]


def of_result(output: Path) -> list[Row]:
    """The masks of a result."""
    rows = pipeline.open(str(output)).masks("decision != 'failed'", ["image_id", "mask_rle"]).to_pylist()
    return [{"image": row["image_id"], "rle": row["mask_rle"]} for row in rows]


def read(path: Path) -> list[Row]:
    return list(json.loads(path.read_text())["annotations"])
