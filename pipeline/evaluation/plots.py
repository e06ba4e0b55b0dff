"""The report as pictures, with matplotlib (the extra `plots`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import RefusedError
from pipeline.evaluation.measures import Measures
from pipeline.evaluation.report import ALL
from pipeline.evaluation.summary import Tree
from pipeline.extras import require

SIZE_INCHES = (5.0, 4.0)
DPI = 150


def check_available() -> None:
    """Refuse, before any work, where matplotlib is not installed."""
    require("matplotlib", "plots", "--plots")


def draw(report: Tree, measures: Measures, folder: Path) -> list[Path]:
    """Write the plots that the data allow as PNG into `folder`, made if absent; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    everyone = report["groups"][ALL]
    written = []
    if everyone["scores"]:
        written += [
            _save(_reliability(everyone["scores"]), folder / "reliability.png"),
            _save(_risk_coverage(everyone["scores"]), folder / "risk_coverage.png"),
        ]
    if "coarse" in measures.sides:
        written += [
            _save(_before_and_after(measures), folder / "iou_before_and_after.png"),
            _save(_gain_by_coarse_iou(everyone["by_coarse_iou"]), folder / "gain_by_coarse_iou.png"),
        ]
    if not written:
        raise RefusedError("nothing to plot: the predictions have no scores and no coarse masks (give --coarse)")
    return written


def _axes(title: str, x_label: str, y_label: str) -> Any:
    # Figure, not pyplot: no global state and no display
    from matplotlib.figure import Figure  # an extra

    axes = Figure(figsize=SIZE_INCHES, layout="constrained").subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return axes


def _save(axes: Any, path: Path) -> Path:
    axes.figure.savefig(path, dpi=DPI)
    return path


def _reliability(scores: Tree) -> Any:
    axes = _axes("Is a score the IoU that it promises?", "mean score of a bin (10 of equal mass)", "mean IoU of a bin")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
    for name, tree in scores.items():
        bins = tree["curves"]["reliability"]
        axes.plot(bins["score"], bins["iou"], marker="o", markersize=4, label=name)
    axes.legend()
    return axes


def _risk_coverage(scores: Tree) -> Any:
    axes = _axes("Keeping only the best-scored masks", "share of masks kept", "mean 1 - IoU of those kept")
    for name, tree in scores.items():
        curve = tree["curves"]["risk_coverage"]
        axes.plot(curve["coverage"], curve["risk"], label=name)
    axes.set_ylim(bottom=0)
    axes.legend()
    return axes


def _before_and_after(measures: Measures) -> Any:
    axes = _axes("Every mask, before and after", "IoU of the coarse mask", "IoU of the label")
    axes.scatter(measures.sides["coarse"].iou, measures.sides["mask"].iou, s=8, alpha=0.5)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
    return axes


def _gain_by_coarse_iou(rows: list[Tree]) -> Any:
    axes = _axes("Gain by how good the mask already was", "IoU of the coarse mask", "gain in IoU, 95 % interval")
    gains = [row["gain"] for row in rows]
    values = [gain.value for gain in gains]
    # a percentile interval need not hold the value itself when a bin has few images: no negative bar lengths
    below = [max(0.0, gain.value - gain.interval()[0]) for gain in gains]
    above = [max(0.0, gain.interval()[1] - gain.value) for gain in gains]
    axes.bar([f"{row['name']}\n({row['masks']})" for row in rows], values, yerr=[below, above], capsize=3)
    axes.axhline(0, color="black", linewidth=0.8)
    return axes
