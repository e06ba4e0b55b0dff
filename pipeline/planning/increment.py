"""Planning: what the sources hold and the plan does not have yet becomes one committed increment of chunks.

Its files are `layout.Increment`'s, and it counts from when it is named (`attempts.py`).

Rows are spilled to disk by hash range while the source is read, and deduplicated and compared with the earlier
increments one range at a time, so memory does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError, RefusedError
from pipeline.masks.frames import ORIGINAL_SIZE, Frame
from pipeline.planning.attempts import adopt, commit, discard, increments, leftovers
from pipeline.planning.rows import chunk_digest, difference, finish, to_row
from pipeline.planning.spill import Row, Spill, hash_range
from pipeline.sources import PlannedImage
from pipeline.storage import Store, StoredFile
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.documents import Committed
from pipeline.storage.lease import Fence, Hold, unguarded
from schemas import layout
from schemas.manifest import IncrementHash, Marker
from schemas.records import CHUNKS, PLAN, SUPERSEDED, conform, widen

ROW_GROUP_ROWS = 256


@dataclass(frozen=True)
class ChunkLimits:
    """How large a chunk may be: images, and bytes of their pixels as they travel to the model, by declared size.

    side: the long side, in pixels, to which images are reduced (or enlarged) when they are loaded; ORIGINAL_SIZE: none.
    """

    images: int
    decoded_bytes: int
    side: int = ORIGINAL_SIZE

    def bytes_of(self, row: Row) -> int:
        """Of one planned image; 0 where its source does not say its size."""
        size_hw = (row["height"] or 0, row["width"] or 0)
        if not all(size_hw):
            return 0
        height, width = size_hw if self.side == ORIGINAL_SIZE else Frame(size_hw, self.side).input_hw
        return height * width * 3


@dataclass(frozen=True)
class Chunk:
    """The unit of work, retry and commit: rows [row_start, row_start + images) of one plan file."""

    chunk_id: str
    file: str
    row_start: int
    images: int
    masks: int


@dataclass(frozen=True)
class Planned:
    """What one planning step found: image and mask counts of the increment it added (all 0 when nothing was new)."""

    increment: int | None
    images: int = 0
    masks: int = 0
    chunks: int = 0
    superseded: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class Plan:
    """Every committed increment: its chunks in order, but for those of which later increments superseded every row,
    and the superseded rows of the others.
    """

    chunks: list[Chunk]
    superseded: frozenset[tuple[str, str]]  # (chunk_id, image_id)
    increments: int
    markers: list[IncrementHash] = field(default_factory=list)

    @property
    def images(self) -> int:
        return sum(chunk.images for chunk in self.chunks) - len(self.superseded)


def read_plan(output: Store, numbers: Sequence[int] | None = None) -> Plan:
    """The committed plan of an output, or some increments of it; empty when there is none."""
    chunks: list[Chunk] = []
    superseded: set[tuple[str, str]] = set()
    found = increments(output, numbers)
    for one in found:
        chunks += read_chunks(output, one.files)
        superseded |= {(row["chunk_id"], row["image_id"]) for row in _superseded(output, one)}
    markers = [IncrementHash(increment=one.files.number, sha256=one.sha256) for one in found]
    gone = Counter(chunk_id for chunk_id, _ in superseded)
    live = [chunk for chunk in chunks if gone[chunk.chunk_id] < chunk.images]
    ids = {chunk.chunk_id for chunk in live}
    return Plan(live, frozenset(pair for pair in superseded if pair[0] in ids), len(found), markers)


def read_chunks(output: Store, increment: layout.Increment) -> list[Chunk]:
    """An increment's chunks, in order."""
    rows = output.read_parquet(increment.chunks).to_pylist()
    return [Chunk(**{**row, "file": increment.file(layout.name_of(row["file"]))}) for row in rows]


def _superseded(output: Store, one: Committed) -> list[dict[str, str]]:
    return output.read_parquet(one.files.superseded).to_pylist() if one.marker.superseded else []


def all_chunk_ids(output: Store) -> frozenset[str]:
    """The ids of every committed chunk, superseded ones included."""
    return frozenset(chunk.chunk_id for one in increments(output) for chunk in read_chunks(output, one.files))


def plan(
    output: Store,
    images: Iterable[PlannedImage],
    listed: Mapping[str, StoredFile],
    limits: ChunkLimits,
    *,
    prune: bool = False,
    hold: Hold = unguarded,
    on_image: Callable[[int], None] = lambda _count: None,
) -> Planned:
    """Commit an increment with the images that are new or changed. Raises RefusedError when nothing matched.

    listed: the image root's listing, whose sizes and tags (`rows.tag`) tell changed images. hold: the output's lease,
    taken once the source is read. on_image: called with 1 for each image read, for progress.
    """
    with scratch_folder("plan") as folder:
        spill = Spill(folder)
        for image in images:
            container = image.member["container"] if image.member else image.image_uri
            spill.add(to_row(image, listed.get(container)))
            on_image(1)
        if spill.rows == 0:
            raise RefusedError("no image matched: the source contains no images: check --images and --masks")
        with hold() as fence:
            adopt(output)
            planned = _commit(output, increments(output), spill, limits, prune, fence)
            _tidy(output, fence)
            return planned


def _tidy(output: Store, fence: Fence) -> None:
    """Remove what killed steps left. Who lost the lease leaves it to who has it."""
    with suppress(JobError):
        fence()
        for path in discard(output, leftovers(output)):
            output.delete(path)


def _commit(
    output: Store, before: Sequence[Committed], spill: Spill, limits: ChunkLimits, prune: bool, fence: Fence
) -> Planned:
    number = len(before)
    increment = layout.Increment(number, uuid.uuid4().hex)
    chunks: list[Chunk] = []
    replaced: list[dict[str, str]] = []
    files: dict[str, str] = {}
    unchanged = 0

    def put(path: str, table: pa.Table, row_group_rows: int | None = None) -> None:
        data = output.put_parquet(path, table, row_group_rows)
        files[layout.name_of(path)] = hashlib.sha256(data).hexdigest()

    for low, high in spill.buckets():
        known = _known(output, before, low, high)
        rows, old, same = difference(finish(spill.read(low, high)), known, prune)
        replaced += old
        unchanged += same
        if rows:
            path = increment.bucket(low, high)
            chunks += _cut(rows, limits, number, len(chunks), increment.said(path))
            put(path, conform(pa.Table.from_pylist(rows, PLAN), PLAN), ROW_GROUP_ROWS)
    if not chunks and not replaced:
        return Planned(None, unchanged=unchanged)
    planned = Planned(
        number, sum(c.images for c in chunks), sum(c.masks for c in chunks), len(chunks), len(replaced), unchanged
    )
    put(increment.chunks, pa.Table.from_pylist([vars(c) for c in chunks], CHUNKS))
    if replaced:
        put(increment.superseded, pa.Table.from_pylist(replaced, SUPERSEDED))
    fence()
    commit(output, increment, Marker(**vars(planned), sha256=files))
    return planned


def _cut(rows: list[Row], limits: ChunkLimits, increment: int, ordinal: int, path: str) -> list[Chunk]:
    """Cut sorted rows into chunks, writing each row's `chunk_id`."""
    chunks: list[Chunk] = []
    start = 0
    while start < len(rows):
        end, decoded = start, 0
        while end < len(rows) and end - start < limits.images:
            decoded += limits.bytes_of(rows[end])
            if end > start and decoded > limits.decoded_bytes:
                break
            end += 1
        members = rows[start:end]
        chunk_id = layout.chunk_id(increment, ordinal + len(chunks), chunk_digest(members))
        for row in members:
            row["chunk_id"] = chunk_id
        chunks.append(Chunk(chunk_id, path, start, len(members), sum(len(row["masks"]) for row in members)))
        start = end
    return chunks


def _known(output: Store, before: Sequence[Committed], low: int, high: int) -> dict[str, Row]:
    """Live rows of the earlier increments whose ids hash into [low, high]: image id -> digest, etag, size, chunk."""
    known: dict[str, Row] = {}
    columns = ["image_id", "masks_digest", "etag", "size_bytes", "chunk_id"]
    for one in before:
        for row in _superseded(output, one):
            known.pop(row["image_id"], None)
        for name in one.marker.sha256:
            covered = layout.bucket_range(name)
            if covered and covered[0] <= high and covered[1] >= low:
                rows = output.read_parquet(one.files.file(name), columns).to_pylist()
                known.update({row["image_id"]: row for row in rows if low <= hash_range(row["image_id"]) <= high})
    return known


def read_chunk(output: Store, chunk: Chunk) -> pa.Table:
    """The plan rows of one chunk (schema PLAN), checked against the chunk's id."""
    table = output.read_rows(chunk.file, chunk.row_start, chunk.images)
    if table.num_rows != chunk.images or pc.unique(table["chunk_id"]).to_pylist() != [chunk.chunk_id]:
        raise RefusedError(f"the plan is damaged: {chunk.file} does not hold chunk {chunk.chunk_id}")
    return conform(widen(table, PLAN), PLAN)
