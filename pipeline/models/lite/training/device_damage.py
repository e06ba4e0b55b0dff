"""Shape damage of many masks at once, in torch: what `damage.py` does to one without looking at the image.

Every kind is (masks (N, S, S) float32 {0, 1}, size (N,) float32, generator) -> field (N, S, S), foreground above 0.5.
`size` is the square root of each mask's area; all lengths are shares of it. Polygons, hulls and everything that looks
at the image are made beforehand instead (tests/benchmarks/gpu_pack.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

ShapeDamage = Callable[[Tensor, Tensor, torch.Generator], Tensor]
MIN_IOU, MAX_IOU = 0.4, 0.98
NOISE_CELLS = 48
TAPS = 24  # of a Gaussian on either side
ELLIPSES = 4


def damaged(masks: Tensor, otherwise: Tensor, generator: torch.Generator) -> Tensor:
    """(N, S, S) float32 {0, 1} -> the same: equal shares of every kind; `otherwise` where it came out too far off."""
    size = masks.sum((1, 2)).clamp_min(1).sqrt()
    order = torch.randperm(len(masks), generator=generator, device=masks.device)
    parts = [
        kind(masks[rows], size[rows], generator)
        for kind, rows in zip(KINDS, order.tensor_split(len(KINDS)), strict=True)
        if len(rows)
    ]
    coarse = torch.empty_like(masks)
    coarse[order] = (torch.cat(parts) > 0.5).float()
    return within_bounds(coarse, masks, otherwise)


def within_bounds(coarse: Tensor, masks: Tensor, otherwise: Tensor) -> Tensor:
    """`coarse` where its IoU with the mask is between the bounds, else `otherwise`."""
    both, union = (coarse * masks).sum((1, 2)), torch.maximum(coarse, masks).sum((1, 2)).clamp_min(1)
    fits = (both / union >= MIN_IOU) & (both / union <= MAX_IOU)
    return torch.where(fits[:, None, None], coarse, otherwise)


def near_perfect(masks: Tensor, generator: torch.Generator) -> Tensor:
    """The mask itself, or the mask moved by about a pixel here and there; (N, S, S) float32 {0, 1}."""
    soft = F.avg_pool2d(masks[:, None], 3, 1, 1)[:, 0]
    shaken = (soft + 0.2 * noise(masks, masks.new_full((len(masks),), 3.0), generator) > 0.5).float()
    changed = torch.where((soft > 0) & (soft < 1), shaken, masks)
    changes = uniform(masks, 0, 1, generator) < 0.5
    return torch.where((changes & changed.any(2).any(1))[:, None, None], changed, masks)


def blurred(masks: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """Smoothed and cut at another level, from nearly dilated to nearly eroded; thin parts go."""
    field = smooth(masks, size * uniform(masks, 0.04, 0.2, generator))
    return field + 0.5 - uniform(masks, 0.08, 0.85, generator)[:, None, None]


def rough(masks: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth noise at two scales: outlines that wander in and out."""
    field = smooth(masks, size * uniform(masks, 0.04, 0.12, generator))
    near = smooth(masks, size * 0.15) > 0.02
    for _ in range(2):
        strength = uniform(masks, 0.05, 0.3, generator)[:, None, None]
        field = field + strength * noise(masks, size * uniform(masks, 0.02, 0.2, generator), generator)
    return field * near


def low_resolution(masks: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """A noisy grid of few cells, cut at some level: class activation maps, mask heads of a detector."""
    cell = (size * uniform(masks, 0.06, 0.35, generator)).clamp_min(3)
    averaged = smooth(masks, cell * 0.4)
    averaged = averaged + 0.1 * uniform(masks, 0, 1, generator)[:, None, None] * noise(masks, cell, generator)
    stepped = _at_cell_centres(averaged, cell)
    smoothed = smooth(stepped, cell * 0.45)
    field = torch.where((uniform(masks, 0, 1, generator) < 0.8)[:, None, None], smoothed, stepped)
    return field + 0.5 - uniform(masks, 0.25, 0.6, generator)[:, None, None]


def patches(masks: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """Ellipses added or removed, centred on the mask or just beside it."""
    side = masks.shape[-1]
    coarse, places = masks.clone(), torch.arange(side, device=masks.device)
    weight = F.max_pool2d(masks[:, None], 5, 1, 2).flatten(1) + 1e-9
    for centre in torch.multinomial(weight, ELLIPSES, replacement=True, generator=generator).unbind(1):
        angle = uniform(masks, 0, 3.1416, generator)[:, None, None]
        down = (places[:, None] - (centre // side)[:, None, None]).float()
        across = (places[None, :] - (centre % side)[:, None, None]).float()
        longer, shorter = (
            (size * uniform(masks, low, high, generator))[:, None, None] for low, high in ((0.1, 0.42), (0.06, 0.35))
        )
        along = (across * angle.cos() + down * angle.sin()) / longer
        beside = (down * angle.cos() - across * angle.sin()) / shorter
        used = (uniform(masks, 0, 1, generator) < 0.6)[:, None, None]
        value = (uniform(masks, 0, 1, generator) < 0.5).float()[:, None, None]
        coarse = torch.where((along.square() + beside.square() < 1) & used, value, coarse)
    return coarse


def cut(masks: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """A straight or wavy cut takes away one side."""
    places = torch.arange(masks.shape[-1], device=masks.device)
    angle = uniform(masks, 0, 6.2832, generator)[:, None, None]
    position = places * angle.cos() + places[:, None] * angle.sin()
    wave = noise(masks, size * uniform(masks, 0.1, 0.3, generator), generator)
    position = position + (size * uniform(masks, 0, 0.12, generator))[:, None, None] * wave
    area = masks.sum((1, 2)).clamp_min(1)
    mean = (position * masks).sum((1, 2)) / area
    spread = ((position.square() * masks).sum((1, 2)) / area - mean.square()).clamp_min(0).sqrt()
    edge = mean - spread * uniform(masks, 0.4, 1.4, generator)
    return masks * (position > edge[:, None, None])


def moved(masks: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """Warped smoothly, scaled along each axis and shifted: tracks, hands, a moment earlier."""
    side = masks.shape[-1]
    places = torch.arange(side, device=masks.device, dtype=torch.float32)
    area = masks.sum((1, 2)).clamp_min(1)
    wavelength = size * uniform(masks, 0.1, 0.35, generator)
    strength = (size * uniform(masks, 0, 0.13, generator))[:, None, None]
    grids = []
    for axis, grid in ((1, places.expand(side, side)), (2, places[:, None].expand(side, side))):
        centre = ((masks.sum(axis) * places).sum(1) / area)[:, None, None]
        factor = uniform(masks, 0.8, 1.25, generator)[:, None, None]
        shift = (size * 0.06 * torch.randn(len(masks), generator=generator, device=masks.device))[:, None, None]
        wave = strength * noise(masks, wavelength, generator)
        grids.append((grid - centre) * factor + centre + shift + wave)
    place = (torch.stack(grids, 3) + 0.5) * (2 / side) - 1
    return F.grid_sample(masks[:, None], place, mode="bilinear", align_corners=False)[:, 0]


KINDS: tuple[ShapeDamage, ...] = (blurred, rough, low_resolution, patches, cut, moved)


def uniform(masks: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(N,) float32, one for each mask."""
    return low + (high - low) * torch.rand(len(masks), generator=generator, device=masks.device)


def noise(masks: Tensor, wavelength: Tensor, generator: torch.Generator) -> Tensor:
    """(N, S, S) smooth noise of about unit variance, `wavelength` (N,) pixels from bump to bump; fine noise repeats."""
    side = masks.shape[-1]
    cells = torch.randn(len(masks), 1, NOISE_CELLS, NOISE_CELLS, generator=generator, device=masks.device)
    reach = side / wavelength.clamp_min(2.0) / NOISE_CELLS
    places = (torch.arange(side, device=masks.device) + 0.5) / side
    along = (places * reach[:, None] * 2) % 4.0
    along = (along - 4.0 * (along > 2)).abs() - 1  # back and forth, where the map is shorter than the mask
    grid = torch.stack(torch.broadcast_tensors(along[:, None, :], along[:, :, None]), 3)
    return F.grid_sample(cells, grid, mode="bicubic", padding_mode="reflection", align_corners=False)[:, 0]


def smooth(field: Tensor, sigma: Tensor) -> Tensor:
    """(N, S, S) blurred by a Gaussian of `sigma` (N,) pixels, capped at TAPS / 2; borders are replicated."""
    taps = torch.arange(-TAPS, TAPS + 1, device=field.device)
    weights = torch.exp(-0.5 * (taps / sigma.clamp(0.3, TAPS / 2)[:, None]).square())
    weights = (weights / weights.sum(1, keepdim=True))[:, None]
    count = len(field)
    padded = F.pad(field[None], (0, 0, TAPS, TAPS), mode="replicate")
    down = F.conv2d(padded, weights[..., None], groups=count)
    padded = F.pad(down, (TAPS, TAPS, 0, 0), mode="replicate")
    return F.conv2d(padded, weights[:, :, None], groups=count)[0]


def _at_cell_centres(field: Tensor, cell: Tensor) -> Tensor:
    """Each pixel takes the value at the middle of its cell of `cell` (N,) pixels."""
    side = field.shape[-1]
    places = torch.arange(side, device=field.device)
    middle = ((places / cell[:, None]).floor() + 0.5) * cell[:, None] * (2 / side) - 1
    grid = torch.stack(torch.broadcast_tensors(middle[:, None, :], middle[:, :, None]), 3)
    return F.grid_sample(field[:, None], grid, mode="nearest", padding_mode="border", align_corners=False)[:, 0]
