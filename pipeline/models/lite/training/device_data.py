"""Images, true masks and coarse masks made beforehand, all on one device; crops of them, many at once.

Example number `step` is a pure function of (seed, step, side) on a given device. For `Sampler`'s crops made one at a
time on CPUs see data.py; the two draw alike, but not the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.masks import spans
from pipeline.masks.spans import Spans
from pipeline.models.lite.model import PIXEL_MEAN
from pipeline.models.lite.training.data import OBJECT_CROP_SHARE, VIEW_SHARES, Photo, photo_chances

LEAST_WINDOW_PX = 64
MASKS_AT_ONCE = 256
FINER = 2  # samples of an image for a pixel along each axis, averaged: crops shrink by less than that


class DeviceData(NamedTuple):
    """K photographs with M masks in all, each at the top left of a square of side L."""

    images: Tensor  # (K, 3, L, L) uint8
    sizes_hw: Tensor  # (K, 2) float32
    chances: Tensor  # (K,) float32, of a photograph to be drawn
    first_mask: Tensor  # (K,) int64; masks of a photograph lie one after another
    mask_count: Tensor  # (K,) int64
    masks: Tensor  # (M, L, L) uint8 {0, 1}
    boxes: Tensor  # (M, 4) float32, inclusive pixels
    coarse: Tensor  # (M, R, L, L) uint8 {0, 1}, made beforehand; R may be 0


class Crops(NamedTuple):
    """Windows of C photographs, in pixels with exclusive maxima, and the masks that each shows (P of each)."""

    photo: Tensor  # (C,) int64
    masks: Tensor  # (C, P) int64; the first is the one that the window was made for
    window: Tensor  # (C, 4) float32
    flipped: Tensor  # (C,) bool


def on_device(photos: Sequence[Photo], device: torch.device | str) -> DeviceData:
    """The photographs' pixels and masks on `device`: about 3 L^2 bytes a photograph and (1 + R) L^2 a mask."""
    side = max(max(photo.image.shape[:2]) for photo in photos)
    carried = min((len(of) for photo in photos for of in photo.coarse), default=0)
    counts = [len(photo.masks) for photo in photos]
    images = torch.full((len(photos), 3, side, side), PIXEL_MEAN, dtype=torch.uint8, device=device)
    for place, photo in enumerate(photos):
        height, width = photo.image.shape[:2]
        images[place, :, :height, :width] = torch.from_numpy(np.array(photo.image)).to(device).permute(2, 0, 1)
    drawn = [spans.of(rle) for photo in photos for rle in photo.masks]
    made = [spans.of(rle) for photo in photos for of in photo.coarse for rle in of[:carried]]

    def sent(values: npt.ArrayLike) -> Tensor:
        return torch.as_tensor(values).to(device)

    return DeviceData(
        images,
        sent(np.array([photo.image.shape[:2] for photo in photos], np.float32)),
        sent(photo_chances(photos).astype(np.float32)),
        sent(np.cumsum([0, *counts[:-1]])),
        sent(np.array(counts)),
        _filled(drawn, side, device),
        sent(np.array([spans.tight_box_xyxy(of) or (0, 0, side - 1, side - 1) for of in drawn], np.float32)),
        _filled(made, side, device).unflatten(0, (len(drawn), carried)),
    )


def _filled(drawn: Sequence[Spans], side: int, device: torch.device | str) -> Tensor:
    """(N, side, side) uint8 {0, 1}, filled on the device from stretches: sums of where each begins and ends."""
    masks = torch.zeros(len(drawn), side, side, dtype=torch.uint8, device=device)
    for first in range(0, len(drawn), MASKS_AT_ONCE):
        some = drawn[first : first + MASKS_AT_ONCE]
        edges = torch.zeros(len(some), side, side + 1, dtype=torch.int8, device=device)
        owner = np.repeat(np.arange(len(some)), [len(of.column) for of in some])
        at = (np.concatenate(values) for values in zip(*some, strict=True))
        mask, column, top, bottom = (torch.as_tensor(values).to(device) for values in (owner, *at))
        one = torch.ones_like(mask, dtype=torch.int8)
        edges.index_put_((mask, column, top), one, accumulate=True)
        edges.index_put_((mask, column, bottom), -one, accumulate=True)
        inside = edges.cumsum(2, dtype=torch.int8)[:, :, :side]
        masks[first : first + len(some)] = inside.transpose(1, 2)
    return masks


def draw_crops(data: DeviceData, crops: int, masks: int, generator: torch.Generator) -> Crops:
    """`crops` windows with `masks` masks each, as data.crop_window draws them."""

    def rand(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=generator.device)

    photo = torch.multinomial(data.chances, crops, replacement=True, generator=generator)
    count, first = data.mask_count[photo, None], data.first_mask[photo, None]
    start = (rand(crops, 1) * count).long()
    order = torch.arange(masks, device=photo.device)
    chosen = first + (start + order) % count  # neighbours in the file, so that few repeat
    x1, y1, x2, y2 = data.boxes[chosen[:, 0]].unbind(1)
    height, width = data.sizes_hw[photo].unbind(1)
    near = rand(crops) < OBJECT_CROP_SHARE
    low, high = VIEW_SHARES
    factor, share = 1.2 + 1.3 * rand(crops), low + (high - low) * rand(crops)
    object_w, object_h = (x2 - x1 + 1) * factor, (y2 - y1 + 1) * factor
    square = rand(crops) < 0.5
    longest = torch.maximum(object_w, object_h)
    window_w = torch.where(near, torch.where(square, longest, object_w), width * share).clamp_min(LEAST_WINDOW_PX)
    window_h = torch.where(near, torch.where(square, longest, object_h), height * share).clamp_min(LEAST_WINDOW_PX)
    jitter = torch.where(near, 0.15, 0.5) * (2 * rand(2, crops) - 1)
    centre_x = (x1 + x2 + 1) / 2 + jitter[0] * (window_w - (x2 - x1)).abs()
    centre_y = (y1 + y2 + 1) / 2 + jitter[1] * (window_h - (y2 - y1)).abs()
    left, right = _clipped(centre_x, window_w, width)
    top, bottom = _clipped(centre_y, window_h, height)
    return Crops(photo, chosen, torch.stack([left, top, right, bottom], 1), rand(crops) < 0.5)


def _clipped(centre: Tensor, length: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Whole pixels of the image that the stretch covers, at least 32 of them where the image has as many."""
    low = (centre - length / 2).floor().clamp_min(0)
    low = torch.minimum(low, (most - 32).clamp_min(0))
    high = torch.minimum((centre + length / 2).floor(), most)
    return low, torch.minimum(torch.maximum(high, low + 32), most)


def cut_out(pixels: Tensor, crops: Crops, rows: Tensor, side: int, finer: int = 1) -> Tensor:
    """(N, A, L, L) uint8 of the photographs of `rows` (N,) into crops -> (N, A, side, side) float32, 0 in the padding.

    The window's long side becomes `side`; what it does not fill is at the bottom and right. finer: see FINER.
    """
    window, flipped = crops.window[rows], crops.flipped[rows]
    scale = (window[:, 2:] - window[:, :2]).amax(1) / side
    places = (torch.arange(side * finer, device=pixels.device) + 0.5) / finer
    filled_w = ((window[:, 2] - window[:, 0]) / scale)[:, None]
    across = torch.where(flipped[:, None], filled_w - places, places) * scale[:, None] + window[:, :1]
    down = places * scale[:, None] + window[:, 1:2]
    length = pixels.shape[-1]
    grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), 3) * (2 / length) - 1
    sampled = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    averaged = sampled if finer == 1 else F.avg_pool2d(sampled, finer)
    return averaged * filled(crops, side)[rows][:, None]


def filled(crops: Crops, side: int) -> Tensor:
    """(C, side, side) float32: 1 where the crop is, 0 in its padding."""
    extent = crops.window[:, 2:] - crops.window[:, :2]
    width, height = (extent * (side / extent.amax(1, keepdim=True))).add(0.5).floor().unbind(1)
    places = torch.arange(side, device=extent.device)
    return ((places < height[:, None])[:, :, None] & (places < width[:, None])[:, None, :]).float()
