"""Prompts of many coarse masks at once, in torch, where the masks are: points, boxes, Gaussians.

What `pipeline/masks/prompts.py` makes of one mask in image pixels, made here in the mask frame (half the image's side),
so points and boxes are exact to about a pixel of the image. For training alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.masks.frames import PROMPT_SIDE
from pipeline.masks.prompts import NEGATIVE, NO_POINT, POSITIVE
from pipeline.models.device.prompts import distance, peak_of

GAMMA = 4.0


class Prompts(NamedTuple):
    """Prompts of N coarse masks whose frame has side s."""

    points_xy: Tensor  # (N, 2, 2) float32, prompt frame
    point_labels: Tensor  # (N, 2) int64
    box_xyxy: Tensor  # (N, 4) float32, prompt frame
    mask_logits: Tensor  # (N, s, s) float32
    coarse: Tensor  # (N, s, s) float32 in [0, 1]


def prompts_of(coarse: Tensor, as_paper: Tensor, strength: Tensor) -> Prompts:
    """coarse (N, s, s) float32 in [0, 1], none of them empty at 0.5; as_paper (N,) bool: the Gaussian's form, else the
    code's; strength (N,) float32 of the mask prompt -> Prompts.

    An empty mask gives finite prompts that mean nothing.
    """
    side = coarse.shape[-1]
    inside = coarse > 0.5
    depth = distance(inside, border_counts=True)
    peak, deepest = peak_of(depth)
    box = box_of(coarse > 0)
    background = ~inside & _within(box, side)
    hollow = torch.where(background, distance(~inside, border_counts=False), -1.0)
    negative, most = peak_of(hollow)
    present = most > 0
    scale = PROMPT_SIDE / side
    points = torch.stack([peak, torch.where(present[:, None], negative, 0)], 1)
    points_xy = (points + 0.25) * scale  # the middle of a pixel here, in pixels of the image counted from their corners
    points_xy[:, 1] *= present[:, None]
    labels = torch.stack([torch.full_like(most, POSITIVE), torch.where(present, NEGATIVE, NO_POINT)], 1)
    field = _gaussian(inside, depth, peak, deepest, as_paper)
    logits = torch.where(field > 0, strength[:, None, None] * field, -strength[:, None, None])
    return Prompts(points_xy.float(), labels.long(), box_in_prompt_frame(box, side), logits, coarse)


def box_of(inside: Tensor) -> Tensor:
    """(N, h, w) bool -> (N, 4) int64, the tight box's inclusive x1, y1, x2, y2; of an empty mask the whole frame."""
    sides = []
    for axis in (1, 2):  # columns, rows
        hit = inside.any(axis).to(torch.uint8)
        sides.append((hit.argmax(1), hit.shape[1] - 1 - hit.flip(1).argmax(1)))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], 1)


def box_in_prompt_frame(box: Tensor, side: int) -> Tensor:
    """(N, 4) inclusive pixels of a frame with half the image's side -> (N, 4) float32 as Frame.box_to_prompt."""
    last_of_two = box.new_tensor([0.0, 0.0, 0.5, 0.5], dtype=torch.float32)
    return (box + last_of_two) * (PROMPT_SIDE / side)


def _within(box: Tensor, side: int) -> Tensor:
    """(N, 4) inclusive boxes -> (N, side, side) bool."""
    places = torch.arange(side, device=box.device)
    x1, y1, x2, y2 = (edge[:, None] for edge in box.unbind(1))
    columns, rows = (places >= x1) & (places <= x2), (places >= y1) & (places <= y2)
    return rows[:, :, None] & columns[:, None, :]


def _gaussian(inside: Tensor, depth: Tensor, peak: Tensor, deepest: Tensor, as_paper: Tensor) -> Tensor:
    """As prompts.gaussian_mask, (N, s, s) float32. Both forms are the same at any resolution."""
    area = inside.sum((1, 2)).clamp_min(1)[:, None, None]
    places = torch.arange(inside.shape[1], device=inside.device)
    away = (places - peak[:, :1]).square()[:, None, :] + (places - peak[:, 1:]).square()[:, :, None]
    paper = torch.exp(-away / (area * GAMMA))
    code = torch.exp(-(depth - deepest[:, None, None]).square() * GAMMA / area)
    return torch.where(as_paper[:, None, None], paper, code) * inside
