"""Finished work: which part files hold which images, and what they say together.

Of an image's attempts the one with the fewest failed rows counts, the later one where they are equal: a retry that
fares worse takes nothing away.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import JobError
from pipeline.planning.chunks import Chunk, Chunks
from pipeline.planning.increment import Plan
from pipeline.storage import Store, StoredFile, brief
from schemas import layout

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


def find_parts(run: Store, plan: Plan) -> list[FinishedPart]:
    """The plan's finished chunks in order; of a chunk cut by several limits the longest part counts."""
    bases: dict[str, tuple[int, StoredFile]] = {}
    retries: dict[str, list[tuple[int, StoredFile]]] = defaultdict(list)
    for file in run.list(layout.PARTS):
        name = layout.part_name(file.path)
        place = plan.chunks.place_of(name.chunk_id) if name else None
        if name is None or place is None:
            continue
        if name.round:
            retries[name.chunk_id].append((name.round, file))
        else:
            images = name.cut or int(plan.chunks.images[place])
            bases[name.chunk_id] = max(bases.get(name.chunk_id, (0, file)), (images, file))
    return [
        _finished(chunk, *bases[chunk.chunk_id], sorted(retries[chunk.chunk_id]))
        for chunk in plan.chunks
        if chunk.chunk_id in bases
    ]


def finished_images(run: Store, chunks: Chunks) -> npt.NDArray[np.int32]:
    """How many images of each chunk are in a part; parts are listed, and not held."""
    done = np.zeros(len(chunks), np.int32)
    for file in run.walk(layout.PARTS):
        name = layout.part_name(file.path)
        place = chunks.place_of(name.chunk_id) if name and not name.round else None
        if name and place is not None:
            done[place] = max(done[place], name.cut or chunks.images[place])
    return done


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


def _finished(chunk: Chunk, images: int, file: StoredFile, retries: Sequence[tuple[int, StoredFile]]) -> FinishedPart:
    files = [file, *(retry for _, retry in retries)]
    return FinishedPart(
        chunk,
        file.path,
        sum(one.size for one in files),
        images,
        tuple(one.path for one in files[1:]),
        tuple(f"{one.path} {one.size} {one.etag or one.modified_s}" for one in files),
    )
