"""The files of an increment and of a generation, each below a name of its own; `layout.py` has all paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

PLAN, SEALS = "plan", "seals"
MANIFEST_NAME = "manifest.json"
RANGES = 1024
HASHES = 1 << 32


class HashRange(NamedTuple):
    """Image ids by their hashes of 32 bits: of `ranges` equal ranges (a power of two) the numbers low to high."""

    low: int
    high: int
    ranges: int = RANGES

    @property
    def span(self) -> range:
        """The hashes themselves."""
        return range(self.low * HASHES // self.ranges, (self.high + 1) * HASHES // self.ranges)


@dataclass(frozen=True)
class Increment:
    """The files of one planning step. attempt: "" where an earlier version wrote them."""

    number: int
    attempt: str = ""

    @property
    def folder(self) -> str:
        return f"{PLAN}/{self.number}/{self.attempt}".rstrip("/")

    @property
    def choice(self) -> str:
        """Created last: which attempt counts, with its marker."""
        return f"{PLAN}/{self.number}/_COMMITTED"

    @property
    def marker(self) -> str:
        """Counts, and the hashes of the other files."""
        return self.file("marker.json") if self.attempt else self.choice

    @property
    def chunks(self) -> str:
        return self.file("chunks.parquet")

    @property
    def superseded(self) -> str:
        return self.file("superseded.parquet")

    def bucket(self, low: int, high: int, ranges: int = RANGES) -> str:
        """The rows whose image ids hash into a `HashRange`. Ranges that are finer than RANGES are in the name."""
        finer = "" if ranges == RANGES else f"-of-{ranges}"
        return self.file(f"bucket-{low:04d}-{high:04d}{finer}.parquet")

    def file(self, name: str) -> str:
        """A file by its name in the marker."""
        return f"{self.folder}/{name}"

    def said(self, path: str) -> str:
        """A file as `chunks.parquet` names it: without the attempt, so that its bytes do not tell of it."""
        return f"{PLAN}/{self.number}/{PurePosixPath(path).name}"


@dataclass(frozen=True)
class Seal:
    """The files of one generation, relative to the run's folder. attempt: "" where an earlier version wrote them."""

    generation: int
    attempt: str = ""

    @property
    def folder(self) -> str:
        return f"{SEALS}/{self.generation}/{self.attempt}".rstrip("/")

    @property
    def manifest(self) -> str:
        return f"{self.folder}/{MANIFEST_NAME}"

    @property
    def parts(self) -> str:
        return f"{self.folder}/parts.parquet"

    @property
    def success(self) -> str:
        """Created last: which attempt counts."""
        return f"{SEALS}/{self.generation}/_SUCCESS"
