"""Prompts to a decoder in passes: those of one token count together, a few at a time, and back in their order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.models.protocol import Candidates, PromptBatch

Decode = Callable[[PromptBatch], tuple[Tensor, Tensor]]
"""Prompts of one token count -> logits (N, candidates, mask_side, mask_side) and predicted IoU (N, candidates)."""

IMAGES_PER_PASS = {"cpu": 1, "cuda": 64}
PROMPTS_PER_PASS = {"cpu": 4, "cuda": 64}
"""On CPUs more leave the caches: measured, 8 images take 1.2 times as long each, 32 prompts 1.7 times
(tests/benchmarks/RESULTS.md). On GPUs the method's batches decide, up to these."""


def decoded(prompts: PromptBatch, decode: Decode, most: int, candidates: int, mask_side: int) -> Candidates:
    """The candidates of all prompts, `most` of them in a pass."""
    count = len(prompts)
    logits = np.empty((count, candidates, mask_side, mask_side), np.float32)
    predicted = np.empty((count, candidates), np.float32)
    for group in token_groups(prompts.point_labels, count):
        for rows in np.split(group, range(most, len(group), most)):
            masks, iou = decode(prompts.take(rows))
            logits[rows], predicted[rows] = masks.float().cpu().numpy(), iou.float().cpu().numpy()
    return Candidates(logits, predicted)


def token_groups(point_labels: npt.NDArray[np.int64] | None, count: int) -> list[npt.NDArray[np.int64]]:
    """Rows of prompts that may share a decoder pass: those with the same number of real points.

    point_labels: (N, P) int64, or None (all in one group). Missing points (-1) must come last in a row.
    """
    if point_labels is None:
        return [np.arange(count)]
    present = (point_labels >= 0).sum(axis=1)
    return [np.flatnonzero(present == points) for points in np.unique(present)]
