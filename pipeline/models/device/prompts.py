"""Points, box and Gaussian mask of N masks at once: `masks/prompts.py`, on tensors, on canvases."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.masks.frames import PROMPT_SIDE
from pipeline.masks.prompts import NEGATIVE, NO_POINT, POSITIVE
from pipeline.models.device.canvas import Canvases, Frames, canvases_of, sampled, spans, support
from pipeline.models.device.transfer import PromptTensors

PROMPTED_SIDE = 192
"""Cells: as fine as the model's answer for all but objects that fill the image. Distances take time by its cube."""


DISTANCES_AT_ONCE = {"cpu": 1, "cuda": 1 << 28}
"""Numbers in memory. On GPUs a column at a time is a thousand kernels, each of which reads and writes everything."""


class Shown(NamedTuple):
    """What of a method says how masks are shown to the model (schemas.config.Method)."""

    points: bool
    box: bool
    mask: bool
    coarse: bool
    form: Literal["paper", "code"]
    gamma: float
    strength: float


def prompts_of(
    logits: Tensor, frames: Frames, image_index: Tensor, shown: Shown, mirrored: bool = False
) -> PromptTensors:
    """Prompts from the masks where (N, s, s) logits are above 0; of an empty one they are finite and mean nothing.

    mirrored: for the mirror image.
    """
    canvases = canvases_of(support(logits, frames, 0), frames, PROMPTED_SIDE)
    inside = (sampled(logits, frames, canvases) > 0) & canvases.inside
    first, last, _ = spans(inside)
    depth = distance(inside, border_counts=True)
    peak, deepest = peak_of(depth)
    points, labels = _points(inside, first, last, peak)
    image_points = canvases.corner.flip(1)[:, None] + (points + 0.5) * canvases.cell[:, None, None] - 0.5
    edges = _pixel(first, canvases), torch.minimum(_pixel(last + 1, canvases), frames.size) - 1
    box = torch.cat([edge.flip(1) for edge in edges], 1)
    field = _gaussian(inside, depth, peak, deepest, shown)
    fields, turned = [field, inside.float()][: 2 if shown.coarse else 1], canvases
    if mirrored:
        widest = frames.size[:, 1] - 1
        image_points[..., 0] = widest[:, None] - image_points[..., 0]
        box = torch.stack([widest - box[:, 2], box[:, 1], widest - box[:, 0], box[:, 3]], 1)
        turned = canvases._replace(corner=canvases.corner.clone())
        turned.corner[:, 1] = frames.size[:, 1] - canvases.corner[:, 1] - canvases.cells[:, 1] * canvases.cell
        fields = [_turned(of, canvases) for of in fields]
    gaussian, *coarse = (_means(of, turned, frames, logits.shape[1]) for of in fields)
    scale = (frames.within / frames.size * (PROMPT_SIDE / frames.side)).flip(1)
    return PromptTensors(
        image_index,
        (image_points * scale[:, None]).float() if shown.points else None,
        labels if shown.points else None,
        (box * scale.repeat(1, 2)).float() if shown.box else None,
        torch.where(gaussian > 0, shown.strength * gaussian, -shown.strength) if shown.mask else None,
        coarse[0] if shown.mask and coarse else None,
    )


def distance(inside: Tensor, border_counts: bool) -> Tensor:
    """(N, h, w) bool -> (N, h, w) float32: Euclidean distance to the nearest pixel that is not inside, exact.

    border_counts: a ring of pixels around the frame is not inside. Else a frame without such a pixel has large values.
    """
    if border_counts:
        padded = torch.nn.functional.pad(inside, (1, 1, 1, 1))
        return distance(padded, border_counts=False)[:, 1:-1, 1:-1]
    squared = _along_columns(inside).square()
    width = inside.shape[2]
    places = torch.arange(width, device=inside.device, dtype=torch.float32)
    away = (places[:, None] - places).square()
    best = torch.full_like(squared, float("inf"))
    step = max(1, DISTANCES_AT_ONCE[inside.device.type] // (best.numel() or 1))
    for first in range(0, width, step):  # lower envelope of parabolas, one from each column
        some = slice(first, first + step)
        several = squared[:, :, some, None] + away[some]
        torch.minimum(best, several[:, :, 0] if step == 1 else several.amin(2), out=best)
    return best.sqrt_()


def _along_columns(inside: Tensor) -> Tensor:
    """Distance within the column, (N, h, w) float32."""
    height = inside.shape[1]
    rows = torch.arange(height, device=inside.device)[:, None].expand(inside.shape[1:])
    above = rows - torch.where(inside, -2 * height, rows).cummax(1).values
    turned = torch.where(inside.flip(1), -2 * height, rows).cummax(1).values
    below = (rows - turned).flip(1)
    return torch.minimum(above, below).float()


def _points(inside: Tensor, first: Tensor, last: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
    """The positive and the negative point (N, 2, 2) in cells, x before y, and their labels (N, 2) int64."""
    steps = torch.arange(inside.shape[1], device=inside.device)
    rows, columns = ((steps >= first[:, axis, None]) & (steps <= last[:, axis, None]) for axis in (0, 1))
    hollow = torch.where(~inside & rows[:, :, None] & columns[:, None, :], distance(~inside, False), -1.0)
    negative, most = peak_of(hollow)
    present = most > 0
    positive = torch.full_like(most, POSITIVE, dtype=torch.int64)
    labels = torch.stack([positive, torch.where(present, NEGATIVE, NO_POINT)], 1)
    return torch.stack([peak, torch.where(present[:, None], negative, 0)], 1), labels


def peak_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """(N, h, w) -> (N, 2) int64 x, y of the largest value, and the value (N,)."""
    most, place = values.flatten(1).max(1)
    return torch.stack([place % values.shape[2], place // values.shape[2]], 1), most


def _pixel(cells: Tensor, canvases: Canvases) -> Tensor:
    """The first pixel of cells (N, 2)."""
    return canvases.corner + cells * canvases.cell[:, None]


def _gaussian(inside: Tensor, depth: Tensor, peak: Tensor, deepest: Tensor, shown: Shown) -> Tensor:
    """As masks/prompts.gaussian_mask, (N, s, s) float32: both forms are the same at any resolution."""
    area = inside.sum((1, 2)).clamp_min(1)[:, None, None]
    if shown.form == "code":
        return torch.exp(-(depth - deepest[:, None, None]).square() * shown.gamma / area) * inside
    places = torch.arange(inside.shape[1], device=inside.device)
    away = (places - peak[:, :1]).square()[:, None, :] + (places - peak[:, 1:]).square()[:, :, None]
    return torch.exp(-away / (area * shown.gamma)) * inside


def _means(fields: Tensor, canvases: Canvases, frames: Frames, cells: int) -> Tensor:
    """As masks/canvas.field_to_mask: (N, s, s) -> (N, cells, cells) float32 of the model's square."""
    along = []
    for axis in (0, 1):
        pixels = (frames.side / cells * frames.size / frames.within)[:, axis, None, None]
        begin = torch.arange(cells, device=fields.device, dtype=torch.float64)[None, :, None] * pixels
        steps = torch.arange(canvases.side, device=fields.device, dtype=torch.float64)
        start = (canvases.corner[:, axis, None] + steps * canvases.cell[:, None])[:, None, :]
        shared = torch.minimum(begin + pixels, start + canvases.cell[:, None, None]) - torch.maximum(begin, start)
        along.append((shared.clamp_min(0) / pixels).float())
    return along[0] @ fields @ along[1].transpose(1, 2)


def _turned(fields: Tensor, canvases: Canvases) -> Tensor:
    """Left and right exchanged within each canvas's own width."""
    steps = torch.arange(canvases.side, device=fields.device)
    columns = (canvases.cells[:, 1:].long() - 1 - steps).clamp_min(0)
    return torch.gather(fields, 2, columns[:, None, :].expand_as(fields)) * canvases.inside
