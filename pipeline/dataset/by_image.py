"""A result, shard by shard, as images with their masks: what exports write and what refining again reads.

Sealing writes the masks of a shard in the order of its images, so the two files are read side by side, a row group at
a time, and memory does not grow with the shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset import Result
from pipeline.errors import JobError
from pipeline.storage.tables import undamaged
from schemas.records import MASKS, widen

Row = dict[str, Any]
BATCH_ROWS = 4096


@dataclass(frozen=True)
class Group:
    """One pair of shards of a result; the numbers of its first image and mask count from 0 over all shards."""

    images: str
    masks: str
    first_image: int
    first_mask: int


def groups(result: Result) -> list[Group]:
    """The pairs of shards of the current generation, in order."""
    found: list[Group] = []
    image, mask = 0, 0
    for images, masks in zip(result.manifest.images, result.manifest.masks, strict=True):
        found.append(Group(images.path, masks.path, image, mask))
        image += images.rows
        mask += masks.rows
    return found


def read_group(
    result: Result, group: Group, columns: list[str], where: pc.Expression | None = None
) -> Iterator[tuple[int, Row, list[Row]]]:
    """(number, image row, mask rows) of every image; each mask row with its `number`, and `taken`: if `where` does.

    columns: of the mask rows; `image_id` is always there. Raises JobError when masks and images differ.
    """
    masks = _Masks(result, group, columns, where)
    number = group.first_image
    for batch in read_batches(result, group.images):
        for image in batch.to_pylist():
            yield number, image, masks.of(image)
            number += 1
    masks.end()


def read_batches(result: Result, path: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A Parquet file of the result in batches of at most BATCH_ROWS rows, without columns that it does not have."""
    with undamaged(f"{result.store.uri}/{path}"), result.store.open(path) as file:
        parquet = pq.ParquetFile(file)
        present = None if columns is None else [name for name in columns if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=present):
            yield pa.Table.from_batches([batch])


class _Masks:
    """The mask rows of one shard, handed out image by image."""

    def __init__(self, result: Result, group: Group, columns: list[str], where: pc.Expression | None) -> None:
        self._path = group.masks
        self._rows = self._read(result, group, columns, where)

    def of(self, image: Row) -> list[Row]:
        """The next rows, all those of the image, in the shard's order."""
        found = []
        for _ in range(image["masks"]):
            row = next(self._rows, None)
            if row is None or row["image_id"] != image["image_id"]:
                raise JobError(f"{self._path}: masks and images shards are out of step")
            found.append(row)
        return found

    def end(self) -> None:
        if next(self._rows, None) is not None:
            raise JobError(f"{self._path} holds masks of images that are not in the shard beside it")

    @staticmethod
    def _read(result: Result, group: Group, columns: list[str], where: pc.Expression | None) -> Iterator[Row]:
        number = group.first_mask
        wanted = list(dict.fromkeys(["image_id", *columns]))
        for batch in map(_widened, read_batches(result, group.masks)):
            taken = _taken(batch, where)
            for row, is_taken in zip(batch.select(wanted).to_pylist(), taken, strict=True):
                yield {**row, "number": number, "taken": is_taken}
                number += 1


def _widened(batch: pa.Table) -> pa.Table:
    """Rows of an earlier version, with the columns that there are now."""
    return widen(batch, MASKS)


def _taken(batch: pa.Table, where: pc.Expression | None) -> list[bool]:
    if where is None:
        return [True] * batch.num_rows
    marked = batch.append_column("__row", pa.array(range(batch.num_rows), pa.int32()))
    kept = set(marked.filter(where)["__row"].to_pylist())
    return [row in kept for row in range(batch.num_rows)]
