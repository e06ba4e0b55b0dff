"""Everything about one set of predictions as one tree of numbers.

    {"version": 1,
     "counts": {"ground_truth", "measured", "left_out": {reason: n}, "not_asked": {reason: n}, "without_truth", ...},
     "groups": {"all": GROUP, <source>: GROUP, ..., "mean of sources": GROUP}}     sources only where there are several

    GROUP = {"masks", "images", "left_out",
             "mean_iou_left_out_as_zero"                          left-out annotations counted as IoU 0
             "levels": {side: {metric: FIGURE}}                   sides: coarse, refined, mask, oracle
             "precision": {side: {"mask" | "boundary": {"ap", "ap50", "ap75", "small", "medium", "large"}}}
             "gains": {side: {metric: FIGURE}}                    side minus coarse, paired
             "harm": {side: {"worse", "worse_by_2_points", "mean_loss_of_worse", "largest_loss", "better"}}
             "gate": {"acceptance", "kept_share_of_gain", "share_of_oracle_gain", "decisions", "reasons"}
             "scores": {"<score> of <side>": {"spearman", "auroc", ..., "curves"}}
             "by_category" | "by_size" | "by_coarse_iou": [ROW]}

`coarse` is what came in, `refined` is always refining, `mask` is what the gate kept, `oracle` the better of the first
two for each mask. A FIGURE is {"value", "low", "high"}: a 95 % interval from resampling images. All numbers are
fractions of 1; null where undefined. Levels and gains are over measured masks; what was left out is counted beside
them, and `mean_iou_left_out_as_zero` and the average precisions count it as lost. In the mean of sources each source
weighs the same. `relabel evaluate --detections` adds "detections" (`detections/compare.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.bootstrap import Figure, mean_figure
from pipeline.evaluation.measures import Measures, measure
from pipeline.evaluation.pairing import Pairing
from pipeline.evaluation.summary import Tree, describe

VERSION = 1
ALL, MEAN = "all", "mean of sources"


def evaluate(pairing: Pairing, replicates: int = 1000, seed: int = 0) -> tuple[Tree, Measures]:
    """-> the report (its leaves still Figures: `to_json`) and the measures of every mask, in the order of the pairs."""
    measures = measure(pairing.pairs)
    everyone = describe(measures, pairing.pairs, [truth for truth, _ in pairing.left_out], replicates, seed)
    groups = {ALL: _with_shares(everyone)}
    names = sorted(set(measures.source))
    if len(names) > 1:
        apart = {}
        for name in names:
            rows = np.flatnonzero(measures.source == name)
            left_out = [truth for truth, _ in pairing.left_out if truth.source == name]
            pairs = [pairing.pairs[row] for row in rows]
            apart[str(name)] = describe(measures.take(rows), pairs, left_out, replicates, seed)
        mean = _mean_tree(list(apart.values()))
        groups |= {name: _with_shares(group) for name, group in {**apart, MEAN: mean}.items()}
    return {"version": VERSION, "counts": _counts(pairing), "groups": groups}, measures


def to_json(tree: Any) -> Any:
    """Plain JSON values: Figures as {"value", "low", "high"}, what is undefined as null."""
    if isinstance(tree, dict):
        return {str(key): to_json(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple | np.ndarray):
        return [to_json(value) for value in tree]
    if isinstance(tree, Figure):
        low, high = tree.interval()
        return {"value": to_json(tree.value), "low": to_json(low), "high": to_json(high)}
    if isinstance(tree, np.generic):
        return to_json(tree.item())
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _counts(pairing: Pairing) -> Tree:
    return {
        "ground_truth": len(pairing.pairs) + len(pairing.left_out) + sum(pairing.not_asked.values()),
        "measured": len(pairing.pairs),
        "left_out": dict(Counter(reason for _, reason in pairing.left_out)),
        "not_asked": dict(pairing.not_asked),
        "without_truth": pairing.without_truth,
        "other_image": pairing.other_image,
    }


def _with_shares(group: Tree) -> Tree:
    """Add how much of the ungated gain, and of the best possible gain, in mean IoU the gate keeps."""
    gains = group.get("gains", {})
    shares = {"kept_share_of_gain": "refined", "share_of_oracle_gain": "oracle"}
    found = {
        share: gains["mask"]["mean_iou"] / gains[side]["mean_iou"]
        for share, side in shares.items()
        if side in gains and gains[side]["mean_iou"].value > 0  # a share of a loss means nothing
    }
    return {**group, "gate": {**group["gate"], **found}}


def _mean_tree(trees: Sequence[Tree]) -> Tree:
    """Leaf by leaf, the mean of Figures and of floats that all trees have; counts, texts and lists have no mean."""
    mean: Tree = {}
    for key, first in trees[0].items():
        values = [tree.get(key) for tree in trees]
        if any(type(value) is not type(first) for value in values):
            continue
        if isinstance(first, dict):
            mean[key] = _mean_tree(values)  # type: ignore[arg-type]  # all are dicts here
        elif isinstance(first, Figure):
            mean[key] = mean_figure(values)  # type: ignore[arg-type]  # all are Figures here
        elif isinstance(first, float):
            mean[key] = float(np.mean(np.array(values, dtype=np.float64)))
    return mean
