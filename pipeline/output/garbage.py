"""What an output holds and no longer needs: `relabel gc`.

Never touched: whatever a kept generation lists (shards, parts, manifests), committed increments, the parts of chunks
that are still planned, and files that are not ours.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import JobError
from pipeline.output.manifest import Retention, kept, latest, read_sealed_parts, unlisted
from pipeline.planning.increment import Plan, all_chunk_ids, committed, read_plan, uncommitted_files
from pipeline.planning.scans import current_digest
from pipeline.refining.parts import find_parts
from pipeline.storage import Store, StoredFile
from pipeline.storage.documents import parse, read_current, run_store
from schemas import layout
from schemas.manifest import Manifest

TEMPORARY_AGE_S = 3600.0
"""A temporary file so old belongs to a process that is no more."""


@dataclass(frozen=True)
class Garbage:
    """A file that can go. path: relative to the output."""

    path: str
    bytes: int
    why: str


def find_garbage(output: Store, retention: Retention, other_methods: bool = False) -> list[Garbage]:
    """What can go, in the order in which it must. Call it under the output's lease.

    other_methods: the results of every method but the current one, too.
    """
    sizes = {file.path: file.size for file in output.list()}
    current = read_current(output)
    plan = read_plan(output)
    known = all_chunk_ids(output)
    found: dict[str, str] = {}

    def note(why: str, paths: list[str]) -> None:
        for path in paths:
            found.setdefault(path, why)

    note("an increment that was never committed", uncommitted_files(output, committed(output)))
    of_runs = [(within[0], path) for path in sizes if (within := layout.split_run(path))]
    for name in sorted({name for name, _ in of_runs}):
        run = run_store(output, name)
        is_current = current is not None and current.fingerprint == name
        if other_methods and current is not None and not is_current:
            note("another method's", [path for run_name, path in of_runs if run_name == name])
            continue
        newest = current.generation if current is not None and is_current else latest(run)
        note("no kept generation lists it", [layout.in_run(name, path) for path in unlisted(run, newest, retention)])
        keep = [] if newest is None else kept(run, newest, retention)
        needed = {part.path for number in keep for part in read_sealed_parts(run, number)}
        spent = [path for path in _spent_parts(run, plan, known) if path not in needed]
        note("a part of no use", [layout.in_run(name, path) for path in spent])
    note("an earlier planning pass", old_scans(output, sizes))
    garbage = [Garbage(path, sizes.get(path, 0), why) for path, why in found.items()]
    return garbage + [Garbage(file.path, file.size, "an unfinished write") for file in _abandoned(output)]


def old_scans(output: Store, paths: Iterable[str]) -> list[str]:
    """Scans that are not the last pass's and that no manifest names."""
    kept = {current_digest(output)}
    for path in paths:
        within = layout.split_run(path)
        if within and path.endswith(layout.MANIFEST_NAME):
            with suppress(JobError):  # no manifest: nothing that it could name
                named = parse(Manifest, output.read(path), path).scan
                kept.add(named.sha256 if named else None)
    keep = {name(digest) for digest in kept if digest for name in (layout.scan, layout.unread)} | {layout.LAST_SCAN}
    return [path for path in sorted(paths) if layout.is_scan(path) and path not in keep]


def _spent_parts(run: Store, plan: Plan, known: frozenset[str]) -> Iterator[str]:
    """Parts of chunks that later increments superseded, and cut parts where there is a longer one."""
    useful = {path for part in find_parts(run, plan) for path in part.paths}
    live = {chunk.chunk_id for chunk in plan.chunks}
    for path, name in ((file.path, layout.part_name(file.path)) for file in run.list(layout.PARTS)):
        if name is None or name.chunk_id not in known or path in useful:
            continue
        if name.chunk_id not in live or name.cut:
            yield path


def _abandoned(output: Store) -> list[StoredFile]:
    oldest = time.time() - TEMPORARY_AGE_S
    return [file for file in output.list(temporary=True) if (file.modified_s or 0.0) < oldest]


def remove(output: Store, garbage: list[Garbage]) -> None:
    """Delete it, in its order."""
    for one in garbage:
        output.delete(one.path)
