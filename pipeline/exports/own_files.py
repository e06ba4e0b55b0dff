"""The files of a target that are the export's own: each is written down before it is written.

TARGET/.relabel-export/writing/<group>/<random>.json   paths, until the group is done (`final`: until the export is)

So whoever begins anew after a kill finds every file of the export that was killed, and takes none of the user's for
one. A record is a file more: who writes many small files tells them a batch at a time (`tell`).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from pipeline.errors import JobError
from pipeline.storage import Store
from pipeline.storage.atomic import TEMPORARY_PREFIX
from schemas.layout import EXPORT_STATE

FOLDER = f"{EXPORT_STATE}/writing"
FINAL = "final"
_TEMPORARY = re.compile(rf"(.*/)?{re.escape(TEMPORARY_PREFIX)}[0-9a-f]{{32}}")


@dataclass(frozen=True)
class OwnFiles(Store):
    """A target that records each path before it writes it. group: a group of shards, or FINAL."""

    group: str = FINAL

    @classmethod
    def of(cls, target: Store, index: int | None = None) -> OwnFiles:
        """The target, for the files of one group; None: for those of the whole export."""
        return cls(target.uri, target.access, FINAL if index is None else group_name(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "group": self.group}

    @cached_property
    def _told(self) -> set[str]:
        return set()

    def tell(self, paths: Iterable[str]) -> None:
        """Record files that are about to be written; what the export keeps for itself needs no record."""
        new = {path for path in paths if not path.startswith(f"{EXPORT_STATE}/")} - self._told
        if new:
            record(self, self.group, new)
            self._told.update(new)

    def put(self, path: str, data: bytes) -> None:
        """As a Store does."""
        self.tell([path])
        super().put(path, data)

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """As a Store does. Raises JobError where another export has removed what was being written."""
        self.tell([path])
        is_written = False
        try:
            with super().writer(path) as file:
                yield file
                is_written = True
        except FileNotFoundError:
            if not is_written:
                raise
            raise JobError(f"{self.uri}/{path} is gone: another export ended there. Run it again") from None


def group_name(index: int) -> str:
    """What the records of a group are called."""
    return f"{index:06d}"


def record(target: Store, group: str, paths: Iterable[str]) -> None:
    """Write down that these files are the export's own. A new file each time: those of a killed process count too."""
    target.put(f"{FOLDER}/{group}/{uuid.uuid4().hex}.json", json.dumps(sorted(paths)).encode())


def recorded(target: Store, group: str = "") -> set[str]:
    """The files that were written down and not forgotten: of one group, or of all."""
    files = target.list(f"{FOLDER}/{group}" if group else FOLDER)
    return {path for file in files for path in json.loads(target.read(file.path))}


def settle(target: Store, group: str, kept: Collection[str]) -> None:
    """Delete what earlier attempts at a group wrote and the last one did not. kept: what it wrote."""
    for path in sorted(recorded(target, group) - set(kept)):
        target.delete(path)


def forget(target: Store, group: str = "") -> None:
    """Delete the records, once another file names what they do."""
    for file in target.list(f"{FOLDER}/{group}" if group else FOLDER):
        target.delete(file.path)


def unfinished(target: Store) -> frozenset[str]:
    """Temporary files of writes that have not ended, or never will."""
    return frozenset(file.path for file in target.list(temporary=True) if _TEMPORARY.fullmatch(file.path))


def sweep(target: Store, before: Collection[str]) -> None:
    """Delete the temporary files that were there before this process began and still are: those of killed ones."""
    for path in sorted(unfinished(target) & set(before)):
        target.delete(path)
