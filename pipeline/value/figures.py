"""What trials showed: means, differences, and intervals that hold for other images and other seeds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from pipeline.evaluation.bootstrap import Figure
from pipeline.evaluation.measures import Floats
from pipeline.evaluation.report import to_json
from pipeline.evaluation.show import interval, points
from pipeline.value.features import CIRCULAR
from pipeline.value.lessons import COARSE, FILTERED, REFINED, TITLES, WEIGHTED
from pipeline.value.trials import Trials
from pipeline.words import plural

COMPARED = ((REFINED, COARSE), (WEIGHTED, REFINED), (FILTERED, REFINED))
Tree = dict[str, Any]


def tree(trials: Trials, left_out: Counter[str], asked: Tree, replicates: int = 1000) -> Tree:
    """Every figure; Figures as leaves (`report.to_json`).

    {"labels": {kind: {"masks", "mean_iou", "by_seed", "over_coarse", "over_refined"}}, "tested", "images", "seeds",
    "steps", "left_out", ...asked}. All in fractions of 1.
    """
    draws = Draws(trials.images, len(trials.iou[COARSE]), replicates)
    means = {name: draws.mean(iou) for name, iou in trials.iou.items()}
    labels = {
        name: {
            "masks": trials.masks[name],
            "mean_iou": mean,
            "by_seed": trials.iou[name].mean(axis=1).tolist(),
            **{f"over_{other}": mean - means[other] for other in (COARSE, REFINED) if name not in (COARSE, other)},
        }
        for name, mean in means.items()
    }
    counted = {"tested": len(trials.images), "images": len(set(trials.images)), "seeds": draws.seeds}
    return {**asked, **counted, "steps": trials.steps, "left_out": dict(+left_out), "labels": labels}


class Draws:
    """B draws of the images, and of the seeds; the same for every kind of labels, so that differences are paired."""

    def __init__(self, images: list[str], seeds: int, replicates: int, seed: int = 0) -> None:
        names, self._image = np.unique(images, return_inverse=True)
        rng = np.random.default_rng(seed)
        self.seeds = seeds
        self._times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates).astype(np.float64)
        self._seed_times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), replicates) / seeds
        self._counts = np.bincount(self._image).astype(np.float64)

    def mean(self, iou: Floats) -> Figure:
        """Of (seeds, masks)."""
        sums = np.stack([np.bincount(self._image, row, len(self._counts)) for row in iou])
        drawn = np.einsum("bs,si,bi->b", self._seed_times, sums, self._times, optimize=True)
        return Figure(float(iou.mean()), drawn / (self._times @ self._counts))


def as_json(figures: Tree) -> Any:
    """Plain JSON values."""
    return to_json(figures)


def table(figures: Tree) -> Table:
    """In points of 100, with 95 % intervals."""
    title = (
        f"IoU with {figures['tested']:,} true masks on {plural(figures['images'], 'image')} not learned from; "
        f"mean of {plural(figures['seeds'], 'seed')}, {plural(figures['steps'], 'step')} each"
    )
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("learned from labels")
    for head in ("masks", "IoU", "seeds from, to", "over coarse", "over refined"):
        shown.add_column(head, justify="right")
    for name, of in figures["labels"].items():
        low, high = (points(extreme(of["by_seed"])) for extreme in (min, max))
        gains = (interval(of[key], signed=True) if key in of else "" for key in ("over_coarse", "over_refined"))
        shown.add_row(TITLES[name], f"{of['masks']:,}", points(of["mean_iou"]), f"{low}, {high}", *gains)
    return shown


def notes(figures: Tree) -> list[str]:
    """What may be said of each comparison, what was left out, and whether the judge is independent."""
    said = []
    for name, other in COMPARED:
        low, high = figures["labels"][name][f"over_{other}"].interval()
        word = "better than" if low > 0 else "worse than" if high < 0 else "cannot be told from"
        said.append(f"{TITLES[name]}: {word} {TITLES[other]}")
    if figures["left_out"]:
        said.append("masks left out: " + ", ".join(f"{why} {count:,}" for why, count in figures["left_out"].items()))
    if figures["features"] == CIRCULAR:
        said.append("features of lite: it refines masks itself, and is no independent judge of them")
    return said
