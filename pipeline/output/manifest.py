"""Generations: the manifest, the switch of `current.json`, and what may be removed after it.

runs/<fingerprint>/seals/<g>/parts.parquet   the parts that were sealed, with their hashes
runs/<fingerprint>/seals/<g>/manifest.json   the shards, with theirs; that of parts.parquet; counts
runs/<fingerprint>/seals/<g>/_SUCCESS
current.json                                 which manifest counts, with its hash: the only switch
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipeline.dataset import read_current
from pipeline.errors import JobError
from pipeline.refining.parts import PartFile
from pipeline.storage import Store, parquet_bytes
from pipeline.storage.lease import Fence
from schemas.records import SEALED_PARTS

SHARD_FOLDERS = ("masks", "images")
UNSEEN = {"generation": None, "groups": None}
"""What may differ between manifests of the same result: keys of groups change when a result is copied."""
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Retention:
    """How many generations keep their shards, and for how long (seconds) a replaced one keeps them beyond that."""

    keep_generations: int = 1
    grace_s: float = 0.0


KEEP_ONE = Retention()


@dataclass(frozen=True)
class Sealed:
    """The generation that readers now see."""

    generation: int
    manifest: Manifest
    changed: bool


def commit(
    output: Store,
    run: Store,
    manifest: Manifest,
    parts: Sequence[PartFile],
    retention: Retention,
    fence: Fence,
) -> Sealed:
    """Write the manifest, switch `current.json` to it, and remove what no kept generation lists.

    A manifest equal to the current one changes nothing. fence: raises when this process may no longer switch.
    """
    listing = parquet_bytes(pa.Table.from_pylist([part._asdict() for part in parts], SEALED_PARTS))
    summary = {"files": len(parts), "bytes": len(listing), "sha256": hashlib.sha256(listing).hexdigest()}
    manifest = {**manifest, "parts": summary}
    current = read_current(output)
    if current and current["fingerprint"] == manifest["fingerprint"]:
        previous = read_manifest(run, current["generation"])
        if {**previous, **UNSEEN} == {**manifest, **UNSEEN}:
            _retire(run, current["generation"], retention, fence)
            return Sealed(current["generation"], previous, changed=False)
    generation = max(_numbers(run, ""), default=-1) + 1
    manifest = {**manifest, "generation": generation}
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    run.put(f"seals/{generation}/parts.parquet", listing)
    run.put(f"seals/{generation}/manifest.json", data)
    run.put(f"seals/{generation}/_SUCCESS", b"")
    pointer = {
        "fingerprint": manifest["fingerprint"],
        "generation": generation,
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
    }
    fence()
    output.put("current.json", json.dumps(pointer).encode())
    _retire(run, generation, retention, fence)
    return Sealed(generation, manifest, changed=True)


def read_manifest(run: Store, generation: int) -> Manifest:
    """A generation's manifest. Raises FileNotFoundError."""
    return dict(json.loads(run.read(f"seals/{generation}/manifest.json")))


def read_sealed_parts(run: Store, generation: int) -> list[PartFile]:
    """The parts that a generation was sealed from."""
    return [PartFile(**row) for row in run.read_parquet(f"seals/{generation}/parts.parquet").to_pylist()]


def latest(run: Store) -> int | None:
    """The number of the last generation that was completed in this run's folder."""
    return max(_numbers(run, "_SUCCESS"), default=None)


def kept(run: Store, newest: int, retention: Retention) -> list[int]:
    """The generations that keep their shards, the newest first: `keep_generations` of them, and those replaced less
    than `grace_s` ago.
    """
    finished = {
        int(PurePosixPath(file.path).parts[1]): file.modified_s or 0.0
        for file in run.list("seals")
        if file.path.endswith("/_SUCCESS")
    }
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
    live = {
        PurePosixPath(entry["path"]).relative_to(f"runs/{manifest['fingerprint']}").as_posix()
        for manifest in (read_manifest(run, number) for number in keep)
        for kind in SHARD_FOLDERS
        for entry in manifest[kind]
    }
    shards = [file for folder in SHARD_FOLDERS for file in run.list(folder)]
    old_shards = [file.path for file in shards if file.path not in live and _past(file.modified_s, retention.grace_s)]
    seals = [file.path for file in run.list("seals") if int(PurePosixPath(file.path).parts[1]) not in keep]
    return seals + old_shards


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


def _numbers(run: Store, name: str) -> set[int]:
    return {int(PurePosixPath(file.path).parts[1]) for file in run.list("seals") if file.path.endswith(name)}
