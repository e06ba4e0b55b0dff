"""What is on disk, and where: the one home of every path below an output's URI. Pure: names in, names out.

    OUTPUT/
      current.json                              which generation counts: the only switch
      plan/<n>/bucket-<lo>-<hi>.parquet         an increment's rows, by hash range of the image id
      plan/<n>/chunks.parquet                   its chunks in order: which rows of which bucket
      plan/<n>/superseded.parquet               rows of earlier increments that it replaces or prunes
      plan/<n>/_COMMITTED                       written last: without it the increment is discarded
      scans/<digest>.json                       what a planning pass covered, and what it could not use
      scans/<digest>.unread.parquet             the names of the latter
      scans/current.json                        the last pass, and the source and rules that each input is read by
      leases/<n>.json                           who may plan and seal
      reviews/<n>-<hash>.json                   what people said of the masks
      overlays/<n>-<name>.parquet               what people sent back, to be laid over the masks at the next seal
      overlays/<n>-<name>.undone                written where that was undone
      runs/<fingerprint>/                       the results of one method
        config.yaml                             method, gate and operation as resolved
        parts/<chunk-id>.parquet                every image of a chunk
        parts/<chunk-id>.first<n>.parquet       its first n images, where `--limit` cut it
        parts/<chunk-id>.r<k>.parquet           the images of retry round k alone
        retries/<k>.json                        committed before round k starts: its exact image ids
        masks/<hash>.parquet                    shards: one row per mask
        images/<hash>.parquet                   shards: one row per image
        seals/<g>/manifest.json                 a generation: its shards, their hashes, the counts
        seals/<g>/parts.parquet                 the parts that it was sealed from
        seals/<g>/_SUCCESS                      written when both are there

Paths of a run (`PARTS`, `SHARDS`, `part`, `Seal`, ...) are relative to the run's folder, all others to the output. The
content of the JSON files is `manifest.py`'s, that of the Parquet files `records.py`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

CURRENT = "current.json"
PLAN, SCANS, LEASES, REVIEWS, RUNS = "plan", "scans", "leases", "reviews", "runs"
OVERLAYS = "overlays"
MANIFEST_NAME = "manifest.json"
LAST_SCAN = f"{SCANS}/current.json"

CONFIG = "config.yaml"
PARTS, RETRIES, SEALS = "parts", "retries", "seals"
SHARDS = ("masks", "images")
"""Folders of shards; also the kinds of rows that a result has."""

_CHUNK_ID = r"(?P<chunk>(?P<increment>\d{4,})-\d{7,}-[0-9a-f]{12})"
_PART = re.compile(_CHUNK_ID + r"(\.first(?P<cut>\d+)|\.r(?P<round>\d+))?\.parquet")
_BUCKET = re.compile(r"bucket-(?P<low>\d+)-(?P<high>\d+)\.parquet")
_OVERLAY = re.compile(rf"{OVERLAYS}/(?P<number>\d{{6,}})-(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\.(parquet|undone)")
_NUMBERED = re.compile(r"(?P<folder>\w+)/(?P<number>\d+)(\.json|/.*)")


@dataclass(frozen=True)
class Increment:
    """The files of one planning step."""

    number: int

    @property
    def folder(self) -> str:
        return f"{PLAN}/{self.number}"

    @property
    def marker(self) -> str:
        """Written last, with the hashes of the others."""
        return self.file("_COMMITTED")

    @property
    def chunks(self) -> str:
        return self.file("chunks.parquet")

    @property
    def superseded(self) -> str:
        return self.file("superseded.parquet")

    def bucket(self, low: int, high: int) -> str:
        """The rows whose image ids hash into [low, high]."""
        return self.file(f"bucket-{low:04d}-{high:04d}.parquet")

    def file(self, name: str) -> str:
        """A file by its name in the marker."""
        return f"{self.folder}/{name}"


@dataclass(frozen=True)
class Seal:
    """The files of one generation, relative to the run's folder."""

    generation: int

    @property
    def manifest(self) -> str:
        return f"{SEALS}/{self.generation}/{MANIFEST_NAME}"

    @property
    def parts(self) -> str:
        return f"{SEALS}/{self.generation}/parts.parquet"

    @property
    def success(self) -> str:
        return f"{SEALS}/{self.generation}/_SUCCESS"


class PartName(NamedTuple):
    """What the name of a part tells. cut: images of a chunk that a limit cut; round: the retry round."""

    chunk_id: str
    cut: int | None
    round: int | None


class OverlayName(NamedTuple):
    """What the name of an overlay's file tells. number: their order, in which later ones lie on top."""

    number: int
    name: str

    @property
    def path(self) -> str:
        """Its changes."""
        return f"{OVERLAYS}/{self.number:06}-{self.name}.parquet"

    @property
    def undone(self) -> str:
        """There where it was undone."""
        return f"{OVERLAYS}/{self.number:06}-{self.name}.undone"


def overlay_name(path: str) -> OverlayName | None:
    """The overlay whose changes, or whose mark of being undone, a file is; None for every other path."""
    found = _OVERLAY.fullmatch(path)
    return OverlayName(int(found["number"]), found["name"]) if found else None


def run(fingerprint: str) -> str:
    """The folder of one method's results."""
    return f"{RUNS}/{fingerprint}"


def in_run(fingerprint: str, path: str) -> str:
    """A path relative to a run's folder -> relative to the output."""
    return f"{RUNS}/{fingerprint}/{path}"


def split_run(path: str) -> tuple[str, str] | None:
    """The inverse of `in_run`: (fingerprint, path in the run's folder); None for what is of no run."""
    folder, _, rest = path.partition("/")
    fingerprint, _, within = rest.partition("/")
    return (fingerprint, within) if folder == RUNS and within else None


def numbered(folder: str, path: str) -> int | None:
    """The number in `folder/<n>.json` or `folder/<n>/...`; None for every other path."""
    found = _NUMBERED.fullmatch(path)
    return int(found["number"]) if found and found["folder"] == folder else None


def committed_number(path: str) -> int | None:
    """The number of the increment whose marker this is."""
    number = numbered(PLAN, path)
    return number if number is not None and path == Increment(number).marker else None


def sealed_number(path: str) -> int | None:
    """The generation that this path (in a run's folder) says is complete."""
    number = numbered(SEALS, path)
    return number if number is not None and path == Seal(number).success else None


def bucket_range(path: str) -> tuple[int, int] | None:
    """The hash range of a file of plan rows; None for every other path."""
    found = _BUCKET.fullmatch(PurePosixPath(path).name)
    return (int(found["low"]), int(found["high"])) if found else None


def name_of(path: str) -> str:
    """The last step of a path: a file by its name in the marker."""
    return PurePosixPath(path).name


def chunk_id(increment: int, ordinal: int, digest: str) -> str:
    """A chunk by its place in the plan and what its rows are. digest: 12 hex digits."""
    return f"{increment:04d}-{ordinal:07d}-{digest}"


def part(chunk_id: str, cut: int | None = None, round_: int | None = None) -> str:
    """Where a chunk's part is: all of it, its first `cut` images, or its images of a retry round."""
    suffix = f".r{round_}" if round_ else "" if cut is None else f".first{cut}"
    return f"{PARTS}/{chunk_id}{suffix}.parquet"


def part_name(path: str) -> PartName | None:
    """What a part's path, or its name alone, tells; None for a file that is no part."""
    found = _PART.fullmatch(PurePosixPath(path).name)
    if found is None:
        return None
    cut, round_ = (int(text) if text else None for text in (found["cut"], found["round"]))
    return PartName(found["chunk"], cut, round_)


def increment_of(chunk_id: str) -> str:
    """The increment's number as it stands in its chunks' ids."""
    return chunk_id.partition("-")[0]


def retry_round(number: int) -> str:
    """The committed images of retry round `number`, relative to the run's folder."""
    return f"{RETRIES}/{number}.json"


def shard(kind: str, sha256: str) -> str:
    """A shard by its content, relative to the run's folder. kind: one of SHARDS."""
    return f"{kind}/{sha256[:32]}.parquet"


def every_shard(kind: str) -> str:
    """A pattern for the shards of every method, for people."""
    return in_run("*", f"{kind}/*.parquet")


def lease(number: int) -> str:
    """The lease with this fencing number."""
    return f"{LEASES}/{number}.json"


def scan(digest: str) -> str:
    """What a planning pass covered."""
    return f"{SCANS}/{digest}.json"


def unread(digest: str) -> str:
    """The names that a planning pass left unread."""
    return f"{SCANS}/{digest}.unread.parquet"


def is_scan(path: str) -> bool:
    """Whether a path is of a planning pass, the pointer to the last one included."""
    return path.startswith(f"{SCANS}/") and path.endswith((".json", ".unread.parquet"))


def review(number: int, sha256: str) -> str:
    """Verdicts of people: the `number`th file of them, by its content."""
    return f"{REVIEWS}/{number:06}-{sha256[:16]}.json"
