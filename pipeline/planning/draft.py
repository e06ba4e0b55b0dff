"""An increment on its way: its files are written as the hash ranges come, and what names it last."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa

from pipeline.masks.frames import ORIGINAL_SIZE, resized_hw
from pipeline.planning.attempts import commit
from pipeline.planning.chunks import Chunk
from pipeline.planning.rows import chunk_digest
from pipeline.planning.spill import Row
from pipeline.sources.coverage import Coverage
from pipeline.storage import Store
from pipeline.storage.lease import Fence
from schemas import layout
from schemas.attempts import HASHES
from schemas.manifest import Marker
from schemas.records import CHUNKS, PLAN, SUPERSEDED, conform

ROW_GROUP_ROWS = 256
PLAN_CHUNKS = 16_384
CHUNK_MASKS = 8192
"""Of a chunk that is larger than it was asked to be."""


@dataclass(frozen=True)
class ChunkLimits:
    """How large a chunk may be: images, and bytes of their pixels as they travel to the model, by declared size.

    most: images of a chunk where there are millions (`of_plan`). masks: at most, 0 for any number. unknown_bytes: of an
    image whose size is not declared. side: the long side (stretched: each), in pixels, to which images are reduced (or,
    unless at_most, enlarged) when they are loaded; ORIGINAL_SIZE: none.
    """

    images: int
    decoded_bytes: int
    side: int = ORIGINAL_SIZE
    stretched: bool = False
    at_most: bool = False
    most: int = 0
    masks: int = 0
    unknown_bytes: int = 0

    def of_plan(self, images: int) -> ChunkLimits:
        """For so many new images: larger where there would be more than PLAN_CHUNKS, since what a chunk costs beside
        its images (a task, a part, a row of the plan) is paid for each.
        """
        larger = min(self.most, images // PLAN_CHUNKS)
        if larger <= self.images:
            return self
        return replace(self, images=larger, masks=CHUNK_MASKS, unknown_bytes=self.decoded_bytes // self.images)

    def bytes_of(self, row: Row) -> int:
        """Of one planned image."""
        size_hw = (row["height"] or 0, row["width"] or 0)
        if not all(size_hw):
            return self.unknown_bytes
        height, width = resized_hw(size_hw, self.side, self.stretched, self.at_most)
        return height * width * 3


@dataclass(frozen=True)
class Planned:
    """What one planning step found: image and mask counts of the increments it added (all 0 when nothing was new).

    increment: the last of them, None when there is none.
    """

    increment: int | None
    images: int = 0
    masks: int = 0
    chunks: int = 0
    superseded: int = 0
    unchanged: int = 0

    def __add__(self, later: Planned) -> Planned:
        increment = self.increment if later.increment is None else later.increment
        numbers = ("images", "masks", "chunks", "superseded", "unchanged")
        return Planned(increment, *(getattr(self, name) + getattr(later, name) for name in numbers))


class Cut(NamedTuple):
    """A chunk that has no name yet. digest: the last part of its id."""

    images: int
    masks: int
    digest: str


class Compared(NamedTuple):
    """What was found in a hash range: new and changed rows (schema PLAN, in no chunk yet, or the path of the file that
    has them; None where there are none), the chunks that they are cut into, the rows that they replace or that are
    pruned. coverage: with the last range of one that was asked for, what was found about the files of `--images` in all
    of it.
    """

    place: layout.HashRange
    rows: pa.Table | str | None
    chunks: list[Cut]
    replaced: list[dict[str, str]]
    unchanged: int
    coverage: Coverage | None


class Unwritten(NamedTuple):
    """A file of rows (as `Compared` has them) that is not written yet, and the chunks that they are in: ids and images
    of each.
    """

    path: str
    rows: pa.Table | str
    chunks: list[tuple[str, int]]


class Written(NamedTuple):
    """A file that is there now."""

    path: str
    sha256: str


def write(output: Store, file: Unwritten) -> Written:
    """Write it, each row with its chunk's id."""
    ids = pa.array([chunk_id for chunk_id, images in file.chunks for _ in range(images)], pa.string())
    rows = conform(output.read_parquet(file.rows), PLAN) if isinstance(file.rows, str) else file.rows
    table = rows.set_column(rows.schema.get_field_index("chunk_id"), PLAN.field("chunk_id"), ids)
    return _put(output, file.path, table, ROW_GROUP_ROWS)


def _put(output: Store, path: str, table: pa.Table, row_group_rows: int | None = None) -> Written:
    return Written(path, hashlib.sha256(output.put_parquet(path, table, row_group_rows)).hexdigest())


class Draft:
    """Increment `number`, from the first of the hashes on to those below `stop`. Nothing of it counts before
    `commit`.
    """

    def __init__(self, output: Store, number: int, start: int) -> None:
        self.number, self.stop = number, HASHES
        self._output, self._start = output, start
        self._files = layout.Increment(number, uuid.uuid4().hex)
        self._chunks: list[Chunk] = []
        self._replaced: list[dict[str, str]] = []
        self._sha256: dict[str, str] = {}
        self._unwritten: set[str] = set()
        self._images = self._unchanged = 0

    @property
    def rows(self) -> int:
        """New, changed and pruned images."""
        return self._images + len(self._replaced)

    @property
    def is_written(self) -> bool:
        """Whether all that `add` gave is."""
        return not self._unwritten

    def waits_for(self, path: str) -> bool:
        """Whether a file was given by `add`, and is not written."""
        return path in self._unwritten

    def add(self, found: Compared) -> Unwritten | None:
        """What was found in the next hash range; returns the file of its rows, where it has some."""
        self._replaced += found.replaced
        self._unchanged += found.unchanged
        if found.rows is None:
            return None
        path = self._files.bucket(*found.place)
        chunks = list(self._named(found.chunks, self._files.said(path)))
        self._chunks += chunks
        self._images += sum(chunk.images for chunk in chunks)
        self._unwritten.add(path)
        return Unwritten(path, found.rows, [(chunk.chunk_id, chunk.images) for chunk in chunks])

    def written(self, file: Written) -> None:
        """One of the files that `add` gave is there."""
        self._unwritten.discard(file.path)
        self._sha256[layout.name_of(file.path)] = file.sha256

    def _named(self, cuts: list[Cut], path: str) -> Iterator[Chunk]:
        """The chunks of the next file, by their place in the increment."""
        start, first = 0, len(self._chunks)
        for ordinal, one in enumerate(cuts, first):
            chunk_id = layout.chunk_id(self._files.number, ordinal, one.digest)
            yield Chunk(chunk_id, path, start, one.images, one.masks)
            start += one.images

    def commit(self, fence: Fence) -> Planned:
        """Let it be the increment, once it is written; nothing where there is nothing new. Raises JobError where
        another one is.
        """
        if not self.rows:
            return Planned(None, unchanged=self._unchanged)
        chunks = self._chunks
        masks = sum(chunk.masks for chunk in chunks)
        planned = Planned(self._files.number, self._images, masks, len(chunks), len(self._replaced), self._unchanged)
        self.written(
            _put(self._output, self._files.chunks, pa.Table.from_pylist([vars(one) for one in chunks], CHUNKS))
        )
        if self._replaced:
            replaced = pa.Table.from_pylist(self._replaced, SUPERSEDED)
            self.written(_put(self._output, self._files.superseded, replaced))
        fence()
        span = None if (self._start, self.stop) == (0, HASHES) else (self._start, self.stop)
        commit(self._output, self._files, Marker(**vars(planned), sha256=self._sha256, span=span))
        return planned


def cut(rows: list[Row], limits: ChunkLimits) -> list[Cut]:
    """Cut sorted rows into chunks."""
    chunks: list[Cut] = []
    start = 0
    while start < len(rows):
        end, decoded, masks = start, 0, 0
        while end < len(rows) and end - start < limits.images:
            decoded += limits.bytes_of(rows[end])
            masks += len(rows[end]["masks"])
            if end > start and (decoded > limits.decoded_bytes or masks > (limits.masks or masks)):
                break
            end += 1
        members = rows[start:end]
        chunks.append(Cut(len(members), sum(len(row["masks"]) for row in members), chunk_digest(members)))
        start = end
    return chunks
