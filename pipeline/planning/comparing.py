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
from pipeline.planning.spill import Bucket, Row, divided
from pipeline.sources.coverage import Coverage
from pipeline.storage import Store, StoredFile
from pipeline.storage.documents import Committed
from pipeline.storage.lease import Fence
from schemas.layout import HashRange
from schemas.records import PLAN, conform

Work = Bucket | Unwritten | None
"""None: nothing, while all that there is to do waits for what others do."""


@dataclass(frozen=True)
class Step:
    """Does one piece of work; it is sent to where that is done. containers: files that images are in, as they were
    listed. coverage: an empty one, as those that it tells of files are.
    """

    output: Store
    before: Sequence[Committed]
    limits: ChunkLimits
    prune: bool
    containers: Mapping[str, StoredFile]
    coverage: Coverage

    @cached_property
    def _earlier(self) -> Earlier:
        return Earlier(self.output, self.before)

    def __call__(self, work: Work) -> Iterator[Compared | Written]:
        if isinstance(work, Unwritten):
            yield write(self.output, work)
        elif work is not None:
            coverage = self.coverage.fresh()
            for bucket in divided(work, Narrowing(self.containers, coverage)):
                is_last = bucket.place.span.stop == work.place.span.stop
                rows = join(bucket, self.containers, coverage)
                yield self._compared(bucket.place, finish(rows), coverage if is_last else None)

    def _compared(self, place: HashRange, rows: list[Row], coverage: Coverage | None) -> Compared:
        known = self._earlier.live(place.span, None if self.prune else [row["image_id"] for row in rows])
        fresh, replaced, unchanged = difference(rows, known, self.prune)
        table = conform(pa.Table.from_pylist(fresh, PLAN), PLAN) if fresh else None
        return Compared(place, table, cut(fresh, self.limits), replaced, unchanged, coverage)


class Drafts:
    """The increments of one planning step, one after the other. most: new rows after which the next one begins."""

    def __init__(self, output: Store, number: int, most: int) -> None:
        self._output, self._most = output, most
        self._drafts = deque([Draft(output, number, 0)])
        self._to_write: deque[Unwritten] = deque()
        self._at_work = 0

    def work(self, buckets: Iterable[Bucket]) -> Iterator[Work]:
        """All that there is to do, as it is asked for: files as soon as they can be written, so that few wait."""
        for bucket in buckets:
            yield from self._writes()
            self._at_work += 1
            yield bucket
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
