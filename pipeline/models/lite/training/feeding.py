"""Where batches come from: worker processes that make examples on CPUs, or the device itself (device_feed.py)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import cv2
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as StepOrder

from pipeline.models.lite.training import parallel
from pipeline.models.lite.training.config import TrainConfig
from pipeline.models.lite.training.data import Example, Sampler, load_all
from pipeline.models.lite.training.device_feed import DeviceFeed
from pipeline.models.lite.training.prompting import Batch, to_batch


def batches(config: TrainConfig, first_step: int, progress: Callable[[], float]) -> Iterator[Batch]:
    """This process's share of the batches from a step on, without end.

    progress: share of the schedule done, where it runs over minutes.
    """
    order = _order(config, first_step, progress)
    images = config.images // config.processes
    photos = load_all(config.data, {"fit"}, config.photo_limit, config.cache)
    if config.feed == "device":
        yield from DeviceFeed(photos, images, config.masks, config.seed, config.device).batches(order)
    for example in _examples(Sampler(photos, images, config.masks, config.seed), order, config.workers):
        yield to_batch(example, config.device)


def side_at(config: TrainConfig, at: float) -> int:
    """Side of the crops at a share of the schedule."""
    return 512 if at >= config.large_side_from else 256


def _order(config: TrainConfig, first_step: int, progress: Callable[[], float]) -> Iterator[tuple[int, int]]:
    """Number and side of this process's examples, from a step on."""
    for step in itertools.count(first_step):
        at = step / config.steps if config.steps else progress()
        yield step * config.processes + parallel.rank(), side_at(config, at)


def _examples(sampler: Sampler, order: Iterator[tuple[int, int]], workers: int) -> Iterator[Example]:
    yield from DataLoader(
        Examples(sampler),
        batch_size=None,
        sampler=Order(order),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        collate_fn=_as_it_is,
    )


class Order(StepOrder[tuple[int, int]]):
    """(number of the example, side), as they come."""

    def __init__(self, order: Iterator[tuple[int, int]]) -> None:
        self._order = order

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self._order


class Examples(Dataset[Example]):
    """(number of the example, side) -> Example."""

    def __init__(self, fit: Sampler) -> None:
        self.fit = fit

    def __getitem__(self, index: Any) -> Example:
        number, side = index
        return self.fit.example(number, side)


def _as_it_is(example: Any) -> Any:
    return example


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
