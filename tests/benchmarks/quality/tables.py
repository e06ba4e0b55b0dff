"""Measured rows -> the tables of RESULTS.md, in markdown. All figures are of dev-B; nothing is fitted here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from pipeline.evaluation.scores import spearman
from schemas.calibration import Calibration
from schemas.config import Gate
from tests.benchmarks.lite_dev import DEV_KINDS
from tests.benchmarks.lite_tables import IOU_BINS, SIZES
from tests.benchmarks.quality.cases import MEASURED, family
from tests.benchmarks.quality.collect import Row
from tests.benchmarks.quality.figures import (
    Table,
    by_source,
    error_with_interval,
    harmed,
    kept_boundary_share,
    kept_share,
    mean,
    points,
    rank_correlation,
    table,
    with_interval,
)

GATE = Gate()


def head(*names: str) -> list[str]:
    """A table's first two lines."""
    return ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]


def line(*cells: object) -> str:
    """A table's row."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def arrow(masks: Table) -> str:
    """Coarse, always refined and kept IoU, mean of the sources."""
    return " → ".join(f"{mean(masks, values):.3f}" for values in (masks.coarse, masks.refined, masks.kept))


def share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}"


def ungated_table(rows: Sequence[Row]) -> str:
    """Always refine: error removed, and what the predicted IoU knows (Spearman as `lite_quality` has it)."""
    lines = head("kind", "IoU", "gain [95 %]", "boundary IoU", "error removed", "Spearman of predicted IoU")
    removed, known = [], []
    whole = table(rows, None)
    for kind in (kind for kind in (*MEASURED, "true") if kind in whole.kind):
        mine = whole.of(kind)
        before, after = mean(mine, mine.coarse), mean(mine, mine.refined)
        edges = f"{mean(mine, mine.coarse_boundary):.3f} → {mean(mine, mine.refined_boundary):.3f}"
        cells = [f"{before:.3f} → {after:.3f}", with_interval(mine, mine.refined - mine.coarse), edges]
        if kind != "true":
            removed.append((after - before) / (1 - before))
            known.append(spearman(mine.predicted_iou, mine.refined))
            cells += [f"{removed[-1]:.1%}", f"{known[-1]:.2f}"]
        lines.append(line(kind, *cells, *[""] * (5 - len(cells))))
    five = len(DEV_KINDS)
    lines.append(
        line("mean of five", "", "", "", f"**{np.mean(removed[:five]):.1%}**", f"**{np.mean(known[:five]):.3f}**")
    )
    return "\n".join(lines)


def sizes_table(rows: Sequence[Row], calibration: Calibration) -> str:
    """Coarse, always refined, kept, by object size and by coarse IoU; the five kinds and both sources pooled."""
    masks = table([row for row in rows if row["kinds"][0] in DEV_KINDS], calibration, GATE)
    lines = head("masks that", "number", "coarse → always → gate", "better", "worse by > 2")
    bins = [(name, masks.area, low, high) for name, (low, high) in SIZES.items()]
    bins += [(f"start at {a:.1f}–{min(b, 1.0):.1f} IoU", masks.coarse, a, b) for a, b in pairwise(IOU_BINS)]
    for name, values, low, high in bins:
        mine = masks.take((values >= low) & (values < high))
        if len(mine.kept):
            cells = " → ".join(f"{column.mean():.3f}" for column in (mine.coarse, mine.refined, mine.kept))
            better = float(np.mean(mine.kept > mine.coarse))
            lines.append(line(name, len(mine.kept), cells, f"{better:.0%}", f"{harmed(mine):.1%}"))
    return "\n".join(lines)


def left_out_table(rows: Sequence[Row], apart: Mapping[str, Calibration]) -> str:
    """Each kind with everything fitted without its family."""
    lines = head("kind", *GATED, "Spearman", "calibration error")
    for kind in MEASURED:
        masks = table([row for row in rows if kind in row["kinds"]], apart[family(kind)], GATE)
        known = f"{rank_correlation(masks, masks.quality):.2f}"
        lines.append(line(f"{family(kind)}: {kind}", *gated(masks), known, error_with_interval(masks, masks.quality)))
    return "\n".join(lines)


GATED = ("coarse → always → gate", "gain kept", "boundary IoU", "gain kept", "worse by > 2")


def gated(masks: Table) -> list[str]:
    """The cells under GATED."""
    edges = (masks.coarse_boundary, masks.refined_boundary, masks.kept_boundary)
    return [
        arrow(masks),
        share(kept_share(masks)),
        " → ".join(f"{mean(masks, values):.3f}" for values in edges),
        share(kept_boundary_share(masks)),
        f"{harmed(masks):.1%}",
    ]


def kinds_table(masks: Table) -> str:
    """The default, gate included, on each kind and source."""
    lines = head("kind", "COCO IoU", "Penn-Fudan IoU", "mean IoU", "gain [95 %]", "mean boundary IoU", "gain [95 %]")
    for kind in (*MEASURED, "true"):
        mine = masks.of(kind)
        cells = [
            f"{a:.3f} → {b:.3f}" for a, b in zip(by_source(mine, mine.coarse), by_source(mine, mine.kept), strict=True)
        ]
        edges = f"{mean(mine, mine.coarse_boundary):.3f} → {mean(mine, mine.kept_boundary):.3f}"
        gain = with_interval(mine, mine.kept - mine.coarse)
        lines.append(line(kind, *cells, gain, edges, with_interval(mine, mine.kept_boundary - mine.coarse_boundary)))
    return "\n".join(lines)


def paired(masks: Table, other: Table) -> tuple[Table, Table]:
    """The masks that both have, in one order."""
    first = {key: index for index, key in enumerate(zip(masks.mask_id, masks.kind, strict=True))}
    second = {key: index for index, key in enumerate(zip(other.mask_id, other.kind, strict=True))}
    both = [key for key in first if key in second]
    return (
        masks.take(np.array([first[key] for key in both], np.int64)),
        other.take(np.array([second[key] for key in both], np.int64)),
    )


def baselines_table(masks: Table, baselines: Mapping[str, Sequence[Row]]) -> str:
    """Default minus baseline (which always refines), paired, in points of IoU and of boundary IoU."""
    lines = head("baseline", *DEV_KINDS, "mean of kinds", "masks")
    for name, rows in baselines.items():
        other = table(rows, None)
        for what, mine_of, their_of in (
            ("IoU", "kept", "refined"),
            ("boundary IoU", "kept_boundary", "refined_boundary"),
        ):
            cells, means, count = [], [], 0
            for kind in DEV_KINDS:
                mine, theirs = paired(masks.of(kind), other.of(kind))
                difference = getattr(mine, mine_of) - getattr(theirs, their_of)
                cells.append(with_interval(mine, difference))
                means.append(mean(mine, difference))
                count += len(difference)
            lines.append(line(f"{name}, {what}", *cells, f"**{points(float(np.mean(means)))}**", count))
    return "\n".join(lines)


def gate_table(masks: Table) -> str:
    """What the gate did on each kind."""
    lines = head(
        "kind", "coarse → always → gate", "best possible gate", "gain kept", "refined", "worse by > 2", "always"
    )
    for kind in (*MEASURED, "true"):
        mine = masks.of(kind)
        best = mean(mine, np.maximum(mine.coarse, mine.refined))
        always = float(np.mean(mine.refined < mine.coarse - 0.02))
        lines.append(
            line(
                kind,
                arrow(mine),
                f"{best:.3f}",
                share(kept_share(mine)),
                f"{mine.took.mean():.0%}",
                f"{harmed(mine):.1%}",
                f"{always:.1%}",
            )
        )
    five = masks.take(np.isin(masks.kind, DEV_KINDS))
    lines.append(line("five kinds pooled", "", "", "", f"{five.took.mean():.0%}", f"**{harmed(five):.1%}**", ""))
    return "\n".join(lines)


def score_table(masks: Table) -> str:
    """What quality knows of the kept mask's IoU, and the model's own predicted IoU beside it."""
    lines = head("kind", "Spearman of quality", "of predicted IoU", "calibration error of quality", "of predicted IoU")
    own, theirs = [], []
    for kind in MEASURED:
        mine = masks.of(kind)
        own.append(rank_correlation(mine, mine.quality))
        theirs.append(rank_correlation(mine, mine.predicted_iou))
        errors = [error_with_interval(mine, score) for score in (mine.quality, mine.predicted_iou)]
        lines.append(line(kind, f"{own[-1]:.2f}", f"{theirs[-1]:.2f}", *errors))
    five = masks.take(np.isin(masks.kind, DEV_KINDS))
    errors = [error_with_interval(five, score) for score in (five.quality, five.predicted_iou)]
    count = len(DEV_KINDS)
    lines.append(
        line(
            "five kinds",
            f"**{np.mean(own[:count]):.2f}**",
            f"{np.mean(theirs[:count]):.2f}",
            f"**{errors[0]}**",
            errors[1],
        )
    )
    return "\n".join(lines)


def controls_table(rows: Mapping[str, Sequence[Row]], calibration: Calibration) -> str:
    """Gain with the photograph, with grey, with another photograph; ungated and gated."""
    lines = head("seen", "always refine", "share of the real gain", "with the gate", "share")
    real: tuple[float, float] | None = None
    for name, seen in rows.items():
        masks = table([row for row in seen if row["kinds"][0] in DEV_KINDS], calibration, GATE)
        gains = mean(masks, masks.refined - masks.coarse), mean(masks, masks.kept - masks.coarse)
        real = real or gains
        cells = [
            text for gain, whole in zip(gains, real, strict=True) for text in (points(gain), f"{gain / whole:.0%}")
        ]
        lines.append(line(name, *cells))
    return "\n".join(lines)


def presets_table(presets: Mapping[str, tuple[Sequence[Row], Calibration | None]], seconds: Mapping[str, float]) -> str:
    """Images per second relative to `fast`, and IoU with and without the gate, mean of the five kinds."""
    lines = head("preset", "speed", "IoU, always refine", "boundary", "IoU, with the gate", "boundary", "masks")
    for name, (rows, calibration) in presets.items():
        masks = table([row for row in rows if row["kinds"][0] in DEV_KINDS], calibration, GATE)
        columns = (masks.refined, masks.refined_boundary, masks.kept, masks.kept_boundary)
        cells = [f"{mean(masks, column):.4f}" for column in columns]
        cost = f"{seconds['fast'] / seconds[name]:.2f}" if name in seconds else "-"
        lines.append(line(name, cost, *cells, len(masks.kept)))
    return "\n".join(lines)
