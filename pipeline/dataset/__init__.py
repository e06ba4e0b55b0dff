"""Reading a result: Arrow tables, single masks for a notebook, and the training feed.

    result.py    `open_result`: the manifest's shards as Arrow tables; `.show(mask_id)`
    order.py     which images a feed goes through, in which order, and which of them are this process's   [pure]
    streaming.py the same for results of more shards than can be looked at beforehand                     [pure]
    samples.py   one image with its decoded masks, as arrays
    feed.py      `MaskDataset` and `MaskStream`, for PyTorch: the only file here that imports torch

Nothing here needs Ray, and nothing but the feed needs torch: it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.dataset.result import Result, open_result
from pipeline.storage.documents import read_current

if TYPE_CHECKING:
    from pipeline.dataset.feed import MaskDataset, MaskStream, collate

__all__ = ["MaskDataset", "MaskStream", "Result", "collate", "open_result", "read_current"]


def __getattr__(name: str) -> Any:
    if name in ("MaskDataset", "MaskStream", "collate"):
        from pipeline.dataset import feed

        return getattr(feed, name)
    raise AttributeError(f"module 'pipeline.dataset' has no attribute {name!r}")
