"""Rows and listed files on their way from the tasks that read them to those that compare them: by the output's store.

    shuffle/<key>.json                         what came of one piece of work: counts, coverage, and of each file of
                                               lines where its hash ranges begin; written last
    shuffle/<key>-<n>.lines                    the lines of a range as one block, compressed, one range after another
    shuffle/<attempt>/<n>.lines                a listing that the command has read
    shuffle/<attempt>/<lo>-<hi>-of-<ranges>.parquet    what was compared, until all chunks before it are known

So nothing of them passes the command, however many there are. A key is of what the work reads, as the store tells of
it: who does the same work again, as after a planning step that was killed, finds it done.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import schemas
from pipeline.errors import JobError
from pipeline.planning.flow import Flow
from pipeline.planning.sheets import Sheet, Sheets, SheetWriter, sheet_of
from pipeline.planning.spill import Lines, OnDisk
from pipeline.sources.coverage import Coverage
from pipeline.storage import Store
from schemas import layout, secrets

DELETERS = 16
STALE_S = 86_400.0
"""What is older was left by a planning step that nobody has begun again."""


class Read(NamedTuple):
    """Some lines; with the last ones of a piece of work what the pass over it has found."""

    lines: Lines
    coverage: Coverage | None = None


class Told(NamedTuple):
    """What a task tells of its work: `entries` as `Lines` has them, since it told last. The last one has the rest."""

    entries: int
    containers: Sequence[str] = ()
    sheets: Sequence[Sheet] = ()
    coverage: Coverage | None = None
    is_last: bool = False

    @property
    def weight(self) -> int:
        """Of all its lines."""
        return sum(int(sheet.weights.sum()) for sheet in self.sheets)


@dataclass(frozen=True)
class Work:
    """Pieces of work: each is read by `read`, and known by what `identity` tells of it (JSON), None where nobody can
    tell whether it is the same again. code: stands for the code that reads. apart: keeps work that is not known from
    all other. It is sent to where the work is done.
    """

    output: Store
    code: str
    apart: str
    read: Callable[[Any], Iterable[Read]]
    identity: Callable[[Any], Any]

    def key(self, item: Any) -> str:
        """32 hex digits."""
        identity = self.identity(item)
        told = [self.code, identity] if identity is not None else [self.apart, repr(item)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def __call__(self, item: Any) -> Iterator[Told]:
        """Always the same for one item, whoever has done it: who began it again must not tell less than before."""
        key = self.key(item)
        found = _recorded(self.output, key)
        if found is None:
            found = yield from self._do(key, item)
        else:
            yield from map(Told, found["entries"])
        coverage = Coverage.from_json(found["coverage"]) if found["coverage"] else None
        yield Told(0, found["containers"], list(map(sheet_of, found["sheets"])), coverage, is_last=True)

    def _do(self, key: str, item: Any) -> Generator[Told, None, dict[str, Any]]:
        """Tells of entries as they come; returns all that is kept of it."""
        entries, containers, coverage = [], set[str](), None
        sheets = SheetWriter(self.output, partial(layout.shuffled_lines, key))
        for read in self.read(item):
            sheets.add(read.lines)
            containers.update(read.lines.containers)
            coverage = read.coverage or coverage
            entries.append(read.lines.entries)
            yield Told(read.lines.entries)
        told = coverage.to_json() if coverage else None
        found = {"entries": entries, "containers": sorted(containers), "sheets": sheets.close(), "coverage": told}
        text = secrets.redacted(json.dumps(found))
        self.output.put(layout.shuffled(key), text.encode())
        return dict(json.loads(text))


def _recorded(output: Store, key: str) -> dict[str, Any] | None:
    """What the work came to, where it was done before and all of it is still there."""
    with suppress(FileNotFoundError, ValueError):
        found = dict(json.loads(output.read(layout.shuffled(key))))
        if all(output.exists(sheet["path"]) for sheet in found["sheets"]):
            return found
    return None


class Shuffle:
    """What one planning step's tasks write for each other. Nothing is written before it is asked for."""

    def __init__(self, output: Store, flow: Flow) -> None:
        self.attempt = uuid.uuid4().hex
        self.flow, self._output = flow, output
        self._work: list[tuple[Work, Sequence[Hashable]]] = []

    def each(
        self,
        read: Callable[[Any], Iterable[Read]],
        identity: Callable[[Any], Any],
        items: Sequence[Hashable],
    ) -> Iterator[Told]:
        """What tasks tell of their work, in the order of the items. See `Work`."""
        apart, done = f"{self.attempt} {len(self._work)}", 0
        work = Work(self._output, _code(), apart, read, identity)
        self._work.append((work, items))
        for told in self.flow(work, items):
            done += told.is_last
            yield told
        if done != len(items):
            raise JobError(f"{done} of {len(items)} pieces of the input came back from their tasks: run it again")

    def bring(self, lines: Iterable[Lines]) -> Iterator[Told]:
        """Lines of this process, for all others. Call it under the output's lease."""
        sheets = SheetWriter(self._output, partial(layout.brought, self.attempt))
        for some in lines:
            sheets.add(some)
            yield Told(some.entries)
        yield Told(0, sheets=list(map(sheet_of, sheets.close())))

    def renew(self) -> None:
        """Do again what another planning step has removed since it was done first. Call it under the output's lease:
        from then on nobody removes it.
        """
        there = {file.path for file in self._output.walk(layout.SHUFFLE)} if self._work else set()
        for work, items in self._work:
            gone = [item for item in items if layout.shuffled(work.key(item)) not in there]
            for _ in self.flow(work, gone) if gone else ():
                pass

    def files(self) -> list[str]:
        """Those that nobody needs once this step has committed, under the output's lease: that it wrote or read, and
        what steps compared that had the lease before.
        """
        read = {work.key(item) for work, items in self._work for item in items}
        found = [file.path for file in self._output.walk(layout.SHUFFLE)] if self._work else []
        return [path for path in found if layout.is_of_attempt(path) or layout.shuffled_by(path) in read]


class Gathered:
    """Lines as they come, or what tasks tell of theirs. folder: where those of this process are, once they are many."""

    def __init__(self, output: Store, folder: Path, some: Iterable[Lines | Told]) -> None:
        self.entries, self.containers, self.are_shuffled = 0, set[str](), False
        self._here, self._sheets = OnDisk(folder), Sheets(output)
        self._some = some

    @property
    def ranged(self) -> OnDisk | Sheets:
        return self._sheets if self.are_shuffled else self._here

    def each(self) -> Iterator[int]:
        """Take them, in the order in which they come; yields how many entries each of them has."""
        for some in self._some:
            self.entries += some.entries
            self.containers.update(some.containers)
            if isinstance(some, Told):
                self.are_shuffled = True
                for sheet in some.sheets:
                    self._sheets.take(sheet)
            else:
                self._here.take(some)
            yield some.entries


@cache
def _code() -> str:
    """Stands for the code that reads sources, and all that it calls: what another one has read may be other rows."""
    folders = Path(__file__).parents[1], Path(str(schemas.__file__)).parent
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def stale(output: Store) -> list[str]:
    """Files of planning steps that were killed long ago, and that nobody has begun again."""
    oldest = time.time() - STALE_S
    return [file.path for file in output.walk(layout.SHUFFLE) if (file.modified_s or 0.0) < oldest]


def remove(output: Store, paths: Iterable[str]) -> None:
    """Delete files of a shuffle: what says that lines are there goes before them."""
    with ThreadPoolExecutor(DELETERS) as pool:
        for _, some in groupby(sorted(set(paths), key=_are_lines), key=_are_lines):
            list(pool.map(output.delete, some))


def _are_lines(path: str) -> bool:
    return not path.endswith(".json")
