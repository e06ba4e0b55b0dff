"""What images and logits say of N masks at once: `masks/views.py` and `masks/scores.py`, on tensors.

On the canvases of `refiners/verdict.py`. Agreement is a test; last bits differ, as between any two execution classes.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.masks.canvas import JUDGED_CELLS
from pipeline.masks.scores import CONTRAST_RADIUS_PX, STABILITY_OFFSET
from pipeline.masks.views import AROUND_RATIO, OUTLINE_PX
from pipeline.models.device.canvas import (
    Canvases,
    Edges,
    Frames,
    canvases_of,
    looked_up,
    margin_around,
    on,
    sampled,
    spans,
    spread,
    support,
)
from pipeline.models.hardware import runs_triton

NAMES = (
    *("predicted_iou", "stability", "expected_iou", "coarse_expected_iou", "look_iou", "outline_logit"),
    *("boundary_contrast", "coarse_boundary_contrast", "iteration_iou"),
)
"""Of the columns that `judged` returns (schemas/records.py, SCORES)."""


class Looks(NamedTuple):
    """Answers to V views of N masks: `logits` (V, N, s, s) float32, the whole image first, then its mirror image if
    there is a second; `predicted_iou` (V, N). previous: (N, s, s) of the round before the last, and (N,) bool, which
    masks have one; None where none does."""

    logits: Tensor
    predicted_iou: Tensor
    previous: tuple[Tensor, Tensor] | None


class Coarse(NamedTuple):
    """N coarse masks on canvases of their own, (N, s, s) bool; `edges`: their windows."""

    masks: Tensor
    canvases: Canvases
    edges: Edges


class Evidence(NamedTuple):
    """Of N masks on canvases of side s: `fused` logits, (N, s, s) float32; `refined` and `given` masks, (N, s, s) bool;
    `bounds` (N, 4) int32, first and last (exclusive) row and column of what is looked at: top, left, bottom, right;
    `radius` (N,) cells of what counts as the outline."""

    fused: Tensor
    refined: Tensor
    given: Tensor
    bounds: Tensor
    radius: Tensor


class Reduction(NamedTuple):
    """Where cells of N canvases are in their pictures, `squares` (B, S, S, 3) uint8; `image` (N,) int64.

    rows, columns: (N, h) and (N, w) int32, the first pixel of each cell, with borders of `reach` cells; beside: (N, 1)
    int32, 1 where a cell is two by two pixels, else 0; cells: (N, 2) int32, how many there are without borders.
    """

    squares: Tensor
    image: Tensor
    rows: Tensor
    columns: Tensor
    beside: Tensor
    cells: Tensor
    reach: int


class Pictures(NamedTuple):
    """`squares` (B, S, S, 3) uint8 RGB, each picture at the top left of its square; of each of N masks the `image` (N,)
    int64, its picture. All of an image's pixels in `frames.within` are there."""

    squares: Tensor
    image: Tensor


def judged(looks: Looks, coarse: Coarse, pictures: Pictures, frames: Frames, margin_px: Tensor) -> Tensor:
    """(N, NAMES) float32. margin_px: (N,) float64, around masks at least, for their contrasts."""
    edges = margin_around(_windows(looks, coarse, frames), AROUND_RATIO, margin_px)
    canvases = canvases_of(edges, frames, JUDGED_CELLS)
    inside = canvases.inside
    fields = [sampled(of, frames, canvases, bool(view)) for view, of in enumerate(looks.logits)]
    fused = torch.stack(fields).mean(0)
    refined, given = (fused > 0) & inside, on(coarse.masks, coarse.canvases, canvases)
    bounds = _around(refined | given, canvases)
    evidence = Evidence(fused, refined, given, bounds, _outline_cells(frames, canvases))
    sums = (_kernels().evidence_sums if _has_kernels(fused) else _evidence_sums)(evidence)
    chance, of_refined, cells, of_given, given_cells, sharpness, outline_cells = sums.unbind(1)
    columns: list[Tensor | None] = [
        looks.predicted_iou.clamp(0, 1).mean(0),
        torch.stack([_stability(of) for of in looks.logits]).mean(0),
        _expected_iou(chance, of_refined, cells),
        _expected_iou(chance, of_given, given_cells),
        torch.stack([_iou(refined, (field > 0) & inside) for field in fields]).mean(0) if len(fields) > 1 else None,
        sharpness / outline_cells.clamp_min(1),
        *_contrasts((refined, given), canvases, pictures, frames),
        _iteration_iou(looks, refined, canvases, frames, inside),
    ]
    ones = torch.ones_like(looks.predicted_iou[0])
    return torch.stack([ones if column is None else column.float() for column in columns], 1)


def _windows(looks: Looks, coarse: Coarse, frames: Frames) -> Edges:
    """As refiners/verdict.canvas_for, without colours."""
    windows = coarse.edges
    for view, logits in enumerate(looks.logits):
        seen = support(logits, frames, 0)
        windows = windows.joined(seen.mirrored(frames) if view else seen)
    if looks.previous is not None:
        logits, there = looks.previous
        before = support(logits, frames, 0)
        both = windows.joined(before)
        windows = Edges(*(torch.where(there[:, None], a, b) for a, b in zip(both, windows, strict=True)))
    return windows


def _iteration_iou(looks: Looks, refined: Tensor, canvases: Canvases, frames: Frames, inside: Tensor) -> Tensor | None:
    if looks.previous is None:
        return None
    logits, there = looks.previous
    return torch.where(there, _iou(refined, (sampled(logits, frames, canvases) > 0) & inside), 1.0)


def _stability(logits: Tensor) -> Tensor:
    """As masks/scores.stability."""
    high, low = ((logits > offset).sum((1, 2)) for offset in (STABILITY_OFFSET, -STABILITY_OFFSET))
    return high / low.clamp_min(1)


def _kernels() -> ModuleType:
    """Triton is not everywhere."""
    return import_module("pipeline.models.device.verdict_fused")


def _has_kernels(like: Tensor) -> bool:
    return like.is_cuda and runs_triton()


def _around(masks: Tensor, canvases: Canvases) -> Tensor:
    """As masks/binary.box_around with the margin of views.evidence: (N, 4) int32, first and last (exclusive) cells."""
    first, last, there = spans(masks)
    longer = torch.where(there, (last - first + 1).amax(1), 0)
    margin = (AROUND_RATIO * longer.double()).round()[:, None]
    return torch.cat([(first - margin).clamp_min(0), torch.minimum(last + margin + 1, canvases.cells)], 1).int()


def _evidence_sums(evidence: Evidence) -> Tensor:
    """(N, 7) float32, within `bounds`: of the chance to be foreground; of that in the refined mask, and the mask's
    cells; the same of the given one; of |logit| along the refined outline, and the outline's cells."""
    fused, refined, given, bounds, radius = evidence
    steps = torch.arange(fused.shape[1], device=fused.device)
    rows, columns = ((steps >= bounds[:, axis, None]) & (steps < bounds[:, axis + 2, None]) for axis in (0, 1))
    around = rows[:, :, None] & columns[:, None, :]
    chance = torch.sigmoid(fused.clamp(-30, 30)) * around
    wide = spread(refined & around, radius)
    narrow = ~spread(~refined & around, radius)  # outside of the box nothing wears the mask down
    band = wide & ~narrow & around
    fields = [chance, chance * refined, refined, chance * given, given, fused.abs() * band, band]
    return torch.stack([field.sum((1, 2)).float() for field in fields], 1)


def _expected_iou(total: Tensor, both: Tensor, area: Tensor) -> Tensor:
    """As masks/scores.expected_iou, from sums."""
    return both / (total - both + area).clamp_min(1e-12) * (area > 0)


def _iou(one: Tensor, other: Tensor) -> Tensor:
    union = (one | other).sum((1, 2))
    return torch.where(union > 0, (one & other).sum((1, 2)) / union.clamp_min(1), 1.0)


def _outline_cells(frames: Frames, canvases: Canvases) -> Tensor:
    """As masks/views.outline_cells: (N,)."""
    cells = OUTLINE_PX * frames.size[:, 0] / frames.within[:, 0] / canvases.cell
    return cells.round().clamp_min(1)


def _contrasts(masks: tuple[Tensor, Tensor], canvases: Canvases, pictures: Pictures, frames: Frames) -> list[Tensor]:
    """As masks/scores.contrasts_on, of each of `masks`."""
    reach = CONTRAST_RADIUS_PX
    scale = frames.within / frames.size
    begin = (canvases.corner * scale).floor()
    ends = ((canvases.corner + canvases.cells * canvases.cell[:, None]) * scale).ceil()
    ends = torch.minimum(ends, frames.within)
    step = ((ends - begin).amax(1) / JUDGED_CELLS).ceil().clamp_min(1)[:, None]
    begin = (begin / step).floor() * step
    count = torch.minimum((ends - begin) / step, (frames.within - begin) / step).floor().clamp_min(1)
    steps = torch.arange(-reach, JUDGED_CELLS + reach, device=begin.device)
    cells, in_image = [], []
    for axis in (0, 1):
        last = count[:, axis, None] - 1
        turned = last - (last - steps.abs()).abs()  # reflected at both ends, as OpenCV does
        cells.append(torch.minimum(turned.clamp_min(0), last))
        in_image.append(begin[:, axis, None] + (cells[axis] + 0.5) * step - 0.5)
    places = [(at / scale[:, axis, None]).floor() for axis, at in enumerate(in_image)]
    seen = looked_up(masks[0], canvases, *places), looked_up(masks[1], canvases, *places)
    widest = pictures.squares.shape[1] - 1
    first = [(begin[:, axis, None] + at * step).clamp(0, widest).int() for axis, at in enumerate(cells)]
    reduction = Reduction(pictures.squares, pictures.image, first[0], first[1], (step > 1).int(), count.int(), reach)
    sums = (_kernels().contrast_sums if _has_kernels(pictures.squares) else _contrast_sums)(seen, reduction)
    return [of[:, 0] / of[:, 1].clamp_min(1) / (255 * 3**0.5) for of in sums]


def _reduced(reduction: Reduction) -> Tensor:
    """(N, 3, h, w) float32: the mean colour of each cell, of one pixel or of two by two."""
    image, last = reduction.image[:, None, None], reduction.squares.shape[1] - 1
    parts = []
    for beside in ((0, 0), (0, 1), (1, 0), (1, 1)):
        rows, columns = (
            (of + reduction.beside * more).clamp_max(last)
            for of, more in zip((reduction.rows, reduction.columns), beside, strict=True)
        )
        parts.append(reduction.squares[image, rows[:, :, None], columns[:, None, :]].short())
    total = parts[0] + parts[1] + parts[2] + parts[3]
    return ((total + 2) // 4).permute(0, 3, 1, 2).contiguous().float()  # as OpenCV rounds


def _contrast_sums(masks: tuple[Tensor, Tensor], reduction: Reduction) -> Tensor:
    """(2, N, 2) float32, of each of two sets of masks (N, h, w) bool with borders: over outline pixels with background
    within reach, the sum of distances between the mean colours (0-255) inside and outside, and how many they are."""
    colours = _reduced(reduction)
    everywhere = _window_sums(colours)
    return torch.stack([_outline_sums(of, colours, everywhere, reduction) for of in masks])


def _outline_sums(masks: Tensor, colours: Tensor, everywhere: Tensor, reduction: Reduction) -> Tensor:
    """As masks/scores.boundary_contrast: (N, 2)."""
    reach = reduction.reach
    size = 2 * reach + 1
    inner_weight = _window_sums(masks[:, None].float())
    inner = _window_sums(colours * masks[:, None])
    outer_weight = size * size - inner_weight
    steps = torch.arange(inner.shape[-1], device=masks.device)
    rows, columns = (steps < reduction.cells[:, axis, None] for axis in (0, 1))
    own = masks[:, reach:-reach, reach:-reach] & rows[:, :, None] & columns[:, None, :]
    eroded = F.max_pool2d((~F.pad(own, (1, 1, 1, 1)))[:, None].float(), 3, 1)[:, 0] == 0
    counted = own & ~eroded & (outer_weight[:, 0] > 0)
    difference = inner / inner_weight.clamp_min(1) - (everywhere - inner) / outer_weight.clamp_min(1)
    distance = difference.square().sum(1).sqrt() * counted
    return torch.stack([distance.sum((1, 2)), counted.sum((1, 2))], 1)


def _window_sums(values: Tensor) -> Tensor:
    """(N, C, h, w) -> sums over windows, without the border of CONTRAST_RADIUS_PX."""
    size = 2 * CONTRAST_RADIUS_PX + 1
    down = F.avg_pool2d(values, (size, 1), 1, divisor_override=1)
    return F.avg_pool2d(down, (1, size), 1, divisor_override=1)
