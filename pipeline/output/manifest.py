"""Generations: writing a manifest, the switch of the pointer to it, and what may be removed after it.

The manifest names the shards by their hashes, and parts.parquet, which names the parts by theirs; the pointer names the
manifest by its hash. Where they are is `layout.py`'s.

Whoever switches replaces the pointer that was read before anything of the result was looked at, and fails where it has
been replaced since. Whoever removes something replaces it first, too, by one that says which names were given up; those
are never used again. So a seal that slept while others sealed or removed publishes nothing, and one that slept before
it removed something can only remove what nobody uses.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import JobError
from pipeline.refining.parts import PartFile
from pipeline.storage import Store, parquet_bytes
from pipeline.storage.documents import Switch, find_seal, read_manifest, read_pointed, run_store
from pipeline.storage.lease import Fence
from schemas import layout
from schemas.manifest import PLAIN_VERSION, Choice, Manifest, Pointer, sha256, to_json
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


def parts_table(parts: Sequence[PartFile]) -> pa.Table:
    """Parts as they were read, of schema SEALED_PARTS."""
    return pa.Table.from_pylist([part._asdict() for part in parts], SEALED_PARTS)


def parts_listing(parts: Sequence[pa.Table]) -> bytes:
    """parts.parquet: what a generation is sealed from. parts: tables of schema SEALED_PARTS, one after the other."""
    return parquet_bytes(pa.concat_tables(parts).combine_chunks())


def commit(
    output: Store, draft: Manifest, listing: bytes, retention: Retention, fence: Fence, switch: Switch
) -> Sealed:
    """Write the manifest, switch the pointer to it, and remove what no kept generation lists.

    draft: all of the manifest but its generation. A manifest equal to the current one changes nothing. listing:
    `parts_listing`. fence: raises when this process may no longer switch. switch: the pointer, read before the parts
    and shards of the draft were looked for.
    """
    run = run_store(output, draft.fingerprint)
    current = intact(output, switch.pointer)
    if switch.pointer and current and current.says_the_same(draft):
        _retire(run, retention, fence, output, switch)
        return Sealed(current.generation, current, changed=False)
    manifest, pointer = _write(run, draft, listing)
    fence()
    spent = unlisted(run, manifest.generation, retention)
    pointer = replaced(pointer, switch.pointer, (layout.in_run(draft.fingerprint, path) for path in spent))
    swap(output, pointer, switch)
    delete(run, spent)
    return Sealed(manifest.generation, manifest, changed=True)


def intact(output: Store, pointer: Pointer | None) -> Manifest | None:
    """The current manifest, None where it is damaged or lost: then the same result is a new generation."""
    with suppress(JobError):
        return read_pointed(output, pointer) if pointer else None
    return None


def _write(run: Store, draft: Manifest, listing: bytes) -> tuple[Manifest, Pointer]:
    """A complete generation that nothing points at yet, and the pointer to it."""
    generation = max(_begun(run), default=-1) + 1
    manifest = draft.model_copy(update={"generation": generation})
    seal, data = layout.Seal(generation, uuid.uuid4().hex), manifest.to_json()
    run.put(seal.parts, listing)
    run.put(seal.manifest, data)
    if not run.create(seal.success, to_json(Choice(attempt=seal.attempt))):
        raise JobError(f"another run wrote {run.uri}/{seal.success} at the same time; nothing was published. Run again")
    pointer = Pointer(
        fingerprint=manifest.fingerprint,
        generation=generation,
        manifest_sha256=sha256(data),
        version=manifest.version,
        attempt=seal.attempt,
    )
    return manifest, pointer


def replaced(pointer: Pointer, before: Pointer | None, spent: Iterable[str]) -> Pointer:
    """The pointer as it follows `before`, giving up the names of what is spent (paths relative to the output)."""
    paths = set(spent)
    names = set(before.given_up if before else ()) | set(filter(_is_reusable, paths))
    removals = (before.removals if before else 0) + bool(paths)
    version = max(pointer.version, PLAIN_VERSION)
    return pointer.model_copy(update={"given_up": sorted(names), "removals": removals, "version": version})


def _is_reusable(path: str) -> bool:
    """Whether another seal or run could come to the same name: a shard's, or that of a method's folder."""
    within = layout.split_run(path)
    return within[1].partition("/")[0] in layout.SHARDS if within else layout.is_run(path)


def swap(output: Store, pointer: Pointer, switch: Switch) -> None:
    """Replace the pointer. Raises JobError when it is no longer the one of `switch`."""
    if not output.swap(layout.CURRENT, to_json(pointer), switch.version):
        raise JobError(
            f"another run replaced {output.uri}/{layout.CURRENT} in the meantime; nothing was published or removed. "
            "Run it again"
        )


def read_sealed_parts(run: Store, generation: int) -> pa.Table:
    """The parts that a generation was sealed from (schema SEALED_PARTS)."""
    seal = find_seal(run, generation) or layout.Seal(generation)
    return run.read_parquet(seal.parts).select(SEALED_PARTS.names).cast(SEALED_PARTS)


def latest(run: Store) -> int | None:
    """The number of the last generation that was completed in this run's folder."""
    return max(finished_s(run), default=None)


def kept(run: Store, newest: int, retention: Retention) -> list[int]:
    """The generations that keep their shards, the newest first: `keep_generations` of them, and those replaced less
    than `grace_s` ago.
    """
    finished = {newest: 0.0, **finished_s(run)}
    order = sorted((number for number in finished if number <= newest), reverse=True)
    replaced_s = dict(zip(order[1:], (finished[number] for number in order), strict=False))
    return [
        number
        for place, number in enumerate(order)
        if place < retention.keep_generations or not _past(replaced_s[number], retention.grace_s)
    ]


def unlisted(run: Store, newest: int | None, retention: Retention) -> list[str]:
    """Files of a run that no kept generation needs: shards, older than `grace_s`, and other generations' manifests, in
    the order in which they can go: one whose shards are gone must not be there.

    newest: the last generation that readers saw; None where the run was never sealed.
    """
    keep = [] if newest is None else kept(run, newest, retention)
    seals = ((layout.numbered(layout.SEALS, file.path), file.path) for file in run.list(layout.SEALS))
    others = [path for number, path in seals if number is not None and number not in keep and not _is_void(run, path)]
    try:
        manifests = [read_manifest(run, number) for number in keep]
    except JobError:  # one is damaged: its shards are not known
        return others
    live = {shard.path for manifest in manifests for shard in (*manifest.masks, *manifest.images)}
    names = {path for _, path in filter(None, map(layout.split_run, live))}
    shards = [file for folder in layout.SHARDS for file in run.list(folder)]
    return others + [
        file.path for file in shards if file.path not in names and _past(file.modified_s, retention.grace_s)
    ]


def delete(run: Store, spent: Sequence[str]) -> None:
    """Delete files of a run, once their names were given up. A seal that is under way cannot complete afterwards."""
    for number in sorted({number for path in spent if (number := layout.numbered(layout.SEALS, path)) is not None}):
        run.create(layout.Seal(number).success, to_json(Choice(attempt=None)))
    for path in spent:
        run.delete(path)


def _is_void(run: Store, path: str) -> bool:
    """Whether a file keeps a generation from completion."""
    number = layout.sealed_number(path)
    return number is not None and find_seal(run, number) is None


def _retire(run: Store, retention: Retention, fence: Fence, output: Store, switch: Switch) -> None:
    """Remove what is no longer kept. Who lost the lease leaves it to who has it."""
    pointer = switch.pointer
    with suppress(JobError):
        fence()
        spent = unlisted(run, pointer.generation, retention) if pointer else []
        if pointer and spent:
            paths = [layout.in_run(pointer.fingerprint, path) for path in spent]
            swap(output, replaced(pointer, pointer, paths), switch)
            delete(run, spent)


def _past(modified_s: float | None, grace_s: float) -> bool:
    return grace_s <= 0 or (modified_s or 0.0) <= time.time() - grace_s


def _begun(run: Store) -> set[int]:
    """Generations of which there is a file."""
    found = (layout.numbered(layout.SEALS, file.path) for file in run.list(layout.SEALS))
    return {number for number in found if number is not None}


def finished_s(run: Store) -> dict[int, float]:
    """Complete generations, and when each was completed (seconds since 1970)."""
    files = {file.path: file.modified_s or 0.0 for file in run.list(layout.SEALS)}
    found = ((number, files[path]) for path in files if (number := layout.sealed_number(path)) is not None)
    return {number: done_s for number, done_s in found if _is_whole(find_seal(run, number), files)}


def _is_whole(seal: layout.Seal | None, files: Collection[str]) -> bool:
    """Whether a generation is named, and has not been removed: a seal that was overtaken may name it afterwards."""
    return seal is not None and not {seal.manifest, seal.parts}.isdisjoint(files)
