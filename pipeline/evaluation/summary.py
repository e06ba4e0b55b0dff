"""One group of masks described: levels, gains over coarse, harm, decisions, scores, and the same in bins.

The tree's shape stands in `report.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.evaluation import scores
from pipeline.evaluation.bootstrap import Figure, ImageBootstrap
from pipeline.evaluation.measures import Floats, Measures, Side
from pipeline.evaluation.pairing import Pair, Truth
from pipeline.evaluation.precision import average_precision

Tree = dict[str, Any]  # nested; leaves are Figure, float, int, text, lists

HARM_POINTS = 0.02
SAME_IOU = 1e-9  # IoUs nearer than this are equal
SMALL_AREA, LARGE_AREA = 32**2, 96**2  # COCO's size bins, pixels of the truth
COARSE_IOU_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SCORED = (  # which score is asked about which side's IoU
    ("quality", "mask"),
    ("predicted_iou", "mask"),
    ("quality_refined", "refined"),
    ("predicted_iou", "refined"),
    ("quality_coarse", "coarse"),
)


def describe(measures: Measures, pairs: Sequence[Pair], left_out: Sequence[Truth], replicates: int, seed: int) -> Tree:
    """One GROUP, without the shares of the gain."""
    bootstrap = ImageBootstrap(measures.image, replicates, seed)
    oracle = measures.oracle()
    sides = measures.sides | ({"oracle": oracle} if oracle else {})
    levels = {name: _levels(side, bootstrap) for name, side in sides.items()}
    precision = _precision([*(pair.truth for pair in pairs), *left_out], pairs, list(measures.sides))
    iou = measures.sides["mask"].iou
    group: Tree = {
        "masks": len(measures),
        "images": len(set(measures.image.tolist())),
        "left_out": len(left_out),
        "mean_iou_left_out_as_zero": float(iou.sum() / (len(measures) + len(left_out))),
        "levels": levels,
        "precision": precision,
        "gate": _decisions(measures, bootstrap),
        "scores": _scores(measures, replicates, seed),
    }
    if "coarse" in sides:
        changed = [name for name in sides if name != "coarse"]
        group["gains"] = {
            name: {metric: levels[name][metric] - levels["coarse"][metric] for metric in levels[name]}
            for name in changed
        }
        group["harm"] = {name: _harm(sides[name].iou - sides["coarse"].iou, bootstrap) for name in changed}
    return group | _breakdowns(measures, precision, replicates, seed)


def _levels(side: Side, bootstrap: ImageBootstrap) -> dict[str, Figure]:
    return {
        "mean_iou": bootstrap.mean(side.iou),
        "cumulative_iou": bootstrap.ratio(side.intersection, side.union),
        "boundary_iou": bootstrap.mean(side.boundary_iou),
        "boundary_accuracy": bootstrap.mean(side.boundary_accuracy),
    }


def _harm(change: Floats, bootstrap: ImageBootstrap) -> Tree:
    """How often and by how much a mask got worse; `change` (N,) is its gain in IoU over the coarse mask."""
    worse = change < -SAME_IOU
    return {
        "worse": bootstrap.mean(worse),
        "worse_by_2_points": bootstrap.mean(change < -HARM_POINTS - SAME_IOU),
        "mean_loss_of_worse": bootstrap.ratio(np.where(worse, -change, 0.0), worse),
        "largest_loss": float(max(0.0, -change.min())),
        "better": bootstrap.mean(change > SAME_IOU),
    }


def _precision(truths: Sequence[Truth], pairs: Sequence[Pair], sides: Sequence[str]) -> Tree:
    return {
        side: {
            kind: average_precision(truths, pairs, side, bounded=kind == "boundary") for kind in ("mask", "boundary")
        }
        for side in sides
    }


def _decisions(measures: Measures, bootstrap: ImageBootstrap) -> Tree:
    """What the gate did; empty where predictions carry no decision."""
    if not (measures.decision != "").any():
        return {}
    return {
        "acceptance": bootstrap.mean(measures.decision == "refined"),
        "decisions": dict(Counter(measures.decision.tolist())),
        "reasons": dict(Counter(measures.reason.tolist())),
    }


def _scores(measures: Measures, replicates: int, seed: int) -> Tree:
    tree: Tree = {}
    for name, side in SCORED:
        if name in measures.scores and side in measures.sides:
            scored = measures.take(np.flatnonzero(np.isfinite(measures.scores[name])))
            if len(scored):
                bootstrap = ImageBootstrap(scored.image, replicates, seed)
                tree[f"{name} of {side}"] = _score(scored.scores[name], scored.sides[side].iou, bootstrap)
    return tree


def _score(score: Floats, iou: Floats, bootstrap: ImageBootstrap) -> Tree:
    """What one score (N,) knows of the true IoU (N,)."""
    bins = scores.reliability(score, iou)
    curve = scores.risk_coverage(score, iou)
    return {
        "masks": len(score),
        "spearman": bootstrap.statistic(lambda rows: scores.spearman(score[rows], iou[rows])),
        "auroc": bootstrap.statistic(lambda rows: scores.auroc(score[rows], iou[rows])),
        "mean_absolute_error": bootstrap.mean(np.abs(score - iou)),
        "calibration_error": bootstrap.statistic(lambda rows: scores.calibration_error(score[rows], iou[rows])),
        "bias": bootstrap.mean(score - iou),
        "risk_area": curve.area,
        "ideal_risk_area": curve.ideal,
        "curves": {
            "reliability": {"score": bins.score, "iou": bins.iou, "masks": bins.masks},
            "risk_coverage": {"coverage": curve.coverage, "risk": curve.risk},
        },
    }


def _breakdowns(measures: Measures, precision: Tree, replicates: int, seed: int) -> Tree:
    """Rows by category, size and coarse IoU."""
    sizes = np.select([measures.area < SMALL_AREA, measures.area < LARGE_AREA], ["small", "medium"], "large")
    tables = {
        "by_category": {name: measures.category == name for name in sorted(set(measures.category.tolist()))},
        "by_size": {name: sizes == name for name in ("small", "medium", "large")},
    }
    if "coarse" in measures.sides:
        number = np.digitize(measures.sides["coarse"].iou, COARSE_IOU_EDGES[1:-1])
        tables["by_coarse_iou"] = {
            f"{low:.1f}-{high:.1f}": number == index for index, (low, high) in enumerate(pairwise(COARSE_IOU_EDGES))
        }
    rows: Tree = {
        table: [
            _row(name, measures.take(np.flatnonzero(chosen)), replicates, seed)
            for name, chosen in bins.items()
            if chosen.any()
        ]
        for table, bins in tables.items()
    }
    for row in rows["by_category"]:
        for kind in ("mask", "boundary"):
            row[f"{kind}_ap"] = precision["mask"][kind]["by_category"][row["name"]]
    return rows


def _row(name: str, measures: Measures, replicates: int, seed: int) -> Tree:
    bootstrap = ImageBootstrap(measures.image, replicates, seed)
    mask, coarse = measures.sides["mask"], measures.sides.get("coarse")
    row: Tree = {
        "name": name,
        "masks": len(measures),
        "mean_iou": float(mask.iou.mean()),
        "boundary_iou": float(mask.boundary_iou.mean()),
    }
    if coarse is not None:
        change = mask.iou - coarse.iou
        row |= {
            "coarse_mean_iou": float(coarse.iou.mean()),
            "coarse_boundary_iou": float(coarse.boundary_iou.mean()),
            "gain": bootstrap.mean(change),
            "boundary_gain": bootstrap.mean(mask.boundary_iou - coarse.boundary_iou),
            "worse_by_2_points": float((change < -HARM_POINTS - SAME_IOU).mean()),
        }
    return row
