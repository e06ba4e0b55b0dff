"""A small segmenter on frozen features of windows, and how it learns.

It has some ten thousand weights, and sees where in its window it is. What it is taught with are shares of cells, so
outlines are learned finer than the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.value.objects import LABEL_SIDE

WIDTH, FINE_WIDTH = 32, 16
DILATIONS = (1, 2, 4)
CONTEXT_SIDE = LABEL_SIDE // 2
BATCH = 16
RATE, DECAY = 2e-3, 1e-2


class Lessons(NamedTuple):
    """N windows. maps: (N, C, h, w) float16 for each stride, the finest first; labels: (N, side, side) float32
    in [0, 1]; weights: (N,) float32 with a mean of 1.
    """

    maps: list[Tensor]
    labels: Tensor
    weights: Tensor


class Segmenter(nn.Module):
    """Features -> logits (N, LABEL_SIDE, LABEL_SIDE). channels: of the maps, the finest first."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.fine = nn.Conv2d(channels[0], FINE_WIDTH, 1)
        self.coarser = nn.ModuleList(nn.Conv2d(count, WIDTH, 1) for count in channels[1:])
        self.place = nn.Conv2d(2, WIDTH, 1)
        self.norm = nn.Sequential(nn.GroupNorm(8, WIDTH), nn.ReLU())
        self.context = nn.Sequential(*(_layer(WIDTH, dilation) for dilation in DILATIONS))
        self.down = nn.Conv2d(WIDTH, FINE_WIDTH, 1)
        self.outline = nn.Sequential(nn.ReLU(), _layer(FINE_WIDTH, 1), nn.Conv2d(FINE_WIDTH, 1, 1))
        steps = torch.linspace(-1, 1, CONTEXT_SIDE)
        self.register_buffer("places", torch.stack(torch.meshgrid(steps, steps, indexing="ij"))[None])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        inner = self.place(self.places)
        for layer, each in zip(self.coarser, maps[1:], strict=True):
            inner = inner + _sized(layer(each.float()), CONTEXT_SIDE)
        inner = _sized(self.down(self.context(self.norm(inner))), LABEL_SIDE)
        return self.outline(inner + self.fine(maps[0].float()))[:, 0]


def learned(lessons: Lessons, steps: int, seed: int) -> Segmenter:
    """A segmenter after so many steps; every random choice comes from `seed`."""
    torch.manual_seed(seed)
    network = Segmenter([each.shape[1] for each in lessons.maps])
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(lessons.labels))])
        rows, order = order[:BATCH], order[BATCH:]
        logits = network([each[rows] for each in lessons.maps])
        loss = (loss_of(logits, lessons.labels[rows]) * lessons.weights[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, h, w) each -> (N,): cross-entropy and Dice of each window."""
    likely = logits.sigmoid()
    shared, both = (likely * labels).sum((1, 2)), likely.sum((1, 2)) + labels.sum((1, 2))
    entropy = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean((1, 2))
    return entropy + 1 - (2 * shared + 1) / (both + 1)


@torch.inference_mode()
def answers(network: Segmenter, maps: Sequence[Tensor]) -> Tensor:
    """Features of N windows -> logits (N, LABEL_SIDE, LABEL_SIDE)."""
    starts = range(0, len(maps[0]), BATCH)
    return torch.cat([network([each[start : start + BATCH] for each in maps]) for start in starts])


def _layer(width: int, dilation: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
    return nn.Sequential(convolution, nn.GroupNorm(8, width), nn.ReLU())


def _sized(values: Tensor, side: int) -> Tensor:
    return functional.interpolate(values, size=(side, side), mode="bilinear")
