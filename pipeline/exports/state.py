"""What an export remembers in its target, so that a later one can go on, add what was missing, or begin anew.

TARGET/.relabel-export/job.json        what is exported: another job is refused, unless --overwrite
TARGET/.relabel-export/done/<n>.json   a group that is written: its files and counts, and what could not be read
TARGET/export.json                     written last: what was exported, from which generation, and what was lost
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import RefusedError
from pipeline.exports import own_files
from pipeline.exports.fragments import DONE
from pipeline.exports.fragments import FOLDER as FRAGMENTS
from pipeline.exports.types import Piece, as_json, from_json
from pipeline.storage import Store
from schemas.layout import EXPORT_REPORT, EXPORT_STATE

CLAIM = f"{EXPORT_STATE}/job.json"
IMAGES = "images_root"
"""The part of a claim that says where the images are read."""


@dataclass(frozen=True)
class State:
    """What was found in a target. claim: of job.json; report: of export.json; done: pieces by group; temporary: files
    of writes that have not ended.
    """

    target: Store
    present: frozenset[str] = frozenset()
    claim: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    done: dict[int, Piece] = field(default_factory=dict)
    temporary: frozenset[str] = frozenset()

    def holds(self, paths: Iterable[str]) -> bool:
        """Whether all these files are there; those of other spellings too, where the file system says so."""
        return all(path in self.present or self.target.exists(path) for path in paths)

    def holds_fragments(self, index: int) -> bool:
        """Whether what a group has for `finish` to join is there."""
        return self.holds(f"{FRAGMENTS}/{own_files.group_name(index)}/{name}" for name in self.done[index].fragments)

    @property
    def is_whole(self) -> bool:
        """Whether an export has ended here, and every file of it is still there."""
        own = (piece.files for piece in self.done.values())
        return self.report is not None and all(map(self.holds, [self.report["files"], *own]))

    @property
    def has_unread(self) -> bool:
        """Whether something was left out that may be there by now."""
        return any(piece.unread for piece in self.done.values())


def find(target: Store) -> State:
    """What is there. Reads nothing that is no export's."""
    present = frozenset(file.path for file in target.list())
    temporary = own_files.unfinished(target)
    if CLAIM not in present:
        return State(target, present, temporary=temporary)
    claim = dict(json.loads(target.read(CLAIM)))
    return State(target, present, claim, _report(target), done_in(target), temporary)


def refuse(state: State, asked: dict[str, Any], overwrite: bool) -> None:
    """Raise RefusedError where the target holds another export, or files of something else.

    Images that were left out may come from another place; those that were written may not have come from two.
    """
    if state.claim is None:
        if state.present:
            raise RefusedError(f"{state.target.uri} is not empty, and no export of ours; choose another folder")
        return
    before = state.claim
    changed = sorted(key for key in asked if before.get(key) != asked[key])
    if changed and not overwrite and not (changed == [IMAGES] and state.has_unread):
        raise RefusedError(
            f"{state.target.uri} holds another export (different: {', '.join(changed)}); choose another folder, or "
            "--overwrite"
        )


def clear(state: State) -> State:
    """Delete what an earlier export wrote, whole or not, and nothing else; the claim stays. Returns what is left."""
    target = state.target
    reopen(state)
    files = {path for piece in state.done.values() for path in piece.files} | own_files.recorded(target)
    for path in sorted(files):
        target.delete(path)
    own_files.sweep(target, state.temporary)
    for path in sorted({file.path for file in target.list(EXPORT_STATE)} - {CLAIM}):
        target.delete(path)
    return State(target, claim=state.claim)


def reopen(state: State, again: Iterable[int] = ()) -> None:
    """Take back that the export, and some of its groups, are done; what they wrote stays on record."""
    target = state.target
    if state.report is not None:
        own_files.record(target, own_files.FINAL, state.report["files"])
    target.delete(EXPORT_REPORT)
    for index in again:
        own_files.record(target, own_files.group_name(index), state.done[index].files)
        target.delete(_mark(index))


def mark(target: Store, index: int, piece: Piece) -> None:
    """A group is done: what earlier attempts wrote beside it goes first."""
    group = own_files.group_name(index)
    own_files.settle(target, group, piece.files)
    target.put(_mark(index), json.dumps(as_json(piece)).encode())
    own_files.forget(target, group)


def done_in(target: Store) -> dict[int, Piece]:
    """The groups that are written."""
    found = {}
    for file in target.list(DONE):
        index = int(file.path.rpartition("/")[2].removesuffix(".json"))
        found[index] = from_json(json.loads(target.read(file.path)))
    return found


def _mark(index: int) -> str:
    return f"{DONE}/{index:06d}.json"


def _report(target: Store) -> dict[str, Any] | None:
    try:
        return dict(json.loads(target.read(EXPORT_REPORT)))
    except FileNotFoundError:
        return None
