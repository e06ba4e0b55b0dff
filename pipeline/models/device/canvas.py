"""Windows of bounded size around N masks at once: `masks/canvas.py`, on tensors. Agreement is a test.

All canvases have `side` by `side` cells; of a smaller one the rest is not `inside`. Axis 0 is along an image's height,
axis 1 along its width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FAR = 1 << 30


class Frames(NamedTuple):
    """Of N masks, each in its image: `size` and `within`, (N, 2) float64, are the image's height and width, and those
    of its part of the model's input of `side` pixels a side."""

    size: Tensor
    within: Tensor
    side: int


class Edges(NamedTuple):
    """N windows in pixels: `first` and `last` (exclusive), (N, 2) float64; first is above last where there is none."""

    first: Tensor
    last: Tensor

    def joined(self, other: Edges) -> Edges:
        """The windows of both."""
        return Edges(torch.minimum(self.first, other.first), torch.maximum(self.last, other.last))

    def mirrored(self, frames: Frames) -> Edges:
        """As in the mirror image; windows that are none stay so."""
        turned = self.first.clone(), self.last.clone()
        turned[0][:, 1], turned[1][:, 1] = frames.size[:, 1] - self.last[:, 1], frames.size[:, 1] - self.first[:, 1]
        return Edges(*turned)


class Canvases(NamedTuple):
    """N canvases: `corner` (N, 2) in image pixels, `cells` (N, 2), `cell` (N,) pixels a cell; all of them float64."""

    corner: Tensor
    cells: Tensor
    cell: Tensor
    side: int

    def places(self, axis: int) -> Tensor:
        """(N, side) float64: the image row or column of each cell's centre."""
        steps = torch.arange(self.side, device=self.cell.device, dtype=torch.float64)
        return self.corner[:, axis, None] + (steps + 0.5) * self.cell[:, None] - 0.5

    @property
    def inside(self) -> Tensor:
        """(N, side, side) bool: whether a cell is one of the canvas's."""
        steps = torch.arange(self.side, device=self.cell.device)
        return (steps < self.cells[:, :1])[:, :, None] & (steps < self.cells[:, 1:])[:, None, :]


def spans(hits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, h, w) bool -> first and last hit along each axis, (N, 2) int64 both, and whether there is any, (N,) bool."""
    first, last = [], []
    for axis in (2, 1):
        hit = hits.any(axis).to(torch.uint8)
        first.append(hit.argmax(1))
        last.append(hit.shape[1] - 1 - hit.flip(1).argmax(1))
    return torch.stack(first, 1), torch.stack(last, 1), hits.flatten(1).any(1)


def support(logits: Tensor, frames: Frames, above: float) -> Edges:
    """As masks/canvas.support: (N, s, s) logits."""
    cells = logits.shape[1]
    content = ((frames.within * cells / frames.side).ceil() + 1).clamp_max(cells)
    steps = torch.arange(cells, device=logits.device)
    of_image = (steps < content[:, :1])[:, :, None] & (steps < content[:, 1:])[:, None, :]
    first, last, there = spans((logits > above) & of_image)
    image_px = frames.side / cells * frames.size / frames.within
    begin = ((first - 0.5) * image_px - 1).floor().clamp_min(0)
    end = torch.minimum(((last + 1.5) * image_px + 1).ceil(), frames.size)
    return Edges(torch.where(there[:, None], begin, FAR), torch.where(there[:, None], end, -FAR))


def canvases_of(edges: Edges, frames: Frames, side: int) -> Canvases:
    """As masks/canvas.canvas_of; where there is no window, of one cell."""
    first = torch.minimum(edges.first.clamp_min(0), frames.size - 1)
    last = torch.maximum(torch.minimum(edges.last, frames.size), first + 1)
    cell = ((last - first).amax(1) / side).ceil().clamp_min(1)
    count = ((last - first) / cell[:, None]).ceil()
    corner = torch.minimum(first, frames.size - count * cell[:, None]).clamp_min(0)
    return Canvases(corner, count, cell, side)


def margin_around(edges: Edges, ratio: float, least_px: Tensor) -> Edges:
    """As masks/views.judged_on: the windows with what is around them; least_px: (N,)."""
    longer = (edges.last - edges.first).amax(1)
    margin = (1 + torch.maximum(ratio * longer, least_px).floor())[:, None]
    return Edges(edges.first - margin, edges.last + margin)


def sampled(logits: Tensor, frames: Frames, canvases: Canvases, mirrored: bool = False) -> Tensor:
    """As masks/canvas.sampled: (N, s, s) logits of the whole image, or of its mirror image -> (N, side, side)."""
    along = []
    for axis in (0, 1):
        places = canvases.places(axis)
        places = frames.size[:, 1:] - 1 - places if mirrored and axis else places
        along.append(_upsampling(places, frames, axis, logits.shape[1]))
    return along[0] @ logits @ along[1].transpose(1, 2)


def _upsampling(places: Tensor, frames: Frames, axis: int, cells: int) -> Tensor:
    """As masks/canvas.upsampling, as a matrix: (N, side) places -> (N, side, cells) float32."""
    size, within = frames.size[:, axis, None], frames.within[:, axis, None]
    outer = torch.minimum(((places + 0.5) * (within / size) - 0.5).clamp_min(0), within - 1)
    first = outer.floor()
    share = (outer - first).float()[..., None]
    second = torch.minimum(first + 1, within - 1)
    return (1 - share) * _hats(first, frames.side, cells) + share * _hats(second, frames.side, cells)


def _hats(places: Tensor, size: int, cells: int) -> Tensor:
    """Bilinear interpolation of `cells` values that fill `size` places, at some of these: (N, side, cells) float32."""
    at = ((places + 0.5) * (cells / size) - 0.5).clamp(0, cells - 1).float()
    steps = torch.arange(cells, device=places.device)
    return (1 - (at[..., None] - steps).abs()).clamp_min(0)


def looked_up(masks: Tensor, of: Canvases, rows: Tensor, columns: Tensor) -> Tensor:
    """As Patch.at: (N, s, s) bool on their canvases, at image rows (N, h) and columns (N, w) -> (N, h, w) bool."""
    found, seen = [], []
    for axis, places in ((0, rows), (1, columns)):
        cells = ((places + 0.5 - of.corner[:, axis, None]) / of.cell[:, None]).floor()
        seen.append((cells >= 0) & (cells < of.cells[:, axis, None]))
        found.append(cells.clamp(0, masks.shape[1] - 1).long())
    each = torch.arange(len(masks), device=masks.device)[:, None, None]
    there = masks[each, found[0][:, :, None], found[1][:, None, :]]
    return there & seen[0][:, :, None] & seen[1][:, None, :]


def on(masks: Tensor, of: Canvases, canvases: Canvases) -> Tensor:
    """As Patch.on: masks brought to other canvases."""
    return looked_up(masks, of, canvases.places(0), canvases.places(1)) & canvases.inside


def spread(masks: Tensor, radius: Tensor) -> Tensor:
    """Dilation by squares of 2 * radius + 1 cells: (N, h, w) bool, radius (N,)."""
    for axis in (1, 2):
        masks = nearest(masks, axis) <= radius[:, None, None]
    return masks


def nearest(masks: Tensor, axis: int) -> Tensor:
    """Cells to the next one that is set, along an axis: (N, h, w) bool -> (N, h, w) int32; FAR where none is."""
    shape = [1, 1, 1]
    shape[axis] = masks.shape[axis]
    steps = torch.arange(masks.shape[axis], device=masks.device, dtype=torch.int32).view(shape)
    before = steps - torch.where(masks, steps, -FAR).cummax(axis).values
    turned = torch.where(masks.flip(axis), steps, -FAR).cummax(axis).values
    return torch.minimum(before, (steps - turned).flip(axis))
