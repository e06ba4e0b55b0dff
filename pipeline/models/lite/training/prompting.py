"""Which prompts a training step shows, and the second iteration on the model's own output."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.masks.frames import Frame
from pipeline.models.lite.model import normalise
from pipeline.models.lite.network import ImageFeatures, LiteNetwork, PromptTensors
from pipeline.models.lite.training.data import FORMS, STRENGTHS, Example, PromptArrays, prompt_arrays, stack

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


def draw_subset(rng: np.random.Generator) -> Subset:
    """One entry of SUBSETS by its share."""
    subset = list(SUBSETS)[rng.choice(len(SUBSETS), p=list(SUBSETS.values()))]
    return subset._replace(second_iteration=bool(subset.mask and rng.random() < SECOND_ITERATION_SHARE))


def image_tensor(example: Example) -> Tensor:
    """(B, 3, S, S) float32, normalised."""
    return normalise(torch.from_numpy(example.images))


def prompt_tensors(example: Example, subset: Subset) -> PromptTensors:
    """The example's prompts, without those that the subset leaves out. A lone box is the true mask's."""
    given = example.prompts
    boxes = given.box_xyxy if subset.points or subset.mask else example.truth_boxes_xyxy
    return PromptTensors(
        torch.from_numpy(example.image_index),
        torch.from_numpy(given.points_xy) if subset.points else None,
        torch.from_numpy(given.point_labels) if subset.points else None,
        torch.from_numpy(boxes) if subset.box else None,
        torch.from_numpy(given.mask_logits) if subset.mask else None,
        torch.from_numpy(given.coarse) if subset.mask else None,
    )


@torch.no_grad()
def own_output(network: LiteNetwork, features: ImageFeatures, example: Example, rng: np.random.Generator) -> Example:
    """The example with the prompts of the model's best answer to it; empty answers leave a prompt as it was."""
    detached = ImageFeatures(*(tensor.detach() for tensor in features))
    logits, predicted_iou = network.decoder(detached, prompt_tensors(example, EVERYTHING))
    best = logits[torch.arange(len(logits)), predicted_iou.argmax(dim=1)].numpy()
    side = example.images.shape[1]
    rows: list[PromptArrays] = []
    for index, image in enumerate(example.image_index):
        frame = Frame((int(example.size_hw[image, 0]), int(example.size_hw[image, 1])), side)
        mask = (frame.logits_to_image(best[index]) > 0).astype(np.uint8)
        if mask.any():
            form, strength = FORMS[rng.integers(len(FORMS))], STRENGTHS[rng.integers(len(STRENGTHS))]
            rows.append(prompt_arrays(mask, frame, form, strength))
        else:
            rows.append(PromptArrays(*(values[index] for values in example.prompts)))
    return example._replace(prompts=stack(rows))
