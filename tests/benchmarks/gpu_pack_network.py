"""A small mask head on ImageNet features, trained on folds, for the coarse masks that a real network makes.

As a detector's: features of a box, 28 x 28 soft values, enlarged to the box. Two folds; each image is answered by the
head that has not seen its fold, so the mistakes are those of images that a network does not know.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision.ops import roi_align

from pipeline.masks.binary import Mask, decode
from pipeline.models.lite.backbone import Lite0Backbone
from pipeline.models.lite.model import normalise
from pipeline.models.lite.training.data import Photo, pad
from pipeline.models.lite.training.imagenet import load_imagenet

FOLDS = 2
CELLS = 28
STRIDES = {4: 24, 8: 40, 16: 112}
RATE = 2e-3
INPUT_SIDE, STEP = 384, 32  # images are padded to the former, larger ones to a multiple of the latter


class MaskHead(nn.Sequential):
    """(N, channels, CELLS, CELLS) -> (N, 1, CELLS, CELLS) logits."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(sum(STRIDES.values()), 64, 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1, dilation=1),
            nn.ReLU(),
            nn.Conv2d(64, 1, 1),
        )


def out_of_fold(photos: Sequence[Photo], images: int) -> list[list[Mask]]:
    """Masks (H, W) of every photograph's masks, from a head that was trained on `images` photographs of other folds."""
    backbone = Lite0Backbone().eval().requires_grad_(False)
    load_imagenet(backbone)
    answers: list[list[Mask]] = [[] for _ in photos]
    for fold in range(FOLDS):
        others = [photo for index, photo in enumerate(photos) if index % FOLDS != fold][:images]
        head = trained(backbone, others, fold)
        for index in range(fold, len(photos), FOLDS):
            answers[index] = answer(backbone, head, photos[index], np.random.default_rng([index, 1]))
    return answers


def trained(backbone: Lite0Backbone, photos: Sequence[Photo], seed: int) -> MaskHead:
    """One pass over the photographs, one step each."""
    torch.manual_seed(seed)
    head, rng = MaskHead(), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(head.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(2, len(photos)))
    for photo in photos:
        boxes = torch.stack([detected_box(decode(rle), rng) for rle in photo.masks])
        truth = torch.stack([torch.from_numpy(decode(rle)).float() for rle in photo.masks])
        rows = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes], 1)
        target = roi_align(truth[:, None], rows, CELLS, aligned=True)
        loss = F.binary_cross_entropy_with_logits(head(features(backbone, photo, boxes)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


@torch.inference_mode()
def answer(backbone: Lite0Backbone, head: MaskHead, photo: Photo, rng: np.random.Generator) -> list[Mask]:
    """The head's masks in boxes as a detector would place them."""
    boxes = torch.stack([detected_box(decode(rle), rng) for rle in photo.masks])
    soft = torch.sigmoid(head(features(backbone, photo, boxes)))[:, 0].numpy()
    found = []
    for field, (x1, y1, x2, y2) in zip(soft, boxes.round().int().tolist(), strict=True):
        mask = np.zeros(photo.image.shape[:2], np.uint8)
        mask[y1:y2, x1:x2] = cv2.resize(field, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 0.5
        found.append(mask)
    return found


def features(backbone: Lite0Backbone, photo: Photo, boxes: Tensor) -> Tensor:
    """(N, 4) boxes in pixels -> (N, channels, CELLS, CELLS)."""
    side = max(INPUT_SIDE, -(-max(photo.image.shape[:2]) // STEP) * STEP)
    with torch.no_grad():
        taps = backbone(normalise(torch.from_numpy(pad(photo.image, side))[None]))[1:4]
    return torch.cat(
        [roi_align(tap, [boxes], CELLS, 1 / stride, 2, True) for tap, stride in zip(taps, STRIDES, strict=True)], 1
    )


def detected_box(mask: Mask, rng: np.random.Generator) -> Tensor:
    """(4,) float32 x1, y1, x2, y2 around the mask, each side off by a few percent, within the image."""
    x, y, width, height = cv2.boundingRect(mask)
    off = rng.normal(0.02, 0.05, 4) * (width, height, width, height)
    x1, y1 = max(0.0, x - off[0]), max(0.0, y - off[1])
    x2, y2 = min(mask.shape[1], x + width + off[2]), min(mask.shape[0], y + height + off[3])
    x1, y1 = min(x1, mask.shape[1] - 4.0), min(y1, mask.shape[0] - 4.0)
    return torch.tensor([x1, y1, max(x2, x1 + 3), max(y2, y1 + 3)], dtype=torch.float32)
