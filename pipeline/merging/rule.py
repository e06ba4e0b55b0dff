"""Which of two annotations an image's masks of one class are taken from. Pure.

The one with more instances wins, since an annotation misses objects more often than it invents them; the first where
both have as many. What the second has not annotated exhaustively (LVIS says so of an image) is not taken from it. Crowd
regions are no instances: those of the first stay, and those of the second come only with a class that the first lacks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

FIRST, SECOND = 0, 1
KEPT, REPLACED, ADDED, NOT_EXHAUSTIVE = "kept", "replaced", "added", "not exhaustive"

Mask = dict[str, Any]
"""`category_id`: in the common numbers; `crowd`; whatever else."""


class Choice(NamedTuple):
    """One class in one image. outcome: why; side: which of the two its masks are of."""

    category_id: int
    outcome: str
    masks: list[tuple[int, Mask]]


def choose(first: Sequence[Mask], second: Sequence[Mask], not_exhaustive: Collection[int] = ()) -> list[Choice]:
    """The masks of one image, by class. not_exhaustive: classes of which the second has not annotated every object."""
    sides = [_by_class(masks) for masks in (first, second)]
    return [
        _choice(number, sides[FIRST][number], sides[SECOND][number], number in not_exhaustive)
        for number in sorted(sides[FIRST].keys() | sides[SECOND].keys())
    ]


def _choice(number: int, first: Sequence[Mask], second: Sequence[Mask], not_exhaustive: bool) -> Choice:
    own = [(FIRST, mask) for mask in first]
    others = [(SECOND, mask) for mask in second]
    if second and not_exhaustive:
        return Choice(number, NOT_EXHAUSTIVE, own)
    if not first:
        return Choice(number, ADDED, others)
    if _instances(second) > _instances(first):
        crowds = [one for one in own if one[1]["crowd"]]
        return Choice(number, REPLACED, crowds + [one for one in others if not one[1]["crowd"]])
    return Choice(number, KEPT, own)


def _instances(masks: Sequence[Mask]) -> int:
    return sum(not mask["crowd"] for mask in masks)


def _by_class(masks: Sequence[Mask]) -> defaultdict[int, list[Mask]]:
    found: defaultdict[int, list[Mask]] = defaultdict(list)
    for mask in masks:
        found[mask["category_id"]].append(mask)
    return found
