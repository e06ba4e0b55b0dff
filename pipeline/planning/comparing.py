"""Hash ranges compared with the earlier plan, and the files of increments written: both wherever that is done.

A chunk's name counts the chunks before it, so a file can be written once all ranges before its own are compared. Both
kinds of work go out in one stream, and come back in the order in which they went.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from pipeline.planning.draft import ChunkLimits, Compared, Draft, Planned, Unwritten, Written, cut, write
from pipeline.planning.earlier import Earlier
from pipeline.planning.listed import Narrowing, join
from pipeline.planning.rows import difference, finish
from pipeline.planning.spill import Ranged, Row, buckets
from pipeline.sources.coverage import Coverage
from pipeline.storage import Store, StoredFile
from pipeline.storage.documents import Committed
from pipeline.storage.lease import Fence
from schemas import layout
from schemas.layout import HashRange
from schemas.records import PLAN, conform

Work = HashRange | Unwritten | None
"""A hash range to be compared, a file to be written; None: nothing, while all there is waits for what others do."""


@dataclass(frozen=True)
class Step:
    """Does one piece of work; it is sent to where that is done. rows: of the source; files: that were listed;
    containers: those that images are in. coverage: an empty one, as those that it tells of files are. attempt: of the
    shuffle by which rows get to who writes them; None: that is this process.
    """

    output: Store
    rows: Ranged
    files: Ranged
    before: Sequence[Committed]
    limits: ChunkLimits
    prune: bool
    containers: Mapping[str, StoredFile]
    coverage: Coverage
    attempt: str | None = None

    @cached_property
    def _earlier(self) -> Earlier:
        return Earlier(self.output, self.before)

    def __call__(self, work: Work) -> Iterator[Compared | Written]:
        if isinstance(work, Unwritten):
            yield write(self.output, work)
        elif work is not None:
            coverage = self.coverage.fresh()
            for bucket in buckets(self.rows, self.files, work, Narrowing(self.containers, coverage)):
                is_last = bucket.place.span.stop == work.span.stop
                rows = join(bucket, self.containers, coverage)
                yield self._compared(bucket.place, finish(rows), coverage if is_last else None)

    def _compared(self, place: HashRange, rows: list[Row], coverage: Coverage | None) -> Compared:
        known = self._earlier.live(place.span, None if self.prune else [row["image_id"] for row in rows])
        fresh, replaced, unchanged = difference(rows, known, self.prune)
        table = conform(pa.Table.from_pylist(fresh, PLAN), PLAN) if fresh else None
        return Compared(place, self._kept(place, table), cut(fresh, self.limits), replaced, unchanged, coverage)

    def _kept(self, place: HashRange, table: pa.Table | None) -> pa.Table | str | None:
        if table is None or self.attempt is None:
            return table
        path = layout.compared(self.attempt, place)
        self.output.put_parquet(path, table)
        return path


class Drafts:
    """The increments of one planning step, one after the other. most: new rows after which the next one begins."""

    def __init__(self, output: Store, number: int, most: int) -> None:
        self._output, self._most = output, most
        self._drafts = deque([Draft(output, number, 0)])
        self._to_write: deque[Unwritten] = deque()
        self._at_work = 0

    def work(self, places: Iterable[HashRange]) -> Iterator[Work]:
        """All that there is to do, as it is asked for: files as soon as they can be written, so that few wait."""
        for place in places:
            yield from self._writes()
            self._at_work += 1
            yield place
        while self._at_work or self._to_write:
            if not self._to_write:
                yield None
            yield from self._writes()

    def take(self, found: Compared | Written) -> None:
        """What came back."""
        if isinstance(found, Written):
            next(draft for draft in self._drafts if draft.waits_for(found.path)).written(found)
            return
        self._at_work -= found.coverage is not None
        draft = self._drafts[-1]
        if draft.rows >= self._most:
            draft.stop = found.place.span.start
            draft = Draft(self._output, draft.number + 1, draft.stop)
            self._drafts.append(draft)
        if (unwritten := draft.add(found)) is not None:
            self._to_write.append(unwritten)

    def commit(self, fence: Fence, *, at_end: bool = False) -> Planned:
        """Commit what is whole: a step that is killed has done that, and is not asked for it again."""
        planned = Planned(None)
        while self._drafts and self._drafts[0].is_written and (at_end or len(self._drafts) > 1):
            planned += self._drafts.popleft().commit(fence)
        return planned

    def _writes(self) -> Iterator[Unwritten]:
        while self._to_write:
            yield self._to_write.popleft()
