"""One image with its decoded masks, as arrays: what a feed is made of. No torch here.

Not here: order and shares (`order.py`), tensors and transforms (`feed.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.order import BLOCK_ROWS, Index, Integers, index_shard, join
from pipeline.dataset.result import READERS, Result
from pipeline.dataset.streaming import Blocks
from pipeline.decoding.decode import ImageArray, decode_image
from pipeline.errors import ImageError, RefusedError
from pipeline.masks import binary
from pipeline.storage import STORE_ERRORS, Store, brief
from pipeline.storage.containers import read_image
from pipeline.storage.paths import safe_relative
from schemas.config import Method
from schemas.manifest import Shard

T = TypeVar("T")
U = TypeVar("U")

LABELS = ("mask_rle", "refined_rle", "coarse_rle")
ROW_COLUMNS = ["mask_id", "image_id", "image_uri", "height", "width", "category_id", "category", "quality"]


class Photos(NamedTuple):
    """Where a result's images are read from, single files or members of containers."""

    store: Store
    max_pixels: int = Method().max_image_pixels

    @classmethod
    def of(cls, result: Result, images_root: str | None = None) -> Photos:
        """The run's image folder, or where it is now."""
        return cls(Store(images_root or result.manifest.images_root, result.store.access))

    def read(self, image_uri: str, size_hw: tuple[int, int] | None) -> ImageArray:
        """(H, W, 3) uint8 RGB of the size that its masks have. Raises ImageError with a reason code."""
        if not safe_relative(image_uri):
            raise ImageError("image_outside_root", image_uri)
        try:
            data = read_image(self.store, image_uri)
        except STORE_ERRORS as error:
            raise ImageError("storage", f"{image_uri}: {brief(error)}") from None
        pixels = decode_image(data, self.max_pixels, size_hw)
        if size_hw is not None and pixels.shape[:2] != size_hw:
            raise ImageError("image_unreadable", f"{image_uri} is {pixels.shape[:2]} now, its masks are {size_hw}")
        return pixels


class Sample(NamedTuple):
    """An image and its N masks. image (H, W, 3) uint8 RGB; masks (N, H, W) uint8 {0, 1}; boxes (N, 4) float32 xyxy."""

    image: ImageArray
    masks: npt.NDArray[np.uint8]
    boxes_xyxy: npt.NDArray[np.float32]
    rows: list[dict[str, Any]]


def usable(where: pc.Expression | None, label: str) -> dict[str, pc.Expression]:
    """The columns that an index is made of. label: one of LABELS. Failed masks never count, nor empty ones."""
    if label not in LABELS:
        raise RefusedError(f"label {label!r}: a result has {', '.join(LABELS)}")
    kept = (pc.field("decision") != "failed") & pc.field(label).is_valid()
    if label == "refined_rle":
        kept &= pc.field("area_ratio") > 0
    return {"image_id": pc.field("image_id"), "kept": kept if where is None else kept & where}


def build_index(result: Result, where: pc.Expression | None, label: str) -> Index:
    """The images that have a mask to train on; see `usable`. Reads only the columns that the filter names.

    Raises RefusedError when nothing is left.
    """
    columns = usable(where, label)
    with ThreadPoolExecutor(READERS) as pool:
        tables = pool.map(lambda path: result.store.scan(path, columns), result.files())
        index = join([index_shard(number, *_changes_and_kept(table)) for number, table in enumerate(tables)])
    if not len(index):
        raise RefusedError(f"{result.store.uri}: no mask to train on is left by the filter {where}")
    return index


def index_blocks(result: Result, blocks: Blocks, columns: dict[str, pc.Expression]) -> Index:
    """The index of the images that begin in some blocks; columns: of `usable`."""
    shards = result.manifest.masks
    places = sorted(zip(blocks.file.tolist(), blocks.start.tolist(), strict=True))
    with ThreadPoolExecutor(len(places)) as pool:
        parts = list(pool.map(lambda place: _index_block(result.store, shards[place[0]], place, columns), places))
    kept = {file: np.zeros(shards[file].rows, bool) for file, _ in places}
    for one in parts:
        kept[one.file][one.rows.start : one.rows.stop] |= one.kept
    return Index(
        np.concatenate([np.full(len(one.starts), one.file, np.int64) for one in parts]),
        np.concatenate([one.starts for one in parts]),
        np.concatenate([one.counts for one in parts]),
        kept,
    )


class _Block(NamedTuple):
    """The images that begin in a block: first row and number of rows of each. kept: of the rows that were read."""

    file: int
    rows: range
    kept: npt.NDArray[np.bool_]
    starts: Integers
    counts: Integers


def _index_block(store: Store, shard: Shard, place: tuple[int, int], columns: dict[str, pc.Expression]) -> _Block:
    """With the row before it, which tells whether an image begins with the block, and the rest of its last image."""
    file, start = place
    stop = min(start + BLOCK_ROWS, shard.rows)
    rows = range(max(0, start - 1), stop)
    while True:
        rows = range(rows.start, min(rows.stop + BLOCK_ROWS, shard.rows))
        changes, kept = _changes_and_kept(store.scan(shard.path, columns, rows=rows))
        if rows.stop == shard.rows or rows.start + np.flatnonzero(changes)[-1] >= stop:
            break
    index = index_shard(file, changes, kept)
    starts = index.start + rows.start
    here = (starts >= start) & (starts < stop)
    return _Block(file, rows, kept, starts[here], index.rows[here])


def _changes_and_kept(table: pa.Table) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of each row: whether it is the first of its image, whether it is kept."""
    ids = table["image_id"].combine_chunks()
    changes = np.ones(len(ids), bool)
    if len(ids) > 1:
        changes[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return changes, np.asarray(pc.fill_null(table["kept"], False).to_numpy(), bool)


def read_rows(result: Result, index: Index, images: Integers, label: str) -> list[list[dict[str, Any]]]:
    """The kept rows of each image, in the order of `images`. What lies together in a shard is fetched together."""
    found: dict[int, list[dict[str, Any]]] = {}
    paths = result.files()
    for group in _neighbours(index, np.sort(images)):
        file, first, last = index.file[group[0]], index.start[group[0]], group[-1]
        count = int(index.start[last] + index.rows[last] - first)
        table = result.store.read_rows(paths[file], int(first), count, [*ROW_COLUMNS, label])
        for image in group:
            start, rows = int(index.start[image]), int(index.rows[image])
            kept = pa.array(index.kept[file][start : start + rows])
            found[int(image)] = table.slice(start - int(first), rows).filter(kept).to_pylist()
    return [found[int(image)] for image in images]


def read_all(result: Result, index: Index, label: str) -> tuple[pa.Table, Integers]:
    """Every kept row, and (images + 1,) offsets: image i has the rows [offsets[i], offsets[i + 1])."""
    tables, counts = [], []
    for number, path in enumerate(result.files()):
        kept, start = index.kept[number], index.start[index.file == number]
        if len(start):
            tables.append(result.store.read_parquet(path, [*ROW_COLUMNS, label]).filter(pa.array(kept)))
            # Images without a kept row add nothing to the one before them.
            counts.append(np.add.reduceat(kept.astype(np.int64), start))
    return pa.concat_tables(tables), np.concatenate([[0], np.cumsum(np.concatenate(counts))])


def decode_sample(photos: Photos, rows: list[dict[str, Any]], label: str) -> Sample:
    """Fetch and decode an image and the masks in its rows. Raises ImageError or MaskError, naming the image."""
    height, width = rows[0]["height"], rows[0]["width"]
    pixels = photos.read(rows[0]["image_uri"], (height, width))
    boxes = np.array([binary.bbox_xywh(row[label]) for row in rows], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return Sample(pixels, np.stack([binary.decode(row[label]) for row in rows]), boxes, rows)


def ahead(function: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """`function` of each item, in order, computed `threads` items ahead."""
    pending: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _neighbours(index: Index, images: Integers) -> list[Integers]:
    """Sorted images in groups that one read serves: the same shard, and no more than a few rows in between."""
    gap = index.start[images[1:]] - (index.start[images[:-1]] + index.rows[images[:-1]])
    apart = (np.diff(index.file[images]) != 0) | (gap > MAX_GAP_ROWS)
    return np.split(images, np.flatnonzero(apart) + 1)


MAX_GAP_ROWS = 4096  # reading a row group costs as much as reading a part of it
