"""What a planning pass found, and what became of it: read, or not read and why. A pure accumulator; two can be merged.

Whatever lies below `--masks` is read, unread, or ignored (by name, or because it is no mask by design); an image below
`--images` is planned, or belongs to no mask. Sources tell as they go; the helpers that they share tell for them.

Counts are held by kind and reason, with the first names of each; what was not read goes to a temporary file.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from heapq import nsmallest
from typing import Any

FIRST_NAMES = 3
OTHERS = "(others)"
MAX_CATEGORIES = 10_000
MASKS, IMAGES = "masks", "images"
READ, UNREAD, IGNORED, UNNAMED, ODD = "read", "unread", "ignored", "unnamed", "odd"

IGNORED_NAMES = (
    *("README*", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "CHANGELOG*", "CITATION*", "AUTHORS*", "*.md"),
    *(".*", "Thumbs.db", "desktop.ini", "_SUCCESS", "*.md5", "*.sha1", "*.sha256", "SHA256SUMS*", "MD5SUMS*"),
)
IGNORED_FOLDERS = (".git", "__MACOSX", ".ipynb_checkpoints", "@eaDir")
_IGNORED = re.compile("|".join(translate(pattern) for pattern in IGNORED_NAMES))
_TABLE = "CREATE TABLE left (root TEXT, state TEXT, name BLOB, kind TEXT, reason TEXT, detail TEXT)"
_KEEP = "INSERT INTO left VALUES (?, ?, ?, ?, ?, ?)"
_ORDERED = "SELECT * FROM left ORDER BY root, state, name, reason"

Key = tuple[str, str, str, str]
"""Root, state, kind, reason."""


@dataclass
class Tally:
    """How many, and the first names of them in the order of names."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: Iterable[str], count: int = 1) -> None:
        """`count` more, of which `names` may be among the first."""
        self.count += count
        for name in names:
            if len(self.names) < FIRST_NAMES or name < self.names[-1]:
                self.names = nsmallest(FIRST_NAMES, {*self.names, name})


@dataclass(frozen=True)
class Left:
    """One thing that was not read."""

    root: str
    state: str
    name: str
    kind: str
    reason: str
    detail: str


class Coverage:
    """ignore: patterns of names (`*.txt`) that are meant to be left. pinned: what earlier passes over the same input
    found out (see `decide`). most: categories that are counted by name.

    It may be pickled, with all that it holds.
    """

    def __init__(
        self, ignore: Iterable[str] = (), pinned: Mapping[str, Any] | None = None, most: int = MAX_CATEGORIES
    ) -> None:
        self.tallies: dict[Key, Tally] = {}
        self.categories: dict[tuple[int, str], int] = {}
        self.pinned: dict[str, Any] = dict(pinned or {})
        self.dataset: dict[str, list[Any] | dict[str, Any]] = {}
        self.forms: dict[str, list[str]] = {}  # of boxes: the files that have them (see `box_forms.py`)
        self.ignored = tuple(ignore)
        self._most = most
        self._left = _table(())

    def fresh(self) -> Coverage:
        """An empty one for a part of the same input, to be merged. It counts every category."""
        return Coverage(self.ignored, self.pinned, sys.maxsize)

    def __getstate__(self) -> dict[str, Any]:
        left = self._left.execute("SELECT * FROM left").fetchall()
        return {**self.__dict__, "_left": left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "_left": _table(state["_left"])})

    def to_json(self) -> dict[str, Any]:
        """All that it holds, for `from_json`."""
        rows = self._left.execute("SELECT * FROM left")
        left = [[*row[:2], row[2].decode("utf-8", "surrogatepass"), *row[3:]] for row in rows]
        return {
            "tallies": [[*key, tally.count, tally.names] for key, tally in self.tallies.items()],
            "categories": [[*key, masks] for key, masks in self.categories.items()],
            **{name: getattr(self, name) for name in ("pinned", "dataset", "forms", "ignored")},
            "left": left,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Coverage:
        """One that counts every category."""
        made = cls(told["ignored"], told["pinned"], sys.maxsize)
        made.tallies = {tuple(key): Tally(count, names) for *key, count, names in told["tallies"]}
        made.categories = {(number, name): masks for number, name, masks in told["categories"]}
        made.dataset, made.forms = told["dataset"], told["forms"]
        rows = [(*row[:2], row[2].encode("utf-8", "surrogatepass"), *row[3:]) for row in told["left"]]
        made._left.executemany(_KEEP, rows)
        return made

    def take(self, name: str, kind: str | None = None, root: str = MASKS) -> None:
        """A file or entry was read."""
        self._tally(root, READ, kind or kind_of(name), "").add([name])

    def take_all(self, names: Sequence[str], kind: str, root: str = MASKS) -> None:
        """Files or entries of a kind were read."""
        self._tally(root, READ, kind, "").add(nsmallest(FIRST_NAMES, names), len(names))

    def take_many(self, names: str, count: int, kind: str) -> None:
        """Numbered entries from 0 on were read; names: what stands before their numbers."""
        if count:
            first = (f"{names} {number}" for number in range(min(count, FIRST_NAMES)))
            self._tally(MASKS, READ, kind, "").add(first, count)

    def leave(self, name: str, reason: str, detail: str = "", kind: str | None = None, root: str = MASKS) -> None:
        """A file or entry is not read; it is ignored where its name says so."""
        if self.is_ignored(name):
            self._keep(root, IGNORED, name, kind, "--ignore", detail)
        elif ignored_by_name(name):
            self._keep(root, IGNORED, name, kind, "by its name", detail)
        else:
            self._keep(root, UNREAD, name, kind, reason, detail)

    def is_ignored(self, name: str) -> bool:
        """Whether `--ignore` means it."""
        return any(fnmatchcase(name, pattern) or fnmatchcase(_last(name), pattern) for pattern in self.ignored)

    def ignore(self, name: str, reason: str, kind: str | None = None, root: str = MASKS) -> None:
        """A file or entry that is no mask by design."""
        self._keep(root, IGNORED, name, kind, reason, "")

    def unnamed(self, name: str) -> None:
        """An image to which no mask belongs."""
        self._keep(IMAGES, UNNAMED, name, None, "no mask belongs to it", "")

    def remark(self, name: str, what: str) -> None:
        """Something was read, and is odd."""
        self._tally(MASKS, ODD, "", what).add([name])

    def category(self, category_id: int, name: str, masks: int = 1) -> None:
        """Masks of that category are in the plan."""
        key = category_id, name
        if key not in self.categories and len(self.categories) >= self._most:
            key = -1, OTHERS
        self.categories[key] = self.categories.get(key, 0) + masks

    def boxes(self, name: str, form: str) -> None:
        """The boxes without masks in a file have that form."""
        self.forms.setdefault(form, []).append(name)

    def describe(self, name: str, entry: Any) -> None:
        """What a source says of the dataset as a whole: `info`, or one more of `categories` or `licenses`."""
        if isinstance(entry, dict) and name == "info":
            self.dataset[name] = entry
        else:
            found = self.dataset.setdefault(name, [])
            if isinstance(found, list) and len(found) < MAX_CATEGORIES:
                found.append(entry)

    def decide(self, what: str, find: Callable[[], Any]) -> Any:
        """What was found out once stays: `find` is called where no earlier pass has an answer. JSON in and out.

        None is no answer, and does not stay.
        """
        if what not in self.pinned:
            found = find()
            if found is None:
                return None
            self.pinned[what] = found
        return self.pinned[what]

    def count(self, root: str, state: str) -> int:
        """Of all kinds and reasons."""
        return sum(tally.count for key, tally in self.tallies.items() if key[:2] == (root, state))

    def merge(self, other: Coverage) -> None:
        """Add what another pass, over another part of the same input, has found."""
        for key, tally in other.tallies.items():
            self._tally(*key).add(tally.names, tally.count)
        for (number, name), masks in other.categories.items():
            self.category(number, name, masks)
        self.pinned = {**other.pinned, **self.pinned}
        self.dataset = {**other.dataset, **self.dataset}
        for form, names in other.forms.items():
            self.forms.setdefault(form, []).extend(names)
        self._left.executemany(_KEEP, other._left.execute("SELECT * FROM left"))

    def left(self) -> Iterator[Left]:
        """What was not read, in the order of root, state and name."""
        for root, state, name, kind, reason, detail in self._left.execute(_ORDERED):
            yield Left(root, state, name.decode("utf-8", "surrogatepass"), kind, reason, detail)

    def _keep(self, root: str, state: str, name: str, kind: str | None, reason: str, detail: str) -> None:
        kind, reason, detail = (_written(text) for text in (kind or kind_of(name), reason, detail))
        self._tally(root, state, kind, reason).add([name])
        row = root, state, name.encode("utf-8", "surrogatepass"), kind, reason, detail
        self._left.execute(_KEEP, row)

    def _tally(self, root: str, state: str, kind: str, reason: str) -> Tally:
        return self.tallies.setdefault((root, state, kind, reason), Tally())


def _table(rows: Iterable[tuple[Any, ...]]) -> sqlite3.Connection:
    database = sqlite3.connect("", check_same_thread=False)  # a file of SQLite's own, gone with it
    database.execute(_TABLE)
    database.executemany(_KEEP, rows)
    return database


def ignored_by_name(name: str) -> bool:
    """README, LICENSE, .DS_Store and the like."""
    *folders, last = name.split("/")
    return bool(_IGNORED.fullmatch(last)) or any(folder in IGNORED_FOLDERS for folder in folders)


def kind_of(name: str) -> str:
    """A file's suffix in small letters, or that it has none."""
    stem, dot, suffix = _last(name).rpartition(".")
    return f".{suffix.lower()}" if dot and stem and suffix else "no suffix"


def _written(text: str) -> str:
    """What files say may hold half a character, which is no text."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _last(name: str) -> str:
    return name.rpartition("/")[2]
