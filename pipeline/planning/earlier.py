"""What earlier increments have of some images: of a plan of any size, only what may hold them is read.

Rows lie in files by hash range of the image id, and in row groups by the id itself. What a file's name and its footer
say is all the index that there is; nothing else has to be kept right.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.planning.spill import Row, hash_of
from pipeline.storage import Store, tables
from pipeline.storage.documents import Committed
from schemas import layout
from schemas.attempts import HASHES

COLUMNS = ["image_id", "masks_digest", "etag", "size_bytes", "chunk_id"]
AHEAD_BYTES = 1 << 16
READERS = 16
KEPT_TABLES = 16
EVERYTHING = range(HASHES)


class _Bucket(NamedTuple):
    start: int
    span: range
    path: str


class _Increment(NamedTuple):
    """One increment: the images that it is about, its files in the order of their spans, what it supersedes."""

    span: range
    buckets: list[_Bucket]
    superseded: str | None


class Earlier:
    """The committed increments, to be asked for what they have of some images."""

    def __init__(self, output: Store, before: Sequence[Committed]) -> None:
        self._output = output
        self._increments = [_increment(one) for one in before]
        self._superseded = lru_cache(KEPT_TABLES)(self._read_superseded)

    def live(self, span: range, image_ids: Collection[str] | None) -> dict[str, Row]:
        """Rows (COLUMNS) by image id: of these images, or with None of all those whose ids hash into the span."""
        wanted = None if image_ids is None else sorted((hash_of(image_id), image_id) for image_id in image_ids)
        known: dict[str, Row] = {}
        with ThreadPoolExecutor(READERS) as pool:
            for one in (one for one in self._increments if _overlap(one.span, span)):
                for image_id in self._gone(one, known):
                    known.pop(image_id, None)
                asked = [(bucket, _within(bucket.span, wanted)) for bucket in _overlapping(one.buckets, span)]
                for rows in pool.map(self._rows, *zip(*asked, strict=True)) if asked else ():
                    known.update({row["image_id"]: row for row in rows if hash_of(row["image_id"]) in span})
        return known

    def _rows(self, bucket: _Bucket, image_ids: list[str] | None) -> list[Row]:
        if image_ids is None:
            return list(self._output.read_parquet(bucket.path, COLUMNS).to_pylist())
        if not image_ids:
            return []
        with (
            tables.undamaged(f"{self._output.uri}/{bucket.path}"),
            self._output.open(bucket.path, AHEAD_BYTES) as file,
        ):
            return list(tables.find_rows(file, "image_id", image_ids, COLUMNS).to_pylist())

    def _gone(self, one: _Increment, image_ids: Collection[str]) -> list[str]:
        """Those of the images of which the increment replaces or prunes what was there."""
        if one.superseded is None or not image_ids:
            return []
        found = self._superseded(one.superseded)
        return list(found.filter(pc.is_in(found, pa.array(image_ids, pa.string()))).to_pylist())

    def _read_superseded(self, path: str) -> pa.ChunkedArray:
        return self._output.read_parquet(path, ["image_id"])["image_id"]


def _increment(one: Committed) -> _Increment:
    ranges = [(name, place) for name in one.marker.sha256 if (place := layout.bucket_range(name))]
    buckets = sorted(_Bucket(place.span.start, place.span, one.files.file(name)) for name, place in ranges)
    span = EVERYTHING if one.marker.span is None else range(*one.marker.span)
    return _Increment(span, buckets, one.files.superseded if one.marker.superseded else None)


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _overlapping(buckets: Sequence[_Bucket], span: range) -> Iterator[_Bucket]:
    """Those of an increment's files, which do not overlap each other, that hold ids of the span."""
    first = max(0, bisect_left(buckets, span.start + 1, key=lambda bucket: bucket.start) - 1)
    for bucket in buckets[first:]:
        if bucket.start >= span.stop:
            break
        if _overlap(bucket.span, span):
            yield bucket


def _within(span: range, wanted: list[tuple[int, str]] | None) -> list[str] | None:
    """The ids that hash into the span, sorted; wanted: hashes and ids, sorted."""
    if wanted is None:
        return None
    low, high = bisect_left(wanted, (span.start, "")), bisect_left(wanted, (span.stop, ""))
    return sorted(image_id for _, image_id in wanted[low:high])
