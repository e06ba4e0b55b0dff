"""What images and logits say of N masks at once: `masks/views.py` and `masks/scores.py`, on tensors.

On the canvases of `refiners/verdict.py`. Agreement is a test; last bits differ, as between any two execution classes.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    around = _around(refined | given) & inside
    probability = torch.sigmoid(fused.clamp(-30, 30)) * around
    columns: list[Tensor | None] = [
        looks.predicted_iou.clamp(0, 1).mean(0),
        torch.stack([_stability(of) for of in looks.logits]).mean(0),
        _expected_iou(refined, probability),
        _expected_iou(given, probability),
        torch.stack([_iou(refined, (field > 0) & inside) for field in fields]).mean(0) if len(fields) > 1 else None,
        _outline_logit(fused, refined, around, _outline_cells(frames, canvases)),
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


def _around(masks: Tensor) -> Tensor:
    """As masks/binary.box_around with the margin of views.evidence: (N, h, w) bool, true inside of each mask's box."""
    first, last, there = spans(masks)
    longer = torch.where(there, (last - first + 1).amax(1), 0)
    margin = (AROUND_RATIO * longer.double()).round()[:, None]
    steps = torch.arange(masks.shape[1], device=masks.device)
    rows, columns = (
        (steps >= first[:, axis, None] - margin) & (steps <= last[:, axis, None] + margin) for axis in (0, 1)
    )
    return rows[:, :, None] & columns[:, None, :]


def _expected_iou(masks: Tensor, probability: Tensor) -> Tensor:
    """As masks/scores.expected_iou: masks within the region outside of which `probability` is 0."""
    both = (probability * masks).sum((1, 2))
    area = masks.sum((1, 2))
    return both / (probability.sum((1, 2)) - both + area).clamp_min(1e-12) * (area > 0)


def _iou(one: Tensor, other: Tensor) -> Tensor:
    union = (one | other).sum((1, 2))
    return torch.where(union > 0, (one & other).sum((1, 2)) / union.clamp_min(1), 1.0)


def _outline_cells(frames: Frames, canvases: Canvases) -> Tensor:
    """As masks/views.outline_cells: (N,)."""
    cells = OUTLINE_PX * frames.size[:, 0] / frames.within[:, 0] / canvases.cell
    return cells.round().clamp_min(1)


def _outline_logit(fused: Tensor, masks: Tensor, around: Tensor, radius: Tensor) -> Tensor:
    """As masks/views.evidence: mean |logit| in the band around each mask's outline, within `around`."""
    wide = spread(masks & around, radius)
    narrow = ~spread(~masks & around, radius)  # outside of the box nothing wears the mask down
    band = wide & ~narrow & around
    return (fused.abs() * band).sum((1, 2)) / band.sum((1, 2)).clamp_min(1)


def _contrasts(masks: Sequence[Tensor], canvases: Canvases, pictures: Pictures, frames: Frames) -> list[Tensor]:
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
    colours = _reduced(pictures, begin, cells, step)
    places = [(at / scale[:, axis, None]).floor() for axis, at in enumerate(in_image)]
    valid = [(steps >= 0) & (steps < count[:, axis, None]) for axis in (0, 1)]
    seen = (valid[0][:, :, None] & valid[1][:, None, :])[:, reach:-reach, reach:-reach]
    everywhere = _window_sums(colours)
    return [_contrast(looked_up(of, canvases, *places), colours, everywhere, seen) for of in masks]


def _reduced(pictures: Pictures, begin: Tensor, cells: Sequence[Tensor], step: Tensor) -> Tensor:
    """(N, 3, h, w) float32: the mean of `step` by `step` pixels, 1 or 2, at cells counted from `begin`."""
    image = pictures.image[:, None, None]
    last = pictures.squares.shape[1] - 1
    parts = []
    for beside in ((0, 0), (0, 1), (1, 0), (1, 1)):
        rows, columns = (
            (begin[:, axis, None] + at * step + (step > 1) * beside[axis]).long().clamp(0, last)
            for axis, at in enumerate(cells)
        )
        parts.append(pictures.squares[image, rows[:, :, None], columns[:, None, :]].short())
    total = parts[0] + parts[1] + parts[2] + parts[3]
    return ((total + 2) // 4).permute(0, 3, 1, 2).contiguous().float()  # as OpenCV rounds


def _contrast(masks: Tensor, colours: Tensor, everywhere: Tensor, seen: Tensor) -> Tensor:
    """As masks/scores.boundary_contrast; masks and colours with the borders that windows reach into: (N,)."""
    reach = CONTRAST_RADIUS_PX
    size = 2 * reach + 1
    inner_weight = _window_sums(masks[:, None].float())
    inner = _window_sums(colours * masks[:, None])
    outer_weight = size * size - inner_weight
    own = masks[:, reach:-reach, reach:-reach] & seen
    eroded = F.max_pool2d((~F.pad(own, (1, 1, 1, 1)))[:, None].float(), 3, 1)[:, 0] == 0
    counted = own & ~eroded & (outer_weight[:, 0] > 0)
    difference = inner / inner_weight.clamp_min(1) - (everywhere - inner) / outer_weight.clamp_min(1)
    distance = difference.square().sum(1).sqrt() * counted
    return distance.sum((1, 2)) / counted.sum((1, 2)).clamp_min(1) / (255 * 3**0.5)


def _window_sums(values: Tensor) -> Tensor:
    """(N, C, h, w) -> sums over windows, without the border of CONTRAST_RADIUS_PX."""
    size = 2 * CONTRAST_RADIUS_PX + 1
    down = F.avg_pool2d(values, (size, 1), 1, divisor_override=1)
    return F.avg_pool2d(down, (1, size), 1, divisor_override=1)
