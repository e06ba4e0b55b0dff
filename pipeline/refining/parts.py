"""Finished work: which part files hold which images, and what they say together.

Of an image's attempts the one with the fewest failed rows counts, the later one where they are equal: a retry that
fares worse takes nothing away.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import JobError
from pipeline.planning.chunks import Chunk, Chunks
from pipeline.planning.flow import Spread
from pipeline.planning.increment import Plan
from pipeline.storage import Store, StoredFile, brief
from pipeline.storage.s3_listing import STRETCHES
from pipeline.storage.stretches import between, is_divisible
from schemas import layout

SPREAD_CHUNKS = 100_000
"""So many parts are listed by one process sooner than others have begun to."""
SPREAD_STRETCHES = 1024

Row = dict[str, Any]


@dataclass(frozen=True)
class FinishedPart:
    """A chunk's finished images: `images` of them, all unless a limit cut it; `size` bytes, retries included.

    stamps: of each file, what tells it from another one of its name.
    """

    chunk: Chunk
    path: str
    size: int
    images: int
    retries: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Base and retries, in the order in which they were made."""
        return (self.path, *self.retries)


class PartFile(NamedTuple):
    """A part as it was read."""

    chunk_id: str
    path: str
    images: int
    bytes: int
    sha256: str


class PartContent(NamedTuple):
    """A chunk's rows (schema PARTS), best attempt of each image, and the files that they came from."""

    rows: list[Row]
    executions: set[str]
    files: list[PartFile]


class Parts(Sequence[FinishedPart]):
    """The finished chunks of a plan, in its order, in columns: one is made when it is asked for.

    done: how many images of each chunk of the plan are in its part.
    """

    def __init__(self, chunks: Chunks) -> None:
        self.done = np.zeros(len(chunks), np.int32)
        self._chunks, self._sizes = chunks, np.zeros(len(chunks), np.int64)
        self._tags: list[str] = [""] * len(chunks)
        self._retries: dict[int, list[tuple[int, StoredFile]]] = defaultdict(list)

    def take(self, file: StoredFile) -> None:
        """A file of the folder of parts; of a chunk cut by several limits the longest counts."""
        name = layout.part_name(file.path)
        place = self._chunks.place_of(name.chunk_id) if name else None
        if name is None or place is None:
            return
        images = name.cut or int(self._chunks.images[place])
        if name.round:
            self._retries[place].append((name.round, file))
        elif images > self.done[place]:
            self.done[place], self._sizes[place], self._tags[place] = images, file.size, _tag(file)

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.done)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> FinishedPart: ...
    @overload
    def __getitem__(self, number: slice) -> list[FinishedPart]: ...
    def __getitem__(self, number: int | slice) -> FinishedPart | list[FinishedPart]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        place = int(self._places[number])
        chunk, images, size = self._chunks[place], int(self.done[place]), int(self._sizes[place])
        path = layout.part(chunk.chunk_id, None if images == chunk.images else images)
        retries = [file for _, file in sorted(self._retries.get(place, []))]
        return FinishedPart(
            chunk,
            path,
            size + sum(one.size for one in retries),
            images,
            tuple(one.path for one in retries),
            (_stamp(path, size, self._tags[place]), *(_stamp(one.path, one.size, _tag(one)) for one in retries)),
        )


class Stretch(Sequence[FinishedPart]):
    """Parts number `start` up to `stop`; it travels as the list of them."""

    def __init__(self, parts: Sequence[FinishedPart], start: int, stop: int) -> None:
        self._parts, self._range = parts, range(start, stop)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, number: int) -> FinishedPart: ...
    @overload
    def __getitem__(self, number: slice) -> list[FinishedPart]: ...
    def __getitem__(self, number: int | slice) -> FinishedPart | list[FinishedPart]:
        if isinstance(number, slice):
            return [self._parts[one] for one in self._range[number]]
        return self._parts[self._range[number]]

    def __reduce__(self) -> tuple[type[list[FinishedPart]], tuple[list[FinishedPart]]]:
        return list, (list(self),)


def find_parts(run: Store, plan: Plan, spread: Spread | None = None) -> Parts:
    """The plan's finished chunks in order; of a chunk cut by several limits the longest part counts.

    spread: by whom the stretches of a long listing are read: most of what it costs is to take answers apart.
    """
    parts = Parts(plan.chunks)
    if spread and len(plan.chunks) >= SPREAD_CHUNKS and is_divisible(run, layout.PARTS):
        bounds = ["", *sorted(_bounds(plan, SPREAD_STRETCHES)), ""]  # of names, which 10,000 increments outgrow
        for found in spread(partial(_listed, run), list(pairwise(bounds))):
            for values in found:
                parts.take(StoredFile(*values))
        return parts
    for file in run.walk(layout.PARTS, bounds=_bounds(plan, STRETCHES)):
        parts.take(file)
    return parts


def _bounds(plan: Plan, stretches: int) -> list[str]:
    """Paths, of no file, at which the folder of parts is divided."""
    count = len(plan.chunks)
    return [layout.parts_of(plan.chunks[place].chunk_id) for place in range(0, count, max(1, -(-count // stretches)))]


def _listed(run: Store, ends: tuple[str, str]) -> list[tuple[Any, ...]]:
    """The files of a stretch, each as plain values: they travel for less."""
    return [tuple(file) for file in between(run, layout.PARTS, *ends)]


def read_part(run: Store, part: FinishedPart) -> PartContent:
    """The chunk's rows in plan order. Raises JobError when a retry holds an image that the chunk's part lacks."""
    executions, files, rows = set(), [], []
    for path in part.paths:
        data, table = _read(run, path)
        executions.add((table.schema.metadata or {}).get(b"execution_class", b"").decode())
        sha256 = hashlib.sha256(data).hexdigest()
        files.append(PartFile(part.chunk.chunk_id, path, table.num_rows, len(data), sha256))
        rows.append(table.to_pylist())
    return PartContent(best_attempts(rows[0], rows[1:], part), executions, files)


def _read(run: Store, path: str) -> tuple[bytes, pa.Table]:
    try:
        data = run.read(path)
        return data, pq.read_table(pa.BufferReader(data))
    except FileNotFoundError:
        raise JobError(f"{run.uri}/{path} was there a moment ago: something removed it. Run again") from None
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{run.uri}/{path} is damaged ({brief(error)}): delete it, and run again") from None


def best_attempts(base: Sequence[Row], retries: Sequence[Sequence[Row]], part: FinishedPart) -> list[Row]:
    """The base's rows, each replaced by a retry's that failed in no more places."""
    best = {row["image_id"]: row for row in base}
    for path, retry in zip(part.retries, retries, strict=True):
        for row in retry:
            if row["image_id"] not in best:
                raise JobError(f"{path} holds {row['image_id']}, which {part.path} does not; delete it and run again")
            if failures(row) <= failures(best[row["image_id"]]):
                best[row["image_id"]] = row
    if len(best) < len(base):  # a doubled row; the accounting says so
        return list(base)
    return [best[row["image_id"]] for row in base]


def failures(row: Row) -> int:
    """Failed rows that a part's row becomes: the image's own, and its masks'."""
    return (row["status"] == "failed") + sum(mask["reason"] is not None for mask in row["masks"])


def _tag(file: StoredFile) -> str:
    return str(file.etag or file.modified_s)


def _stamp(path: str, size: int, tag: str) -> str:
    return f"{path} {size} {tag}"
