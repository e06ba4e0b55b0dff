"""Groups of parts, each of which becomes one shard of masks and one of images; and which of them the last seal has
already made, so that a nightly increment does not read years of parts again.

The manifest keeps of each group a key: a hash of all that its shards depend on. The parts stand in it by name, size,
and the store's etag or time of writing. Where the key is the same and the shards are there, the entry is taken over.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import JobError
from pipeline.output.manifest import latest, read_sealed_parts
from pipeline.planning.increment import Plan
from pipeline.refining.parts import FinishedPart, Stretch
from pipeline.storage import Store
from pipeline.storage.documents import read_manifest
from schemas import layout
from schemas.calibration import Calibration
from schemas.config import Gate
from schemas.manifest import Counts, Shard, ShardGroup
from schemas.records import SCHEMA_VERSION

Row = dict[str, Any]

SEAL_VERSION = 2
"""To be raised with every change of what the same parts become."""
PART_TO_SHARD = 1.5  # a shard is about this much larger than its parts: it adds the chosen mask
SHARD_ROWS = 1 << 17
"""Images and masks of a shard at most: small masks take ten times their bytes in the memory of who seals them."""


@dataclass(frozen=True)
class SealedGroup:
    """What became of a group: its shards, the files of its parts (SEALED_PARTS), and what the manifest keeps of it."""

    masks: Shard
    images: Shard
    parts: pa.Table
    execution_classes: list[str]
    counts: Counts
    drift: dict[str, list[int]]

    def entry(self, key: str) -> ShardGroup:
        """What `sealed_before` will want to know."""
        classes, counts, drift = self.execution_classes, self.counts, self.drift
        return ShardGroup(key=key, execution_classes=classes, counts=counts, drift=drift, files=self.parts.num_rows)


@dataclass(frozen=True)
class Group:
    """The parts of one shard, the image ids in them that later increments superseded, what overlays change there."""

    parts: Sequence[FinishedPart]
    superseded: frozenset[tuple[str, str]]
    changes: tuple[Row, ...] = ()

    def key(self, gate: Gate, calibration: Calibration | None) -> str:
        """64 hex digits."""
        weighed = calibration.model_dump(mode="json") if calibration else None
        content = [
            [SEAL_VERSION, SCHEMA_VERSION, gate.model_dump(mode="json"), weighed],
            [[part.images, *part.stamps] for part in self.parts],
            sorted(self.superseded),
            *([self.changes] if self.changes else []),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def group_parts(parts: Sequence[FinishedPart], plan: Plan, shard_bytes: int) -> Iterator[Group]:
    """Consecutive parts of one increment, about `shard_bytes` of shard each, and SHARD_ROWS at most."""
    superseded: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pair in plan.superseded:
        superseded[pair[0]].append(pair)

    def group(start: int, stop: int) -> Group:
        held = Stretch(parts, start, stop)
        return Group(held, frozenset(pair for part in held for pair in superseded.get(part.chunk.chunk_id, ())))

    start, size, rows, increment = 0, 0.0, 0, ""
    for number, part in enumerate(parts):
        added = part.chunk.images + part.chunk.masks
        full = size + part.size * PART_TO_SHARD > shard_bytes or rows + added > SHARD_ROWS
        if number > start and (full or _increment(part) != increment):
            yield group(start, number)
            start, size, rows = number, 0.0, 0
        increment = _increment(part)
        size += part.size * PART_TO_SHARD
        rows += added
    if len(parts) > start:
        yield group(start, len(parts))


def sealed_before(run: Store, given_up: Collection[str]) -> dict[str, SealedGroup]:
    """The groups of the run's last generation whose shards are all there, by key; none where that cannot be told.

    given_up: paths of shards that may be removed at any time.
    """
    generation = latest(run)
    if generation is None:
        return {}
    try:
        groups = _read_groups(run, generation)
    except (JobError, FileNotFoundError, IndexError, KeyError, pa.ArrowException):
        return {}  # damaged: then every part is read
    return {key: one for key, one in groups.items() if not {one.masks.path, one.images.path} & set(given_up)}


def _read_groups(run: Store, generation: int) -> dict[str, SealedGroup]:
    manifest = read_manifest(run, generation)
    present = {
        layout.in_run(manifest.fingerprint, file.path): file.size
        for folder in layout.SHARDS
        for file in run.list(folder)
    }
    files, start = read_sealed_parts(run, generation), 0
    found: dict[str, SealedGroup] = {}
    for index, kept in enumerate(manifest.groups):
        masks, images = manifest.masks[index], manifest.images[index]
        own = files.slice(start, kept.files)
        start += kept.files
        if own.num_rows < kept.files:
            raise IndexError(start)
        if all(present.get(shard.path) == shard.bytes for shard in (masks, images)):
            found[kept.key] = SealedGroup(masks, images, own, kept.execution_classes, kept.counts, kept.drift)
    return found


def _increment(part: FinishedPart) -> str:
    return layout.increment_of(part.chunk.chunk_id)
