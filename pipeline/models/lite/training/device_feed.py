"""Batches of training made on the device from what lies there; nothing waits for a CPU, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.masks.frames import PROMPT_SIDE
from pipeline.models.lite.model import PIXEL_MEAN, PIXEL_STD
from pipeline.models.lite.training.batched_prompts import box_of, prompts_of
from pipeline.models.lite.training.data import MIN_AREA_SHARE, Photo
from pipeline.models.lite.training.device_damage import damaged, near_perfect, within_bounds
from pipeline.models.lite.training.device_data import FINER, Crops, cut_out, draw_crops, filled, on_device
from pipeline.models.lite.training.prompting import Batch, coverage, draw_gaussian

NEAR_PERFECT_SHARE, CARRIED_SHARE, MERGED_SHARE = 0.25, 0.45, 0.05  # of the prompts; the rest is shape damage
HARD_SHARE = 0.5
"""Of the prompts, whatever their damage: outlines without soft values. Were those of untouched masks softer or harder
than others', the network would learn from that what to leave alone, and no mask in use would look like it."""
MOST_SHARE = 0.95  # of the crop, for a mask to be worth a prompt there


class DeviceFeed:
    """Batch number `step` is a pure function of (seed, step, side) on a given kind of device."""

    def __init__(self, photos: Sequence[Photo], images: int, masks: int, seed: int, device: torch.device | str) -> None:
        """images: crops of a batch at side 256, at 512 half as many; masks: prompts for each."""
        self.data = on_device(photos, device)
        self._images, self._masks, self._seed = images, masks, seed
        self._generator = torch.Generator(device)

    @torch.no_grad()
    def batch(self, step: int, side: int) -> Batch:
        """Batch number `step` with crops of `side`."""
        generator = self._generator.manual_seed((self._seed << 40) + (side << 30) + step)
        count = max(1, self._images * 256 // side)
        crops = draw_crops(self.data, count, self._masks, generator)
        every = torch.arange(count, device=crops.photo.device)
        rows = every.repeat_interleave(self._masks)
        masks, chosen = self._masks_of(crops, rows, side)
        truth = F.avg_pool2d(masks[:, None], 2)[:, 0]
        area = filled(crops, side)[:, ::2, ::2]
        coarse = self._coarse(crops, rows, truth, chosen, generator) * area[rows]
        pixels = cut_out(self.data.images[crops.photo], crops, every, side, FINER)
        return Batch(
            _normalised(distort(pixels, generator), filled(crops, side)),
            area,
            rows,
            prompts_of(coarse, *draw_gaussian(len(rows), generator)),
            truth,
            _unsteady_boxes(masks, generator),
        )

    def batches(self, steps: Iterator[tuple[int, int]]) -> Iterator[Batch]:
        """One for each (step, side)."""
        for step, side in steps:
            yield self.batch(step, side)

    def _masks_of(self, crops: Crops, rows: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """(N, side, side) float32 {0, 1} and which masks they are, (N,); what does not show gives way to the first."""
        chosen = crops.masks.flatten()
        masks = (cut_out(self.data.masks[chosen][:, None], crops, rows, side)[:, 0] > 0.5).float()
        share = masks.mean((1, 2))
        shows = (share > MIN_AREA_SHARE) & (share < MOST_SHARE)
        places = torch.arange(len(rows), device=rows.device)
        taken = torch.where(shows, places, places - places % self._masks)
        return masks[taken], chosen[taken]

    def _coarse(self, crops: Crops, rows: Tensor, truth: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """(N, s, s) float32 in [0, 1], of the truth's form: near-perfect, made beforehand, merged with a neighbour, or
        damaged in shape. In the mask frame, where all prompts are: a quarter of the work."""
        masks = (truth > 0.5).float()
        chance = torch.rand(len(rows), generator=generator, device=rows.device)[:, None, None]
        nearly = near_perfect(masks, generator)
        coarse = damaged(masks, nearly, generator)
        kinds = self.data.coarse.shape[1]
        if kinds:
            kind = torch.randint(kinds, (len(rows),), generator=generator, device=rows.device)
            made = self.data.coarse[chosen, kind]
            carried = (cut_out(made[:, None], crops, rows, masks.shape[-1])[:, 0] > 0.5).float()
            carried = within_bounds(carried, masks, nearly)
            coarse = torch.where(chance > 1 - CARRIED_SHARE, carried, coarse)
        together = torch.maximum(masks, masks.unflatten(0, (-1, self._masks)).roll(1, 1).flatten(0, 1))
        merges = (chance > NEAR_PERFECT_SHARE) & (chance < NEAR_PERFECT_SHARE + MERGED_SHARE)
        coarse = torch.where(merges, within_bounds(together, masks, nearly), coarse)
        coarse = torch.where(chance < NEAR_PERFECT_SHARE, nearly, coarse)
        hard = torch.rand(len(rows), generator=generator, device=rows.device)[:, None, None] < HARD_SHARE
        return torch.where(hard, coarse, coverage(coarse - 0.5))


def distort(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, colour, now and then grey, blur or noise, as data.distort. (C, 3, S, S) 0-255 -> same."""
    count, device = len(pixels), pixels.device

    def rand(low: float, high: float, *size: int) -> Tensor:
        shape = size or (count, 1, 1, 1)
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    pixels = (pixels - 128) * rand(0.7, 1.3) + 128 + rand(-25, 25) + rand(-12, 12, count, 3, 1, 1)
    pixels = torch.where(rand(0, 1) < 0.1, pixels.mean(1, keepdim=True), pixels)
    kernel = torch.exp(-0.5 * (torch.arange(-3, 4, device=device) / rand(0.4, 1.5, count, 1)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    soft = F.conv2d(
        F.pad(pixels, (3, 3, 3, 3), mode="replicate").flatten(0, 1)[None], kernel[..., None], groups=3 * count
    )
    soft = F.conv2d(soft, kernel[:, :, None], groups=3 * count)[0].unflatten(0, (count, 3))
    pixels = torch.where(rand(0, 1) < 0.15, soft, pixels)
    grain = torch.randn(pixels.shape, generator=generator, device=device) * rand(2, 10)
    return torch.where(rand(0, 1) < 0.15, pixels + grain, pixels).clamp(0, 255)


def _normalised(pixels: Tensor, area: Tensor) -> Tensor:
    """(C, 3, S, S) 0-255 and where the crops are -> as lite.normalise of padded crops, channels last in memory."""
    normal = (pixels.round() - PIXEL_MEAN) / PIXEL_STD * area[:, None]
    return normal.contiguous(memory_format=torch.channels_last)


def _unsteady_boxes(masks: Tensor, generator: torch.Generator) -> Tensor:
    """(N, S, S) -> (N, 4) float32 prompt frame, as data.unsteady_box."""
    box = box_of(masks > 0.5).float()
    spread = (box[:, 2:] - box[:, :2]).repeat(1, 2) * 0.04
    draws = torch.randn(box.shape, generator=generator, device=box.device)
    shaky = torch.rand((len(box), 1), generator=generator, device=box.device) < 0.5
    return (box + draws * spread * shaky) * (PROMPT_SIDE / masks.shape[-1])
