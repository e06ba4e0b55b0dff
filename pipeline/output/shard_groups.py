"""Groups of parts, each of which becomes one shard of masks and one of images; and which of them the last seal has
already made, so that a nightly increment does not read years of parts again.

The manifest keeps of each group a key: a hash of all that its shards depend on. The parts stand in it by name, size,
and the store's etag or time of writing. Where the key is the same and the shards are there, the entry is taken over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import JobError
from pipeline.output.manifest import SHARD_FOLDERS, latest, read_manifest, read_sealed_parts
from pipeline.planning.increment import Chunk, Plan
from pipeline.refining.parts import FinishedPart
from pipeline.storage import Store
from schemas.calibration import Calibration
from schemas.config import Gate
from schemas.records import SCHEMA_VERSION

SEAL_VERSION = 2
"""To be raised with every change of what the same parts become."""
PART_TO_SHARD = 1.5  # a shard is about this much larger than its parts: it adds the chosen mask
SHARD_ROWS = 1 << 17
"""Images and masks of a shard at most: small masks take ten times their bytes in the memory of who seals them."""
KEPT = ("key", "execution_classes", "counts", "drift")

Entry = dict[str, Any]
"""What became of a group: the manifest's entries of its shards (paths relative to the run), its parts' files, KEPT."""


@dataclass(frozen=True)
class Group:
    """The parts of one shard, and the image ids in them that later increments superseded."""

    parts: list[FinishedPart]
    superseded: frozenset[tuple[str, str]]

    def key(self, gate: Gate, calibration: Calibration | None) -> str:
        """64 hex digits."""
        weighed = calibration.model_dump(mode="json") if calibration else None
        content = [
            [SEAL_VERSION, SCHEMA_VERSION, gate.model_dump(mode="json"), weighed],
            [[part.images, *part.stamps] for part in self.parts],
            sorted(self.superseded),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def group_parts(parts: Sequence[FinishedPart], plan: Plan, shard_bytes: int) -> Iterator[Group]:
    """Consecutive parts of one increment, about `shard_bytes` of shard each, and SHARD_ROWS at most."""
    held: list[FinishedPart] = []
    size, rows = 0.0, 0

    def group() -> Group:
        ids = {part.chunk.chunk_id for part in held}
        return Group(held, frozenset(pair for pair in plan.superseded if pair[0] in ids))

    for part in parts:
        added = part.chunk.images + part.chunk.masks
        full = size + part.size * PART_TO_SHARD > shard_bytes or rows + added > SHARD_ROWS
        if held and (full or _increment(held[-1].chunk) != _increment(part.chunk)):
            yield group()
            held, size, rows = [], 0.0, 0
        held.append(part)
        size += part.size * PART_TO_SHARD
        rows += added
    if held:
        yield group()


def sealed_before(run: Store) -> dict[str, Entry]:
    """The groups of the run's last generation whose shards are all there, by key; none where that cannot be told."""
    generation = latest(run)
    if generation is None:
        return {}
    try:
        return _read_groups(run, generation)
    except (JobError, FileNotFoundError, ValueError, LookupError, TypeError, StopIteration):
        return {}  # damaged: then every part is read


def _read_groups(run: Store, generation: int) -> dict[str, Entry]:
    manifest = read_manifest(run, generation)
    present = {file.path: file.size for folder in SHARD_FOLDERS for file in run.list(folder)}
    files = iter(read_sealed_parts(run, generation))
    found: dict[str, Entry] = {}
    for index, kept in enumerate(manifest["groups"]):
        shards = {
            kind: {**(entry := manifest[kind][index]), "path": "/".join(entry["path"].split("/")[-2:])}
            for kind in SHARD_FOLDERS
        }
        own = [tuple(next(files)) for _ in range(kept["files"])]
        if all(present.get(entry["path"]) == entry["bytes"] for entry in shards.values()):
            found[kept["key"]] = {**shards, **{name: kept[name] for name in KEPT}, "parts": own}
    return found


def to_manifest(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What `sealed_before` will want to know of each group."""
    return [{**{name: entry[name] for name in KEPT}, "files": len(entry["parts"])} for entry in entries]


def _increment(chunk: Chunk) -> str:
    return chunk.chunk_id.partition("-")[0]
