"""The training feed: a result as PyTorch datasets, one sample an image with its masks.

A sample is (image, target), as torchvision's detection models and v2 transforms take it:

    image    tv_tensors.Image (3, H, W) uint8 RGB
    target   boxes     tv_tensors.BoundingBoxes (N, 4) float32 XYXY in pixels
             masks     tv_tensors.Mask (N, H, W) uint8 {0, 1}
             labels    (N,) int64, the source's category_id (0 where it has none)
             quality   (N,) float32 in [0, 1], NaN where it is not known
             mask_ids  N strings; image_id, one string

`MaskDataset` holds the labels in memory (about half a kilobyte a mask) and gives any image: for up to some millions of
masks. `MaskStream` reads them as it goes, shuffled, each rank and worker its share, and resumes at any step on any
number of machines. Images are fetched from the run's image folder by either.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torchvision import tv_tensors

from pipeline.dataset.filter_expression import Where, as_expression
from pipeline.dataset.order import Index, Integers, Share, own_images, own_positions, windows
from pipeline.dataset.result import Result, open_result
from pipeline.dataset.samples import (
    Photos,
    Sample,
    ahead,
    build_index,
    decode_sample,
    index_blocks,
    read_all,
    read_rows,
    usable,
)
from pipeline.dataset.streaming import UNKNOWN, blocks_of, latest, no_begins, own_found, windows_from
from pipeline.dataset.verdicts import rejected
from pipeline.errors import RefusedError
from pipeline.storage import Access, Store
from schemas.manifest import Shard

Target = dict[str, Any]
Item = tuple[tv_tensors.Image, Target]
INDEXED_SHARDS = 1024
"""Of so many, a stream looks at all images before the first; of a result of more, as it comes to them."""

Transform = Callable[[tv_tensors.Image, Target], tuple[Any, Target]]


class MaskDataset(Dataset[Item]):
    """Images by number, in the result's order: for `DataLoader(dataset, shuffle=True, collate_fn=collate)`.

    output      what `relabel run --output` named
    where       which masks, as `--where` has it or as an Arrow expression, e.g. "quality >= 0.5"; failed ones never
                count, nor rejected ones (`relabel review`), nor images left without any
    label       mask_rle (the one to train on), refined_rle or coarse_rle
    transforms  called with (image, target), e.g. torchvision.transforms.v2
    images_root where the images are now, if not where the run found them
    """

    def __init__(
        self,
        output: str,
        where: Where = None,
        *,
        label: str = "mask_rle",
        transforms: Transform | None = None,
        images_root: str | None = None,
        access: Access | None = None,
    ) -> None:
        result = open_result(output, access)
        index = build_index(result, not_rejected(output, as_expression(where), access), label)
        self._table, self._offsets = read_all(result, index, label)
        self._photos = _PerProcess(Photos.of(result, images_root))
        self._label = label
        self._transforms = transforms

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> Item:
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        first, last = (int(at) for at in self._offsets[number % len(self) :][:2])
        rows = self._table.slice(first, last - first).to_pylist()
        return to_item(decode_sample(self._photos.get(), rows, self._label), self._transforms)


class MaskStream(IterableDataset[Item]):
    """All images once an epoch, for results of any size. Use `loader`, or a DataLoader of the same batch size.

    A result of more than INDEXED_SHARDS shards is looked at as the epoch comes to it, so the first batch takes seconds;
    `len` is not known then.

    As MaskDataset, and:

    batch_size  images of a batch on one rank; workers take whole batches in turn, so their number changes nothing
    shuffle     a new order each epoch (`set_epoch`), the same for the same seed
    rank, world this process's rank and how many there are; from RANK and WORLD_SIZE when not given
    even        every rank gets as many images as the others: where `world` does not divide them, up to world - 1 of an
                epoch are left out, its last ones; False: none, and ranks end at different steps
    threads     images are fetched and decoded so many ahead, in each worker
    """

    def __init__(
        self,
        output: str,
        where: Where = None,
        *,
        label: str = "mask_rle",
        transforms: Transform | None = None,
        images_root: str | None = None,
        access: Access | None = None,
        batch_size: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        even: bool = True,
        threads: int = 2,
    ) -> None:
        self._rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self._world = int(os.environ.get("WORLD_SIZE", "1")) if world is None else world
        if not 0 <= self._rank < self._world or batch_size < 1 or threads < 1:
            raise RefusedError("a stream takes 0 <= rank < world, and at least one image a batch and one thread")
        self._result = _PerProcess(open_result(output, access, groups=False))
        where = not_rejected(output, as_expression(where), access)
        shards = self._result.get().manifest.masks
        self._columns, self._blocks = usable(where, label), blocks_of([shard.rows for shard in shards])
        # Of a result of more shards, blocks are indexed when the epoch comes to them.
        self._index = build_index(self._result.get(), where, label) if len(shards) <= INDEXED_SHARDS else None
        self._photos = _PerProcess(Photos.of(self._result.get(), images_root))
        self._label, self._transforms = label, transforms
        self._batch_size, self._shuffle, self._seed = batch_size, shuffle, seed
        self._even, self._threads = even, threads
        # Shared memory, so that persistent workers see where the next epoch begins: [epoch, images consumed before].
        self._cursor = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._begins = torch.from_numpy(no_begins(self._blocks)).share_memory_()  # noted by workers, read for states
        content = f"{_content(shards, self._index)}{where}{label}{seed if shuffle else None}"
        self._order = hashlib.sha256(content.encode()).hexdigest()[:16]

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch, from its beginning."""
        self._go_to(epoch, 0, 0, 0)

    def _go_to(self, epoch: int, consumed: int, window: int, begin: int) -> None:
        self._cursor[0], self._cursor[1] = epoch, consumed
        self._begins[:] = torch.from_numpy(no_begins(self._blocks))
        self._begins[window] = begin

    @property
    def epoch(self) -> int:
        """The epoch of the next pass."""
        return int(self._cursor[0])

    def __len__(self) -> int:
        """Images that this rank still gets in this epoch. Raises TypeError where that is not known beforehand."""
        if self._index is None:
            raise TypeError(f"a stream of more than {INDEXED_SHARDS} shards knows its length only at its end")
        return len(own_positions(len(self._index), int(self._cursor[1]), Share(self._rank, self._world), self._even))

    def state_after(self, batches: int) -> dict[str, Any]:
        """What to save after `batches` batches of this pass, with the model; plain JSON, the same on every rank."""
        images = batches * self._batch_size
        state = {"order": self._order, "epoch": self.epoch}
        if self._index is not None:
            return {**state, "consumed": int(self._cursor[1]) + min(images, len(self)) * self._world}
        begins = self._begins.numpy()
        consumed = int(self._cursor[1]) + images * self._world
        consumed = min(consumed, int(begins[-1])) if begins[-1] != UNKNOWN else consumed
        window = latest(begins, consumed)
        return {**state, "consumed": consumed, "window": window, "begin": int(begins[window])}

    def resume(self, state: dict[str, Any]) -> None:
        """The next pass goes on behind `state`, with any number of ranks and workers and any batch size.

        Raises RefusedError when the state is of another result, filter, label or seed: the order would be another.
        """
        if state["order"] != self._order:
            raise RefusedError("the state to resume from belongs to another result, filter, label or seed")
        self._go_to(state["epoch"], state["consumed"], state.get("window", 0), state.get("begin", 0))

    def loader(self, workers: int = 0, **options: Any) -> DataLoader[Item]:
        """A DataLoader of this stream; options as torch's."""
        options = {"collate_fn": collate, **options}
        return DataLoader(self, batch_size=self._batch_size, num_workers=workers, **options)

    def __iter__(self) -> Iterator[Item]:
        result, photos, label = self._result.get(), self._photos.get(), self._label
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        share = Share(self._rank, self._world, number, workers, self._batch_size)
        rows = (
            image_rows
            for index, images in self._own(result, share)
            for image_rows in read_rows(result, index, images, label)
        )
        for sample in ahead(lambda of_image: decode_sample(photos, of_image, label), rows, self._threads):
            yield to_item(sample, self._transforms)

    def _own(self, result: Result, share: Share) -> Iterator[tuple[Index, Integers]]:
        """The images of a share, window by window, in order."""
        epoch, consumed = (int(value) for value in self._cursor)
        if self._index is not None:
            own = own_positions(len(self._index), consumed, share, self._even)
            order = windows(self._index, self._shuffle, self._seed, epoch)
            return ((self._index, images) for images in own_images(order, own))
        begins, seeds = self._begins.numpy(), [self._seed, epoch] if self._shuffle else None
        look = partial(index_blocks, result, columns=self._columns)
        found = windows_from(latest(begins, consumed), self._blocks, look, begins, seeds)
        return own_found(found, consumed, share, self._even)


def _content(shards: list[Shard], index: Index | None) -> str:
    """The shards, as states that were saved by earlier versions have them where those could have been."""
    if index is None:
        return f"streamed {[shard.sha256 for shard in shards]}"
    return str([dict(sorted(shard.as_dict().items())) for shard in shards])


def not_rejected(output: str, where: pc.Expression | None, access: Access | None) -> pc.Expression | None:
    """The filter, without the masks that a person rejected (`relabel review`)."""
    ids = sorted(rejected(output, access))
    if not ids:
        return where
    others = ~pc.field("mask_id").isin(ids)
    return others if where is None else others & where


def to_item(sample: Sample, transforms: Transform | None = None) -> Item:
    """Arrays -> tensors, transformed."""
    rows = sample.rows
    size_hw = sample.image.shape[:2]
    image = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))))
    target: Target = {
        "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(sample.boxes_xyxy), format="XYXY", canvas_size=size_hw),
        "masks": tv_tensors.Mask(torch.from_numpy(sample.masks)),
        "labels": torch.tensor([row["category_id"] or 0 for row in rows], dtype=torch.int64),
        "quality": torch.tensor([_number(row["quality"]) for row in rows], dtype=torch.float32),
        "mask_ids": [row["mask_id"] for row in rows],
        "image_id": rows[0]["image_id"],
    }
    return (image, target) if transforms is None else transforms(image, target)


def collate(items: list[Item]) -> tuple[tuple[Any, ...], tuple[Target, ...]]:
    """Images and targets of a batch, as torchvision's detection models take them: sizes and masks differ."""
    images, targets = zip(*items, strict=True)
    return images, targets


class _PerProcess:
    """A Result or Photos whose store connects anew in every process: connections do not survive a fork."""

    def __init__(self, value: Any) -> None:
        self._value, self._process = value, os.getpid()

    def get(self) -> Any:
        if self._process != os.getpid():
            store = Store(self._value.store.uri, self._value.store.access)
            replace = self._value._replace if isinstance(self._value, Photos) else self._of_result
            self._value, self._process = replace(store=store), os.getpid()
        return self._value

    def _of_result(self, store: Store) -> Result:
        return Result(store, self._value.manifest)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
