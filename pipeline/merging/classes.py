"""The classes of the second annotation in the numbers of the first: joined by name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

Class = tuple[int, str]


class Classes(NamedTuple):
    """all: number -> name of the merged classes; of_second: the second's class -> its number there, None where it is
    left out; new, left: names of classes that the first does not have, taken or not.
    """

    all: dict[int, str]
    of_second: dict[Class, int | None]
    new: list[str]
    left: list[str]


def join(first: Iterable[Class], second: Iterable[Class], names: Mapping[str, str], only_known: bool) -> Classes:
    """names: of the second's classes, what they are called in the first; by default the same name, however it is spelt.

    A new class keeps its number where the first does not have it. only_known: new classes are left out.
    """
    found = dict(sorted(first))
    known = {normalised(name): number for number, name in sorted(found.items(), reverse=True)}
    of_second: dict[Class, int | None] = {}
    new: list[str] = []
    left: list[str] = []
    for number, name in sorted(second):
        called = names.get(name, name)
        own = known.get(normalised(called))
        if own is None and only_known:
            left.append(name)
        elif own is None:
            own = number if number >= 0 and number not in found else max(found, default=0) + 1
            found[own], known[normalised(called)] = called, own
            new.append(called)
        of_second[number, name] = own
    return Classes(found, of_second, new, left)


def normalised(name: str) -> str:
    """A name without what spellings differ in: `Teddy_Bear` and `teddy bear` are one."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
