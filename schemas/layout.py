"""What is on disk, and where: the one home of every path below an output's URI. Pure: names in, names out.

    OUTPUT/
      current.json                              which generation counts: the only switch; and which names were given up
      plan/<n>/_COMMITTED                       created last, once: which attempt is increment n, with its marker
      plan/<n>/<attempt>/bucket-<lo>-<hi>.parquet    its rows, by hash range of the image id: <lo> to <hi> of 1,024
      plan/<n>/<attempt>/bucket-<lo>-<hi>-of-<ranges>.parquet    or of more, where 1,024 were too few
      plan/<n>/<attempt>/chunks.parquet         its chunks in order: which rows of which bucket
      plan/<n>/<attempt>/superseded.parquet     rows of earlier increments that it replaces or prunes
      plan/<n>/<attempt>/marker.json            created when the others are there, or first by who discards it
      scans/<attempt>/<digest>.json             what a planning pass covered, and what it could not use
      scans/<attempt>/<digest>.unread.parquet   the names of the latter
      scans/current.json                        the last pass, and the source and rules that each input is read by
      shuffle/<key>.json, <key>-<n>.lines       what tasks read, on its way into the plan: gone once that is committed
      shuffle/<attempt>/...                     what they compared, of one planning step
      leases/<n>.json                           who may plan and seal
      leases/run-<fingerprint>-<owner>.json     who is refining by this method
      reviews/<n>-<hash>.json                   what people said of the masks
      findings/<n>-<hash>.parquet               what `relabel findings` found wrong with the masks; the last one counts
      findings/<n>-<hash>.json                  what people said of findings
      overlays/<n>-<name>.parquet               what people sent back, to be laid over the masks at the next seal
      overlays/<n>-<name>.undone                written where that was undone
      runs/<fingerprint>/                       the results of one method; <fingerprint>-<k> once it was removed k times
        config.yaml                             method, gate and operation as resolved
        parts/<chunk-id>.parquet                every image of a chunk
        parts/<chunk-id>.first<n>.parquet       its first n images, where `--limit` cut it
        parts/<chunk-id>.r<k>.parquet           the images of retry round k alone
        retries/<k>.json                        committed before round k starts: its exact image ids
        masks/<hash>.parquet                    shards: one row per mask; <hash>-<k> where that name was given up
        images/<hash>.parquet                   shards: one row per image
        seals/<g>/<attempt>/manifest.json       a generation: its shards, their hashes, the counts
        seals/<g>/<attempt>/parts.parquet       the parts that it was sealed from
        seals/<g>/_SUCCESS                      created when both are there, once: which attempt is generation g

An attempt is a random name that nothing else has, so that whoever was thought dead writes beside what was committed
since. Outputs of earlier versions have the files of increments, scans and generations one folder higher, without it.

Paths of a run (`PARTS`, `SHARDS`, `part`, `Seal`, ...) are relative to the run's folder, all others to the output. The
content of the JSON files is `manifest.py`'s, that of the Parquet files `records.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from itertools import count
from pathlib import PurePosixPath
from typing import NamedTuple

from schemas import attempts

Increment = attempts.Increment
HashRange = attempts.HashRange
Seal = attempts.Seal

CURRENT = "current.json"
PLAN, SEALS, MANIFEST_NAME = attempts.PLAN, attempts.SEALS, attempts.MANIFEST_NAME
SCANS, LEASES, REVIEWS, RUNS, OVERLAYS = "scans", "leases", "reviews", "runs", "overlays"
EXPORT_STATE, EXPORT_REPORT = ".relabel-export", "export.json"
"""In the target of an export: the folder that remembers what is done, and what was exported."""
FINDINGS = "findings"
LAST_SCAN = f"{SCANS}/current.json"

CONFIG = "config.yaml"
PARTS, RETRIES = "parts", "retries"
SHUFFLE = "shuffle"
SHARDS = ("masks", "images")
"""Folders of shards; also the kinds of rows that a result has."""

_CHUNK_ID = r"(?P<chunk>(?P<increment>\d{4,})-\d{7,}-[0-9a-f]{12})"
_PART = re.compile(_CHUNK_ID + r"(\.first(?P<cut>\d+)|\.r(?P<round>\d+))?\.parquet")
_ATTEMPT = re.compile(r"(?P<folder>\w+)/(?P<number>\d+)/(?P<attempt>[0-9a-f]{32})/[^/]+")
_USE = re.compile(r"leases/run-(?P<name>.+)-[0-9a-f]{32}\.json")
_SHARD = re.compile(r"(masks|images)/[0-9a-f]{32}(-\d+)?\.parquet")
_REVIEW = re.compile(r"(reviews/\d{6,}-(?P<sha256>[0-9a-f]{16})\.json|findings/\d{6,}-(?P<found>[0-9a-f]{16})\.\w+)")
_BUCKET = re.compile(r"bucket-(?P<low>\d+)-(?P<high>\d+)(-of-(?P<ranges>\d+))?\.parquet")
_OVERLAY = re.compile(rf"{OVERLAYS}/(?P<number>\d{{6,}})-(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\.(parquet|undone)")
_SHUFFLED = re.compile(rf"{SHUFFLE}/(?P<owner>[0-9a-f]{{32}})(\.json|-\d+\.lines|/[^/]+\.(lines|parquet))")
_NUMBERED = re.compile(r"(?P<folder>\w+)/(?P<number>\d+)(\.json|/.*)")


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


def is_run(path: str) -> bool:
    """Whether a path is a method's folder."""
    folder, _, name = path.partition("/")
    return folder == RUNS and bool(name) and "/" not in name


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


def attempt_of(folder: str, path: str) -> tuple[int, str] | None:
    """Number and attempt of a file `folder/<n>/<attempt>/...`; None for every other path."""
    found = _ATTEMPT.fullmatch(path)
    return (int(found["number"]), found["attempt"]) if found and found["folder"] == folder else None


def committed_number(path: str) -> int | None:
    """The number of the increment that this file says is committed."""
    number = numbered(PLAN, path)
    return number if number is not None and path == Increment(number).choice else None


def sealed_number(path: str) -> int | None:
    """The generation that this path (in a run's folder) says is complete."""
    number = numbered(SEALS, path)
    return number if number is not None and path == Seal(number).success else None


def bucket_range(path: str) -> HashRange | None:
    """The hash range of a file of plan rows; None for every other path."""
    found = _BUCKET.fullmatch(PurePosixPath(path).name)
    return HashRange(int(found["low"]), int(found["high"]), int(found["ranges"] or attempts.RANGES)) if found else None


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


def parts_of(chunk_id: str) -> str:
    """What the paths of a chunk's parts begin with; no file's own path."""
    return f"{PARTS}/{chunk_id}"


def part_name(path: str) -> PartName | None:
    """What a part's path, or its name alone, tells; None for a file that is no part."""
    found = _PART.fullmatch(path.rpartition("/")[2])
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


def shard(kind: str, sha256: str, given_up: Callable[[str], bool] = lambda _path: False) -> str:
    """A shard by its content, relative to the run's folder. kind: one of SHARDS. given_up: whether a path is not to be
    used again, since somebody may still be about to delete it.
    """
    names = (f"{kind}/{sha256[:32]}{f'-{again}' if again else ''}.parquet" for again in count())
    return next(name for name in names if not given_up(name))


def is_shard(path: str) -> bool:
    """Whether a path, relative to the run's folder, is a shard's by its name."""
    return _SHARD.fullmatch(path) is not None


def method_folder(fingerprint: str, given_up: Collection[str]) -> str:
    """The name of the folder of a method's results. given_up: paths, relative to the output, not to be used again."""
    names = (f"{fingerprint}{f'-{again}' if again else ''}" for again in count())
    return next(name for name in names if run(name) not in given_up)


def fingerprint_of(name: str) -> str:
    """The method whose folder has that name."""
    return name.partition("-")[0]


def every_shard(kind: str) -> str:
    """A pattern for the shards of every method, for people."""
    return in_run("*", f"{kind}/*.parquet")


def lease(number: int) -> str:
    """The lease with this fencing number."""
    return f"{LEASES}/{number}.json"


def use(name: str, owner: str) -> str:
    """The lease of who is refining into the method's folder of that name. owner: 32 hex digits."""
    return f"{LEASES}/run-{name}-{owner}.json"


def used(path: str) -> str | None:
    """The name of the method's folder that such a lease is of; None for every other path."""
    found = _USE.fullmatch(path)
    return found["name"] if found else None


def scan(digest: str, attempt: str = "") -> str:
    """What a planning pass covered. attempt: "" where an earlier version wrote it."""
    return f"{SCANS}/{attempt}/{digest}.json" if attempt else f"{SCANS}/{digest}.json"


def unread(scan: str) -> str:
    """The names that a planning pass left unread. scan: the path of what it covered."""
    return f"{scan.removesuffix('.json')}.unread.parquet"


def is_scan(path: str) -> bool:
    """Whether a path is of a planning pass, the pointer to the last one included."""
    return path.startswith(f"{SCANS}/") and path.endswith((".json", ".unread.parquet"))


def shuffled(key: str) -> str:
    """What came of a piece of planning's work: written when its lines are there. key: 32 hex digits."""
    return f"{SHUFFLE}/{key}.json"


def shuffled_lines(key: str, number: int) -> str:
    """The `number`th file of its lines."""
    return f"{SHUFFLE}/{key}-{number}.lines"


def compared(attempt: str, place: HashRange) -> str:
    """The rows of a hash range that are new or changed, in no chunk yet. attempt: 32 hex digits."""
    return f"{SHUFFLE}/{attempt}/{place.low:04}-{place.high:04}-of-{place.ranges}.parquet"


def brought(attempt: str, number: int) -> str:
    """The `number`th file of a listing. attempt: 32 hex digits."""
    return f"{SHUFFLE}/{attempt}/{number}.lines"


def is_of_attempt(path: str) -> bool:
    """Whether a path is `compared` or `brought`."""
    return shuffled_by(path) is not None and path.count("/") == 2


def shuffled_by(path: str) -> str | None:
    """The key or the attempt in the name of such a file; None for every other path."""
    found = _SHUFFLED.fullmatch(path)
    return found["owner"] if found else None


def review(number: int, sha256: str) -> str:
    """Verdicts of people: the `number`th file of them, by its content."""
    return f"{REVIEWS}/{number:06}-{sha256[:16]}.json"


def finding(number: int, sha256: str, suffix: str) -> str:
    """The `number`th file of findings (`.parquet`), or of what people said of them (`.json`), by its content."""
    return f"{FINDINGS}/{number:06}-{sha256[:16]}{suffix}"


def reviewed(path: str) -> str | None:
    """The hash in the name of a file of verdicts or findings; None for every other path."""
    found = _REVIEW.fullmatch(path)
    return (found["sha256"] or found["found"]) if found else None
