"""The figures as tables for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

from pipeline.comparison.compare import Difference, Example
from pipeline.comparison.measure import BINS, SAME, STATES, Tally
from pipeline.words import one_line, plural

MOST_CATEGORIES = 20
MOST_EXAMPLES = 5
BAR_WIDTH = 40
KINDS = {"category": "By category", "size": "By size, before", "decision": "By decision, after"}


def tables(found: Difference) -> Group:
    """Everything that a terminal has room for."""
    parts: list[Any] = ["\n".join(sentences(found)), "", histogram(found.all)]
    parts += [_table(title, ranked(found, kind), kind) for kind, title in KINDS.items()]
    parts += ["\n".join(_example_lines(found))]
    return Group(*parts)


def sentences(found: Difference) -> list[str]:
    """What differs, in words."""
    before, after = found.names
    counts = found.all.states
    lines = [
        f"{before} -> {after}: " + ", ".join(f"{counts[state]:,} {state}" for state in STATES),
        f"images: {found.images['both']:,} in both, {found.images['after']:,} only after, "
        f"{found.images['before']:,} only before",
    ]
    if not found.all.measured and counts.total():
        lines.append("no mask of one side has the id of one of the other: masks are joined by image and source id")
    notes = {
        "of another class": found.relabelled,
        "a crowd on one side only": found.recrowded,
        "whose images have another size": found.resized,
    }
    lines += [f"{plural(count, 'mask')} {what}" for what, count in notes.items() if count]
    if found.failed.total():
        lines.append(
            f"failed rows, which have no mask: {found.failed['before']:,} before, {found.failed['after']:,} after"
        )
    moved = sorted(found.decisions.items(), key=lambda entry: (-entry[1], entry[0]))
    lines += [f"decision {first} -> {second}: {count:,}" for (first, second), count in moved]
    return lines


def histogram(tally: Tally) -> str:
    """IoU of the masks that differ, a line for each bin that has one."""
    counts = differing(tally)
    top = max(counts, default=0)
    if not top:
        return "no mask that is on both sides has another outline"
    rows = [
        f"{number / BINS:.2f}  {'█' * max(1, round(count / top * BAR_WIDTH))} {count:,}"
        for number, count in enumerate(counts)
        if count
    ]
    return "\n".join(["IoU of masks that differ (from, masks)", *rows])


def differing(tally: Tally) -> list[int]:
    """The histogram of IoU without the masks that are the same."""
    counts: list[int] = tally.ious.tolist()
    return [*counts[:-1], max(0, counts[-1] - tally.states[SAME])]


def ranked(found: Difference, kind: str) -> list[tuple[str, Tally]]:
    """The groups of a kind, those with the most differences first."""
    groups = found.groups[kind].items()
    return sorted(groups, key=lambda entry: (entry[1].states[SAME] - entry[1].states.total(), entry[0]))


def cells(tally: Tally) -> list[str]:
    """One line of a table: masks by state, mean IoU, mean change of area."""
    known = tally.as_dict()
    iou, area = known["mean_iou"], known["mean_area_change"]
    return [
        *(f"{tally.states[state]:,}" for state in STATES),
        "–" if iou is None else f"{iou:.3f}",
        "–" if area is None else f"{100 * area:+.1f} %",
    ]


HEADS = (*STATES, "mean IoU", "mean area change")


def to_json(found: Difference, unread: Mapping[str, str]) -> dict[str, Any]:
    """Every figure. unread: image -> why the page has no picture of it."""
    return {
        "before": found.names[0],
        "after": found.names[1],
        "images": dict(found.images),
        "failed": dict(found.failed),
        "all": found.all.as_dict(),
        "groups": {kind: {name: one.as_dict() for name, one in ranked(found, kind)} for kind in KINDS},
        "decisions": [[*names, count] for names, count in sorted(found.decisions.items())],
        "relabelled": found.relabelled,
        "recrowded": found.recrowded,
        "resized": found.resized,
        "examples": {state: [_example(one) for one in some] for state, some in found.examples.items()},
        "unread": [{"image_uri": image, "why": why} for image, why in sorted(unread.items())],
    }


def _example(one: Example) -> dict[str, Any]:
    row = one.change.row
    names = ("mask_id", "source_mask_id", "category")
    return {"image_uri": one.image["image_uri"], **{name: row[name] for name in names}, "iou": one.change.iou}


def _table(title: str, groups: list[tuple[str, Tally]], kind: str) -> Table:
    table = Table(
        title_justify="left",
        title=title if len(groups) <= MOST_CATEGORIES else f"{title} (the {MOST_CATEGORIES} that differ most)",
    )
    table.add_column(kind)
    for head in HEADS:
        table.add_column(head, justify="right")
    for name, tally in groups[:MOST_CATEGORIES]:
        table.add_row(one_line(name), *cells(tally))
    return table


def _example_lines(found: Difference) -> Iterator[str]:
    for state, some in found.examples.items():
        for one in some[:MOST_EXAMPLES]:
            said = _example(one)
            iou = "" if one.change.iou is None else f", IoU {one.change.iou:.2f}"
            yield one_line(f"{state}: {said['image_uri']}, {said['category']} {said['source_mask_id']}{iou}")
