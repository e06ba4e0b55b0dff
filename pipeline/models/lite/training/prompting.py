"""Batches as tensors, which prompts a training step shows, and the second iteration on the model's own output."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.models.device.transfer import PromptTensors
from pipeline.models.lite.model import normalise
from pipeline.models.lite.network import ImageFeatures, LiteNetwork
from pipeline.models.lite.training.batched_prompts import Prompts, prompts_of
from pipeline.models.lite.training.data import STRENGTHS, Example

SECOND_ITERATION_SHARE = 0.25


class Subset(NamedTuple):
    """Prompts to show; `second_iteration`: those of the model's own answer instead of the coarse mask's."""

    points: bool
    box: bool
    mask: bool
    second_iteration: bool = False


EVERYTHING = Subset(points=True, box=True, mask=True)
SUBSETS = {  # share of the steps
    EVERYTHING: 0.66,
    Subset(points=False, box=True, mask=False): 0.12,
    Subset(points=True, box=True, mask=False): 0.06,
    Subset(points=True, box=False, mask=False): 0.06,
    Subset(points=False, box=True, mask=True): 0.06,
    Subset(points=False, box=False, mask=True): 0.04,
}


class Batch(NamedTuple):
    """B crops of side S with N prompts in all, on one device; see Example."""

    images: Tensor  # (B, 3, S, S) float32, normalised, channels last in memory
    filled: Tensor  # (B, S/2, S/2) float32: 1 where the crop is, 0 in its padding
    image_index: Tensor  # (N,) int64
    prompts: Prompts
    truth: Tensor  # (N, S/2, S/2) float32 in [0, 1]
    truth_boxes_xyxy: Tensor  # (N, 4) float32, prompt frame

    @property
    def side(self) -> int:
        return self.images.shape[-1]


def draw_subset(rng: np.random.Generator) -> Subset:
    """One entry of SUBSETS by its share."""
    subset = list(SUBSETS)[rng.choice(len(SUBSETS), p=list(SUBSETS.values()))]
    return subset._replace(second_iteration=bool(subset.mask and rng.random() < SECOND_ITERATION_SHARE))


def to_batch(example: Example, device: torch.device | str = "cpu") -> Batch:
    """The example's arrays on `device`."""

    def sent(values: object) -> Tensor:
        return torch.as_tensor(values).to(device, non_blocking=True)

    side = example.images.shape[1]
    places = torch.arange(side // 2, device=device)
    height, width = sent(example.size_hw).unsqueeze(-1).unbind(1)
    filled = (2 * places < height)[:, :, None] & (2 * places < width)[:, None, :]
    return Batch(
        normalise(sent(example.images)),
        filled.float(),
        sent(example.image_index),
        Prompts(*(sent(values) for values in example.prompts)),
        sent(example.truth),
        sent(example.truth_boxes_xyxy),
    )


def prompt_tensors(batch: Batch, subset: Subset) -> PromptTensors:
    """The batch's prompts, without those that the subset leaves out. A lone box is the true mask's."""
    given = batch.prompts
    boxes = given.box_xyxy if subset.points or subset.mask else batch.truth_boxes_xyxy
    return PromptTensors(
        batch.image_index,
        given.points_xy if subset.points else None,
        given.point_labels if subset.points else None,
        boxes if subset.box else None,
        given.mask_logits if subset.mask else None,
        given.coarse if subset.mask else None,
    )


@torch.no_grad()
def own_output(network: LiteNetwork, features: ImageFeatures, batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with the prompts of the model's best answer to it; empty answers leave a prompt as it was."""
    detached = ImageFeatures(*(tensor.detach() for tensor in features))
    logits, predicted_iou = network.decoder(detached, prompt_tensors(batch, EVERYTHING))
    best = logits[torch.arange(len(logits), device=logits.device), predicted_iou.argmax(dim=1)]
    coarse = coverage(best) * batch.filled[batch.image_index]
    usable = (coarse > 0.5).any(2).any(1)
    answer = prompts_of(coarse, *draw_gaussian(len(coarse), generator))
    chosen = [
        torch.where(usable.view(-1, *[1] * (new.dim() - 1)), new, old)
        for new, old in zip(answer, batch.prompts, strict=True)
    ]
    return batch._replace(prompts=Prompts(*chosen))


def coverage(logits: Tensor) -> Tensor:
    """(N, s, s) logits -> (N, s, s) float32 share of each pixel that is foreground at twice the resolution."""
    fine = F.interpolate(logits[:, None].float(), scale_factor=2, mode="bilinear")
    return F.avg_pool2d((fine > 0).float(), 2)[:, 0]


def draw_gaussian(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Form and strength of `count` mask prompts: (N,) bool "as in the paper", (N,) float32."""
    device = generator.device
    as_paper = torch.rand(count, generator=generator, device=device) < 0.5
    choice = torch.randint(len(STRENGTHS), (count,), generator=generator, device=device)
    strength = torch.tensor(STRENGTHS, dtype=torch.float32).to(device)
    return as_paper, strength[choice]
