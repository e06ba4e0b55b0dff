"""The report as tables for a terminal. Figures are points of 100, with their 95 % interval in brackets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.evaluation.bootstrap import Figure
from pipeline.evaluation.report import ALL
from pipeline.evaluation.summary import Tree
from pipeline.words import plural

SIDE_NAMES = {"coarse": "coarse", "refined": "refined", "mask": "label", "oracle": "oracle"}
METRIC_NAMES = {"mean_iou": "IoU", "cumulative_iou": "cum. IoU", "boundary_iou": "bIoU", "boundary_accuracy": "mBA"}
LEGEND = (
    "Points of 100. coarse: what came in; refined: always refining; label: what the gate kept; oracle: the better of "
    "coarse and refined, mask by mask. IoU: mean; cum. IoU: total intersection over total union; bIoU: boundary IoU; "
    "mBA: mean boundary accuracy; AP, bAP: mask and boundary average precision; [low,high]: 95 % interval from "
    "resampling images."
)
GROUP_WIDTH, NAME_WIDTH = 10, 12  # so that the intervals have room on a terminal of 80 columns
MOST_CATEGORIES = 20


def tables(report: Tree) -> Group:
    """Everything that a terminal has room for; the JSON has all."""
    groups: Tree = report["groups"]
    parts: list[Any] = [_prose(_accounts(report["counts"], groups[ALL])), _prose(LEGEND), _levels(groups)]
    if "gains" in groups[ALL]:
        parts += [_gains(groups), _harm(groups)]
    if groups[ALL]["gate"]:
        parts += [_gate(groups), _decisions(groups)]
    if groups[ALL]["scores"]:
        parts += [_ranking(groups), _errors(groups)]
    parts += [_bins(f"By {title}", groups[ALL][key]) for key, title in _bin_tables(groups[ALL])]
    return Group(*(piece for part in parts for piece in (part, "")))


def _prose(text: str) -> Text:
    """Wrapped between words, on a console that leaves the wrapping to the terminal, too."""
    return Text(text, no_wrap=False, overflow="fold")


def _accounts(counts: Tree, everyone: Tree) -> str:
    """One paragraph: where every annotation went."""
    lines = [
        f"{counts['measured']} of {plural(counts['ground_truth'], 'annotation')} measured, on "
        f"{plural(everyone['images'], 'image')}.",
    ]
    if counts["left_out"]:
        zero = points(everyone["mean_iou_left_out_as_zero"])
        lines.append(
            f"Left out: {_listed(counts['left_out'])}. Counted as IoU 0, mean IoU would be {zero} (and AP counts them)."
        )
    if counts["not_asked"]:
        lines.append(f"Nothing to compare with: {_listed(counts['not_asked'])}.")
    if counts["without_truth"]:
        lines.append(
            f"Not looked at: {plural(counts['without_truth'], 'prediction')} without an annotation in the ground truth."
        )
    if counts["other_image"]:
        lines.append(
            f"Warning: {plural(counts['other_image'], 'pair')} of images with other file names; do the ids fit?"
        )
    return "\n".join(lines)


def _levels(groups: Tree) -> Table:
    table = _table("Agreement with the truth", "group", "labels", "masks", *METRIC_NAMES.values(), "AP", "bAP")
    for name, group in groups.items():
        for position, (side, level) in enumerate(group["levels"].items()):
            precision = group["precision"].get(side, {})
            table.add_row(
                "" if position else name,
                SIDE_NAMES[side],
                str(group.get("masks", "")),
                *(points(level[metric]) for metric in METRIC_NAMES),
                *(points(precision[kind]["ap"]) if kind in precision else "" for kind in ("mask", "boundary")),
            )
        table.add_section()
    return table


def _gains(groups: Tree) -> Table:
    table = _table("Gain over the coarse masks (paired, by image)", "group", "labels", *METRIC_NAMES.values())
    for name, group in groups.items():
        for side, gain in group["gains"].items():
            table.add_row(name, SIDE_NAMES[side], *(interval(gain[metric], signed=True) for metric in METRIC_NAMES))
        table.add_section()
    return table


def _harm(groups: Tree) -> Table:
    table = _table(
        "Masks made worse (IoU below the coarse mask's)",
        *("group", "labels", "better %", "worse %", "worse by >2, %", "mean loss", "largest"),
    )
    for name, group in groups.items():
        for side, harm in group["harm"].items():
            table.add_row(
                name,
                SIDE_NAMES[side],
                points(harm["better"]),
                points(harm["worse"]),
                interval(harm["worse_by_2_points"]),
                points(harm["mean_loss_of_worse"]),
                points(harm["largest_loss"]),
            )
        table.add_section()
    return table


def _gate(groups: Tree) -> Table:
    table = _table(
        "Gate: share accepted, and the gain kept of always refining and of the oracle",
        *("group", "accepted %", "of refined %", "of oracle %"),
    )
    for name, group in groups.items():
        gate = group["gate"]
        table.add_row(
            name,
            *(interval(gate[key]) if key in gate else "" for key in ("acceptance", "kept_share_of_gain")),
            interval(gate["share_of_oracle_gain"]) if "share_of_oracle_gain" in gate else "",
        )
    return table


def _decisions(groups: Tree) -> Table:
    table = _table("Decisions of the gate, and their reasons, in masks", "group", "decisions", "reasons")
    for name, group in groups.items():
        gate = group["gate"]
        if gate.get("decisions"):
            table.add_row(name, *("\n".join(_by_count(gate.get(key, {}))) for key in ("decisions", "reasons")))
            table.add_section()
    return table


def _ranking(groups: Tree) -> Table:
    table = _table(
        "Do scores rank masks by their true IoU? (AUROC: of IoU < 0.8)",
        *("group", "score", "Spearman", "AUROC", "risk area\n(ideal)"),
    )
    for name, score, tree in _by_score(groups, table):
        risk = f"{points(tree['risk_area'])} ({points(tree['ideal_risk_area'])})"
        table.add_row(name, score, _fraction(tree["spearman"]), _fraction(tree["auroc"]), risk)
    return table


def _errors(groups: Tree) -> Table:
    table = _table(
        "How far are scores from the true IoU? (ECE: expected calibration error)",
        *("group", "score", "abs. error", "ECE", "bias"),
    )
    for name, score, tree in _by_score(groups, table):
        sizes = [interval(tree[key]) for key in ("mean_absolute_error", "calibration_error")]
        table.add_row(name, score, *sizes, interval(tree["bias"], signed=True))
    return table


def _by_score(groups: Tree, table: Table) -> Iterator[tuple[str, str, Tree]]:
    """(group, score, figures) of each row; a section of the table for each group."""
    for name, group in groups.items():
        for score, tree in group["scores"].items():
            yield name, score.replace(" of ", "\nof "), tree
        table.add_section()


def _bin_tables(group: Tree) -> list[tuple[str, str]]:
    names = {"by_coarse_iou": "IoU of the coarse mask", "by_size": "size of the object", "by_category": "category"}
    return [(key, title) for key, title in names.items() if key in group]


def _bins(title: str, rows: list[Tree]) -> Table:
    with_coarse = "gain" in rows[0]
    with_precision = "mask_ap" in rows[0]
    columns = ["", "masks", "IoU", "bIoU"]
    columns += ["gain", "bIoU gain", "worse by\n>2, %"] if with_coarse else []
    columns += ["AP\nbAP"] if with_precision else []
    shown = rows
    if len(rows) > MOST_CATEGORIES:
        shown = sorted(rows, key=lambda row: -row["masks"])[:MOST_CATEGORIES]
        title += f" (the {MOST_CATEGORIES} most frequent of {len(rows)}; all in the JSON)"
    table = _table(title, *columns)
    table.columns[0].max_width = NAME_WIDTH
    for row in shown:
        cells = [row["name"], str(row["masks"]), points(row["mean_iou"]), points(row["boundary_iou"])]
        if with_coarse:
            cells += [interval(row["gain"], signed=True), interval(row["boundary_gain"], signed=True)]
            cells.append(points(row["worse_by_2_points"]))
        if with_precision:
            cells.append(f"{points(row['mask_ap'])}\n{points(row['boundary_ap'])}")
        table.add_row(*cells)
    return table


def points(value: Figure | float) -> str:
    """A fraction as points of 100 with one decimal; a dash where undefined."""
    number = value.value if isinstance(value, Figure) else value
    return f"{100 * number:.1f}" if math.isfinite(number) else "–"


def interval(figure: Figure, signed: bool = False) -> str:
    """A figure as points, with its interval: 2.3 [1.1,3.4]."""
    form = "{:+.1f}" if signed else "{:.1f}"
    if not math.isfinite(figure.value):
        return "–"
    low, high = figure.interval()
    return f"{form.format(100 * figure.value)} [{form.format(100 * low)},{form.format(100 * high)}]"


def _fraction(figure: Figure) -> str:
    low, high = figure.interval()
    return f"{figure.value:.3f} [{low:.3f},{high:.3f}]" if math.isfinite(figure.value) else "–"


def _listed(counts: Tree) -> str:
    return ", ".join(_by_count(counts))


def _by_count(counts: Tree) -> list[str]:
    return [f"{name or 'none'} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]


def _table(title: str, *columns: str) -> Table:
    """A plain table; nothing is cut off where a terminal is narrow."""
    style: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(title=title, title_justify="left", title_style="bold", **style)
    for index, column in enumerate(columns):
        is_text = index == 0 or column in {"labels", "score", "decisions", "reasons"}
        width = GROUP_WIDTH if column == "group" else None
        table.add_column(column, justify="left" if is_text else "right", max_width=width, overflow="fold")
    return table
