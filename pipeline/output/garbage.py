"""What an output holds and no longer needs: `relabel gc`.

Never touched: whatever a kept generation lists (shards, parts, manifests), committed increments, the parts of chunks
that are still planned, and files that are not ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.dataset import read_current
from pipeline.output.manifest import Retention, kept, latest, read_sealed_parts, unlisted
from pipeline.planning.increment import Plan, all_chunk_ids, committed, read_plan, uncommitted_files
from pipeline.planning.scans import CURRENT as SCANS_CURRENT
from pipeline.planning.scans import FOLDER as SCANS
from pipeline.planning.scans import current_digest, scan_path, unread_path
from pipeline.refining.parts import PART_NAME, find_parts
from pipeline.storage import Store, StoredFile

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
    for name in sorted({path.split("/")[1] for path in sizes if path.startswith("runs/")}):
        folder = f"runs/{name}"
        run = Store(f"{output.uri.rstrip('/')}/{folder}", output.access)
        is_current = current is not None and current["fingerprint"] == name
        if other_methods and current is not None and not is_current:
            note("another method's", [path for path in sizes if path.startswith(f"{folder}/")])
            continue
        newest = int(current["generation"]) if current is not None and is_current else latest(run)
        note("no kept generation lists it", [f"{folder}/{path}" for path in unlisted(run, newest, retention)])
        keep = [] if newest is None else kept(run, newest, retention)
        needed = {part.path for number in keep for part in read_sealed_parts(run, number)}
        note("a part of no use", [f"{folder}/{path}" for path in _spent_parts(run, plan, known) if path not in needed])
    note("an earlier planning pass", old_scans(output, sizes))
    garbage = [Garbage(path, sizes.get(path, 0), why) for path, why in found.items()]
    return garbage + [Garbage(file.path, file.size, "an unfinished write") for file in _abandoned(output)]


def old_scans(output: Store, paths: Iterable[str]) -> list[str]:
    """Scans that are not the last pass's and that no manifest names."""
    kept = {current_digest(output)}
    for path in paths:
        if path.startswith("runs/") and path.endswith("/manifest.json"):
            with suppress(ValueError):  # no manifest: nothing that it could name
                kept.add((json.loads(output.read(path)).get("scan") or {}).get("sha256"))
    keep = {name(digest) for digest in kept if digest for name in (scan_path, unread_path)} | {SCANS_CURRENT}
    return [path for path in sorted(paths) if path.startswith(f"{SCANS}/") and path not in keep]


def _spent_parts(run: Store, plan: Plan, known: frozenset[str]) -> Iterator[str]:
    """Parts of chunks that later increments superseded, and cut parts where there is a longer one."""
    useful = {path for part in find_parts(run, plan) for path in part.paths}
    live = {chunk.chunk_id for chunk in plan.chunks}
    files = [(file.path, PART_NAME.fullmatch(PurePosixPath(file.path).name)) for file in run.list("parts")]
    for path, name in files:
        if name is None or name["chunk"] not in known or path in useful:
            continue
        if name["chunk"] not in live or name["cut"]:
            yield path


def _abandoned(output: Store) -> list[StoredFile]:
    oldest = time.time() - TEMPORARY_AGE_S
    return [file for file in output.list(temporary=True) if (file.modified_s or 0.0) < oldest]


def remove(output: Store, garbage: list[Garbage]) -> None:
    """Delete it, in its order."""
    for one in garbage:
        output.delete(one.path)
