"""What an output holds and no longer needs: `relabel gc`.

Never touched: whatever a kept generation lists (shards, parts, manifests), committed increments, the parts of chunks
that are still planned, methods that a run is refining by, and files that are not ours.

Each kind of file goes only when nobody can come to need it, however long this process sleeps before it removes it:
attempts at an increment are kept from completion first (`planning/attempts.py`); for all else the pointer is replaced,
which no seal that was under way survives, by one that gives up the names (`manifest.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import JobError
from pipeline.output.manifest import Retention, delete, kept, latest, read_sealed_parts, replaced, swap, unlisted
from pipeline.planning.attempts import committed, discard, leftovers
from pipeline.planning.increment import Plan, all_chunk_ids, read_plan
from pipeline.planning.scans import current_scan
from pipeline.planning.shuffle import stale
from pipeline.refining.parts import find_parts
from pipeline.storage import Store, StoredFile
from pipeline.storage.atomic import LOCK_PREFIX
from pipeline.storage.documents import Switch, parse, read_pointed, read_switch, run_store
from pipeline.storage.lease import Hold, uses
from schemas import layout
from schemas.manifest import Manifest

TEMPORARY_AGE_S = 3600.0
"""A temporary file so old belongs to a process that is no more."""

UNCOMMITTED = "an increment that was never committed"
OTHER_METHOD = "another method's"


@dataclass(frozen=True)
class Garbage:
    """A file that can go. path: relative to the output."""

    path: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Found:
    """What can go, in the order in which it must; who was spared; and the pointer from before it was looked for."""

    garbage: list[Garbage]
    spared: dict[str, list[str]]  # methods in use, and by whom
    switch: Switch


def collect(
    output: Store, hold: Hold, retention: Retention, *, other_methods: bool = False, dry_run: bool = False
) -> Found:
    """Remove what can go, under the output's lease. Raises JobError where the pointer was lost or is damaged.

    other_methods: the results of every method but the current one, too, unless a run is refining by it. dry_run: only
    find it.
    """
    with hold():
        found = find_garbage(output, retention, other_methods)
        return found if dry_run else remove(output, found)


def find_garbage(output: Store, retention: Retention, other_methods: bool = False) -> Found:
    """What can go. Call it under the output's lease."""
    switch = read_switch(output)
    _check_whole(output, switch)
    sizes = {file.path: file.size for file in output.list()}
    plan = read_plan(output)
    known = all_chunk_ids(output)
    busy = uses(output)
    spared: dict[str, list[str]] = {}
    found: dict[str, str] = {}

    def note(why: str, paths: Iterable[str]) -> None:
        for path in paths:
            found.setdefault(path, why)

    note(UNCOMMITTED, leftovers(output))
    note("planning that was killed long ago", stale(output))
    for name, paths in _by_method(sorted(sizes)).items():
        run = run_store(output, name)
        is_current = switch.pointer is not None and switch.pointer.fingerprint == name
        removed = layout.run(name) in switch.given_up
        if removed or (other_methods and switch.pointer is not None and not is_current):
            if name in busy and not removed:
                spared[name] = busy[name]
            else:
                note(OTHER_METHOD, paths)
            continue
        newest = switch.pointer.generation if switch.pointer and is_current else latest(run)
        note("no kept generation lists it", _unlisted(output, name, newest, retention, switch))
        keep = [] if newest is None else kept(run, newest, retention)
        needed = {path for number in keep for path in read_sealed_parts(run, number)["path"].to_pylist()}
        spent = (path for path in _spent_parts(run, plan, known) if path not in needed)
        note("a part of no use", [layout.in_run(name, path) for path in spent])
    if switch.pointer is not None:  # as with shards
        note("an earlier planning pass", old_scans(output, sizes))
    garbage = [Garbage(path, sizes.get(path, 0), why) for path, why in found.items()]
    garbage += [Garbage(file.path, file.size, "an unfinished write") for file in _abandoned(output)]
    return Found(garbage, spared, switch)


def _check_whole(output: Store, switch: Switch) -> None:
    """Who does not know what is needed removes nothing. Raises JobError."""
    cure = "`relabel run` with the same arguments writes it anew; until then nothing is removed"
    if switch.pointer is None:
        runs = {within[0] for file in output.list(layout.RUNS) if (within := layout.split_run(file.path))}
        if switch.version is not None or any(latest(run_store(output, name)) is not None for name in runs):
            raise JobError(f"{output.uri}/{layout.CURRENT} is damaged or was lost: {cure}")
        return
    sealed = read_pointed(output, switch.pointer)
    if len(committed(output)) < sealed.increments:
        lost = layout.Increment(len(committed(output))).choice
        raise JobError(f"{output.uri}/{lost} was lost: the result was sealed from it. {cure}")


def _by_method(paths: Iterable[str]) -> dict[str, list[str]]:
    """Paths below runs/, by the name of the method's folder."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if within := layout.split_run(path):
            found.setdefault(within[0], []).append(path)
    return found


def _unlisted(output: Store, name: str, newest: int | None, retention: Retention, switch: Switch) -> list[str]:
    """Shards and manifests of a method that are not needed, relative to the output.

    Before the first seal none: there is no pointer yet whose replacement a seal that is under way would notice.
    """
    if switch.pointer is None:
        return []
    return [layout.in_run(name, path) for path in unlisted(run_store(output, name), newest, retention)]


def old_scans(output: Store, paths: Iterable[str]) -> list[str]:
    """Scans that are not the last pass's and that no manifest names."""
    keep = {current_scan(output)}
    for path in paths:
        within = layout.split_run(path)
        if within and path.endswith(layout.MANIFEST_NAME):
            with suppress(JobError):  # no manifest: nothing that it could name
                named = parse(Manifest, output.read(path), path).scan
                keep.add(named.path if named else None)
    files = {name for path in keep if path for name in (path, layout.unread(path))} | {layout.LAST_SCAN}
    return [path for path in sorted(paths) if layout.is_scan(path) and path not in files]


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
    files = (file for file in output.list(temporary=True) if not layout.name_of(file.path).startswith(LOCK_PREFIX))
    return [file for file in files if (file.modified_s or 0.0) < oldest]


def remove(output: Store, found: Found) -> Found:
    """Delete it, in its order; what could not be kept from being needed stays. Returns what is gone."""
    attempts = [one.path for one in found.garbage if one.why == UNCOMMITTED]
    stays = set(attempts) - set(discard(output, attempts))
    garbage = [one for one in found.garbage if one.path not in stays]
    nameable = [one for one in garbage if layout.split_run(one.path) or layout.is_scan(one.path)]
    if (pointer := found.switch.pointer) and nameable:
        spent = [_given_up(one.path) if one.why == OTHER_METHOD else one.path for one in nameable]
        swap(output, replaced(pointer, pointer, spent), found.switch)
    for name, paths in _by_method(one.path for one in garbage).items():
        delete(run_store(output, name), [path.removeprefix(f"{layout.run(name)}/") for path in paths])
    for one in garbage:
        if not layout.split_run(one.path):
            output.delete(one.path)
    return Found(garbage, found.spared, found.switch)


def _given_up(path: str) -> str:
    """The method's folder of a path in it: it goes as a whole."""
    name, _ = layout.split_run(path) or ("", "")
    return layout.run(name)
