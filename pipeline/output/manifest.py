"""Generations: writing a manifest, the switch of the pointer to it, and what may be removed after it.

The manifest names the shards by their hashes, and parts.parquet, which names the parts by theirs; the pointer names the
manifest by its hash. Where they are is `layout.py`'s.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import JobError
from pipeline.refining.parts import PartFile
from pipeline.storage import Store, parquet_bytes
from pipeline.storage.documents import read_current, read_manifest, run_store
from pipeline.storage.lease import Fence
from schemas import layout
from schemas.manifest import VERSION, Manifest, Pointer, to_json
from schemas.records import SEALED_PARTS


@dataclass(frozen=True)
class Retention:
    """How many generations keep their shards, and for how long (seconds) a replaced one keeps them beyond that."""

    keep_generations: int = 1
    grace_s: float = 0.0


KEEP_ONE = Retention()


@dataclass(frozen=True)
class Sealed:
    """The generation that readers now see. changed: whether this seal made it."""

    generation: int
    manifest: Manifest
    changed: bool


def parts_listing(parts: Sequence[PartFile]) -> bytes:
    """parts.parquet: what a generation is sealed from."""
    return parquet_bytes(pa.Table.from_pylist([part._asdict() for part in parts], SEALED_PARTS))


def commit(output: Store, draft: Manifest, listing: bytes, retention: Retention, fence: Fence) -> Sealed:
    """Write the manifest, switch the pointer to it, and remove what no kept generation lists.

    draft: all of the manifest but its generation. A manifest equal to the current one changes nothing. listing:
    `parts_listing`. fence: raises when this process may no longer switch.
    """
    run = run_store(output, draft.fingerprint)
    current = read_current(output)
    if current and current.fingerprint == draft.fingerprint:
        previous = read_manifest(run, current.generation)
        if previous.says_the_same(draft):
            _retire(run, current.generation, retention, fence)
            return Sealed(current.generation, previous, changed=False)
    generation = max(_begun(run), default=-1) + 1
    manifest = draft.model_copy(update={"generation": generation})
    seal, data = layout.Seal(generation), manifest.to_json()
    run.put(seal.parts, listing)
    run.put(seal.manifest, data)
    run.put(seal.success, b"")
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = Pointer(fingerprint=manifest.fingerprint, generation=generation, manifest_sha256=sha256, version=VERSION)
    fence()
    output.put(layout.CURRENT, to_json(pointer))
    _retire(run, generation, retention, fence)
    return Sealed(generation, manifest, changed=True)


def read_sealed_parts(run: Store, generation: int) -> list[PartFile]:
    """The parts that a generation was sealed from."""
    return [PartFile(**row) for row in run.read_parquet(layout.Seal(generation).parts).to_pylist()]


def latest(run: Store) -> int | None:
    """The number of the last generation that was completed in this run's folder."""
    return max(_finished_s(run), default=None)


def kept(run: Store, newest: int, retention: Retention) -> list[int]:
    """The generations that keep their shards, the newest first: `keep_generations` of them, and those replaced less
    than `grace_s` ago.
    """
    finished = _finished_s(run)
    order = sorted((number for number in finished if number <= newest), reverse=True)
    replaced_s = dict(zip(order[1:], (finished[number] for number in order), strict=False))
    return [
        number
        for place, number in enumerate(order)
        if place < retention.keep_generations or not _past(replaced_s[number], retention.grace_s)
    ]


def unlisted(run: Store, newest: int | None, retention: Retention) -> list[str]:
    """Files of a run that no kept generation needs: shards, older than `grace_s`, and other generations' manifests.

    newest: the generation that readers see; None where the run was never sealed.
    """
    keep = [] if newest is None else kept(run, newest, retention)
    manifests = [read_manifest(run, number) for number in keep]
    live = {shard.path for manifest in manifests for shard in (*manifest.masks, *manifest.images)}
    names = {path for _, path in filter(None, map(layout.split_run, live))}
    shards = [file for folder in layout.SHARDS for file in run.list(folder)]
    old_shards = [file.path for file in shards if file.path not in names and _past(file.modified_s, retention.grace_s)]
    seals = ((layout.numbered(layout.SEALS, file.path), file.path) for file in run.list(layout.SEALS))
    return [path for number, path in seals if number is not None and number not in keep] + old_shards


def _retire(run: Store, newest: int, retention: Retention, fence: Fence) -> None:
    """Manifests first: one whose shards are gone must not be there. Who lost the lease leaves it to who has it."""
    try:
        fence()
    except JobError:
        return
    for path in unlisted(run, newest, retention):
        run.delete(path)


def _past(modified_s: float | None, grace_s: float) -> bool:
    return grace_s <= 0 or (modified_s or 0.0) <= time.time() - grace_s


def _begun(run: Store) -> set[int]:
    """Generations of which there is a file."""
    found = (layout.numbered(layout.SEALS, file.path) for file in run.list(layout.SEALS))
    return {number for number in found if number is not None}


def _finished_s(run: Store) -> dict[int, float]:
    """Complete generations, and when each was completed (seconds since 1970)."""
    found = ((layout.sealed_number(file.path), file.modified_s) for file in run.list(layout.SEALS))
    return {number: modified_s or 0.0 for number, modified_s in found if number is not None}
