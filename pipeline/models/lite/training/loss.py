"""Loss of one training step: masks by the best of three candidates, predicted IoU by all three.

The best of three is for prompts that may mean several things, a box or a point. A mask means one thing; there, three
candidates that specialise (one larger, one smaller) are each worse, and the choice among them loses what they gained.
Every mask counts the same whatever its size: cross-entropy is averaged over the mask's surroundings, dice is relative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

CROSS_ENTROPY_WEIGHT, DICE_WEIGHT, BAND_WEIGHT = 2.0, 1.0, 1.0
FAR_WEIGHT, NEAR_WEIGHT, EDGE_WEIGHT = 0.02, 1.0, 2.0  # of a pixel: far away, near the object, on its outline
NEAR_SHARE, EDGE_SHARE = 16, 64  # a pixel is near within side / NEAR_SHARE, on the outline within side / EDGE_SHARE
ALL_CANDIDATES_SHARE = {True: 0.8, False: 0.1}  # of the mask loss; by whether a mask was given


class Losses(NamedTuple):
    """`mask` and `iou` are scalars to minimise; `true_iou` (N, C) is a target and a measure."""

    mask: Tensor
    iou: Tensor
    true_iou: Tensor


def losses(logits: Tensor, predicted_iou: Tensor, truth: Tensor, given_mask: bool) -> Losses:
    """logits (N, C, H, W), predicted_iou (N, C) in 0-1, truth (N, H, W) in 0-1 -> Losses."""
    each = mask_losses(logits, truth)
    share = ALL_CANDIDATES_SHARE[given_mask]
    mask = (1 - share) * each.min(dim=1).values.mean() + share * each.mean()
    target = hard_iou(logits.detach(), truth)
    return Losses(mask, F.mse_loss(predicted_iou, target), target)


def mask_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """(N, C): weighted cross-entropy + dice + dice within the band around the true outline."""
    near, edge = surroundings(truth)
    weight = FAR_WEIGHT + NEAR_WEIGHT * near + EDGE_WEIGHT * edge
    target = truth[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight[:, None]
    entropy = entropy.sum((2, 3)) / weight.sum((1, 2))[:, None]
    chance = torch.sigmoid(logits)
    band = edge[:, None]
    return (
        CROSS_ENTROPY_WEIGHT * entropy
        + DICE_WEIGHT * dice(chance, target)
        + BAND_WEIGHT * dice(chance * band, target * band)
    )


def dice(chance: Tensor, target: Tensor) -> Tensor:
    """(N, C, H, W) in 0-1, twice -> (N, C): 1 - 2 |A B| / (|A|^2 + |B|^2)."""
    overlap = (chance * target).sum((2, 3))
    return 1 - (2 * overlap + 1) / (chance.square().sum((2, 3)) + target.square().sum((2, 3)) + 1)


def surroundings(truth: Tensor) -> tuple[Tensor, Tensor]:
    """(N, H, W) -> pixels near the object (its box grown a little) and pixels on its outline, (N, H, W) in 0-1."""
    side = truth.shape[-1]
    reach, radius = max(1, side // NEAR_SHARE), max(1, side // EDGE_SHARE)
    rows, columns = truth.amax(2, keepdim=True), truth.amax(1, keepdim=True)
    rows = F.max_pool1d(rows.transpose(1, 2), 2 * reach + 1, 1, reach).transpose(1, 2)
    columns = F.max_pool1d(columns, 2 * reach + 1, 1, reach)
    grown = F.max_pool2d(truth[:, None], 2 * radius + 1, 1, radius)
    shrunk = -F.max_pool2d(-truth[:, None], 2 * radius + 1, 1, radius)
    return rows * columns, (grown - shrunk)[:, 0]


def hard_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """(N, C, H, W), (N, H, W) -> (N, C): IoU of the masks cut at 0 and 0.5; 1 where both are empty."""
    inside, target = logits > 0, (truth > 0.5)[:, None]
    union = (inside | target).sum((2, 3))
    return torch.where(union > 0, (inside & target).sum((2, 3)) / union.clamp_min(1), torch.ones_like(union).float())
