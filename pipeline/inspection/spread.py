"""A few images that show the most of a dataset, chosen while it streams by: every category that there is room for, what
is odd, what cannot be found; the rest by chance. The same input gives the same choice, in whatever order it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from heapq import heappush, heappushpop
from itertools import zip_longest

from pipeline.sources import PlannedImage

ANY = "any"
MAX_REASONS = 512
"""Categories and kinds of oddities that are looked for; further ones are shown where chance shows them."""
SHARE_BY_CHANCE = 1 / 3
FEW = 2

Ranked = tuple[int, str]
"""Minus the hash of an image's path, and the path."""


class Spread:
    """size: how many images are wanted."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._best: dict[str, list[Ranked]] = {}
        self._held: Counter[str] = Counter()
        self._rows: dict[str, list[PlannedImage]] = {}

    def add(self, image: PlannedImage) -> None:
        """One more, in any order. Rows of one image are kept together."""
        path = image.image_uri
        taken = [self._take(reason, most, path) for reason, most in _reasons(image, self._size)]
        if any(taken) or path in self._rows:
            self._rows.setdefault(path, []).append(image)

    def chosen(self) -> list[PlannedImage]:
        """The rows of at most `size` images, in the order of their paths."""
        by_chance = _in_order(self._best.get(ANY, []))
        special = _round_robin(ranked for reason, ranked in sorted(self._best.items()) if reason != ANY)
        room = self._size - min(len(by_chance), round(self._size * SHARE_BY_CHANCE))
        paths = dict.fromkeys([*special[:room], *by_chance, *special])
        return [image for path in sorted(list(paths)[: self._size]) for image in self._rows[path]]

    def _take(self, reason: str, most: int, path: str) -> bool:
        """Whether the image is among the `most` of that reason with the lowest hashes."""
        if most == 0 or (reason not in self._best and len(self._best) >= MAX_REASONS):
            return False
        best = self._best.setdefault(reason, [])
        entry = -_hash(path), path
        if entry in best:
            return True
        if len(best) < most:
            heappush(best, entry)
        elif entry <= best[0]:
            return False
        else:
            self._release(heappushpop(best, entry)[1])
        self._held[path] += 1
        return True

    def _release(self, path: str) -> None:
        self._held[path] -= 1
        if not self._held[path]:
            del self._held[path], self._rows[path]


def _reasons(image: PlannedImage, size: int) -> Iterator[tuple[str, int]]:
    """Why an image might be shown, and how many are for that reason."""
    if image.problem or image.detail:
        yield f"1 problem {image.problem or 'missing'}", FEW
    elif not image.masks:
        yield "2 no mask", FEW
    else:
        yield ANY, size
    for note in {mask.detail.partition(":")[0] for mask in image.masks if mask.detail}:
        yield f"3 odd {note}", FEW
    if any(mask.crowd for mask in image.masks):
        yield "4 crowd", FEW
    for category in {(mask.category_id, mask.category) for mask in image.masks}:
        yield f"5 category {category}", 1


def _in_order(ranked: list[Ranked]) -> list[str]:
    return [path for _, path in sorted(ranked, reverse=True)]


def _round_robin(groups: Iterator[list[Ranked]]) -> list[str]:
    """The first of each group, then the second of each, without repetition."""
    rounds = zip_longest(*(_in_order(group) for group in groups))
    return list(dict.fromkeys(path for one in rounds for path in one if path is not None))


def _hash(path: str) -> int:
    return int.from_bytes(blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
