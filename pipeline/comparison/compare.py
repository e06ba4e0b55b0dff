"""Two sides -> what differs between them: figures for every group of masks, and the masks that show it best."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.comparison import measure
from pipeline.comparison.join import Joined, joined
from pipeline.comparison.measure import ADDED, CHANGED, REMOVED, Change, Tally
from pipeline.comparison.sides import Row, Side

NO_CATEGORY = "–"


@dataclass(frozen=True)
class Example:
    """A mask to look at, with its image."""

    image: Row
    change: Change


@dataclass
class Difference:
    """What `compare` found.

    images: by `both`, `before` and `after`, the sides that have them; failed: rows without a mask, by side; groups:
    figures by kind of group (`category`, `size`, `decision`) and its name; decisions: (before, after) of masks that
    have another; relabelled, recrowded, resized: changed masks of another class, a crowd on one side only, or in an
    image of another size; examples: by state.
    """

    names: tuple[str, str]
    all: Tally = field(default_factory=Tally)
    groups: dict[str, dict[str, Tally]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Tally)))
    images: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    relabelled: int = 0
    recrowded: int = 0
    resized: int = 0
    examples: Mapping[str, list[Example]] = field(default_factory=dict)


def compare(before: Side, after: Side, per_state: int) -> Difference:
    """Every mask of either side, joined by image and mask id. per_state: examples of each state, at most."""
    found = Difference((before.name, after.name))
    chosen = {state: _Chosen(per_state) for state in (CHANGED, ADDED, REMOVED)}
    for image in joined(before, after):
        _count_image(image, found)
        for change in measure.changes(image.before, image.after):
            _count(change, found)
            if change.state in chosen:
                chosen[change.state].offer(image.image, change)
    found.examples = {state: one.examples() for state, one in chosen.items()}
    return found


def _count_image(image: Joined, found: Difference) -> None:
    side = (
        "both"
        if image.before is not None and image.after is not None
        else "after"
        if image.before is None
        else "before"
    )
    found.images[side] += 1
    found.failed["before"] += measure.failed(image.before)
    found.failed["after"] += measure.failed(image.after)


def _count(change: Change, found: Difference) -> None:
    row = change.row
    names = {
        "category": row["category"] or NO_CATEGORY,
        "size": measure.size_of(change.before or row),
        "decision": row["decision"] or NO_CATEGORY,
    }
    for tally in (found.all, *(found.groups[kind][name] for kind, name in names.items())):
        tally.add(change)
    if change.both:
        first, second = change.both
        found.relabelled += measure.relabelled(first, second)
        found.recrowded += measure.recrowded(first, second)
        found.resized += change.iou is None
        if first["decision"] != second["decision"]:
            found.decisions[str(first["decision"]), str(second["decision"])] += 1


class _Chosen:
    """The `most` masks with the lowest IoU; of those without one a random choice that is the same every time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: list[tuple[float, str, Any]] = []  # the one to go first on top

    def offer(self, image: Row, change: Change) -> None:
        mask_id = change.row["mask_id"]
        chance = hashlib.sha256(mask_id.encode()).hexdigest()
        entry = (-(change.iou if change.iou is not None else 0.0), chance, Example(image, change))
        if len(self._held) < self._most:
            heapq.heappush(self._held, entry)
        elif self._held and entry[:2] > self._held[0][:2]:
            heapq.heapreplace(self._held, entry)

    def examples(self) -> list[Example]:
        return [one for _, _, one in sorted(self._held, key=lambda entry: entry[:2], reverse=True)]
