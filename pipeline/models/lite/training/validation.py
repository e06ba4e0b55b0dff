"""Validation during training: whole photographs at the side in use, damage drawn once from the seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from pipeline.masks.binary import decode
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models.lite.network import LiteNetwork
from pipeline.models.lite.training.damage import damage
from pipeline.models.lite.training.data import Example, Photo, cut_out, pad, prompt_arrays, stack
from pipeline.models.lite.training.loss import hard_iou
from pipeline.models.lite.training.prompting import EVERYTHING, Subset, prompt_tensors, to_batch

SIDE = 512
PHOTOS, MASKS_PER_PHOTO = 60, 2
MIN_AREA = 400  # pixels of the original


class Validation(NamedTuple):
    """Means over the masks; IoU in the mask frame."""

    coarse_iou: float
    refined_iou: float
    error_removed: float  # 1 - (1 - refined) / (1 - coarse), of the means
    box_iou: float  # from the true mask's box alone
    predicted_iou_error: float  # mean absolute error for the chosen candidate


@torch.inference_mode()
def validate(network: LiteNetwork, photos: list[Photo], seed: int) -> Validation:
    """Refine damaged masks of up to PHOTOS photographs, one plain pass each."""
    rng, device = np.random.default_rng([seed, 2]), next(network.parameters()).device
    rows = []
    for index in np.random.default_rng(seed).permutation(len(photos))[:PHOTOS]:
        example = validation_example(photos[index], rng)
        if example is None:
            continue
        batch = to_batch(example, device)
        features, truth = network.encoder(batch.images), batch.truth
        coarse = hard_iou(batch.prompts.coarse[:, None] - 0.5, truth)[:, 0]
        refined, predicted = _chosen(network.decoder(features, prompt_tensors(batch, EVERYTHING)), truth)
        boxed, _ = _chosen(network.decoder(features, prompt_tensors(batch, Subset(False, True, False))), truth)
        rows.append(torch.stack([coarse, refined, boxed, (predicted - refined).abs()], 1))
    coarse_iou, refined_iou, box_iou, error = (float(value) for value in torch.cat(rows).mean(dim=0))
    removed = 1 - (1 - refined_iou) / max(1 - coarse_iou, 1e-6)
    return Validation(coarse_iou, refined_iou, removed, box_iou, error)


def validation_example(photo: Photo, rng: np.random.Generator) -> Example | None:
    """A whole photograph with damaged masks; None when it has no mask of MIN_AREA."""
    image = resize_to_input(photo.image, SIDE)
    frame = Frame((image.shape[0], image.shape[1]), SIDE)
    whole = (0, 0, photo.image.shape[1], photo.image.shape[0])
    masks = [mask for mask in (decode(rle) for rle in photo.masks) if mask.sum() >= MIN_AREA]
    masks = [cut_out(masks[i], whole, SIDE) for i in rng.permutation(len(masks))[:MASKS_PER_PHOTO]]
    if not masks:
        return None
    prompts = [prompt_arrays(damage(image, mask, rng), frame, "code", 15.0) for mask in masks]
    boxes = [prompt_arrays(mask, frame, "code", 15.0).box_xyxy for mask in masks]
    return Example(
        pad(image, SIDE)[None],
        np.array([image.shape[:2]]),
        np.zeros(len(masks), np.int64),
        stack(prompts),
        np.stack([frame.field_to_mask(mask, SIDE // 2) for mask in masks]),
        np.stack(boxes),
    )


def _chosen(answer: tuple[torch.Tensor, torch.Tensor], truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """True and predicted IoU, (N,) each, of the candidate that the model prefers."""
    logits, predicted_iou = answer
    best = predicted_iou.argmax(dim=1, keepdim=True)
    return hard_iou(logits, truth).gather(1, best)[:, 0], predicted_iou.gather(1, best)[:, 0]
