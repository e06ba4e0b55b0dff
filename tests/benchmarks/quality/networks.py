"""Coarse masks as networks make them, of photographs that those networks never saw.

head           a detector's mask head on ImageNet features, 28 x 28 values in a box that is a little off
head_strong    the same with the truth mixed into its values: as good as a large detector's, wrong where the head is
segmenter      a small network from scratch on a crop of 64 pixels, 32 x 32 values
cam            class activations of an ImageNet classifier in the box, cut at a share of their peak

They are trained on the photographs that `lite`'s weights are fitted to (lite/training/data.py, part `fit`), and answer
others. Nothing of them is `lite`'s: they err elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.masks.binary import Mask, decode, encode
from pipeline.masks.frames import resize_to_input
from pipeline.models.lite.backbone import Lite0Backbone
from pipeline.models.lite.model import normalise
from pipeline.models.lite.training.data import Photo, load_all, photo_chances
from pipeline.models.lite.training.imagenet import BATCH_NORM_EPS, load_imagenet, weights_path
from tests.benchmarks.gpu_pack_network import INPUT_SIDE, MaskHead, detected_box, features, trained
from tests.benchmarks.lite_dev import Image

NETWORKS = ("head", "head_strong", "segmenter", "cam")
PHOTOS = {"head": 500, "segmenter": 2400}
TRUTH_SHARE = (0.35, 0.6)  # of the values of `head_strong`
CROP, CELLS, BATCH = 64, 32, 32
CONTEXT = 0.15  # of a box's sides that the segmenter sees around it
CAM_SIDE = 224
RATE = 2e-3


class Networks:
    """All of them. Trained once, in some minutes, and kept in `cache`."""

    def __init__(self, data: Path, cache: Path) -> None:
        self._data, self._cache = data, cache
        self._backbone = Lite0Backbone().eval().requires_grad_(False)
        load_imagenet(self._backbone)

    @cached_property
    def _photos(self) -> list[Photo]:
        """Of `fit`, each source by the square root of its size."""
        photos = [photo for photo in load_all([self._data / "train", self._data / "train2"], {"fit"}) if photo.masks]
        chances = photo_chances(photos)
        order = np.random.default_rng(0).choice(len(photos), min(len(photos), max(PHOTOS.values())), False, chances)
        return [photos[index] for index in order]

    @cached_property
    def _head(self) -> nn.Module:
        return self._kept("head", MaskHead())

    @cached_property
    def _segmenter(self) -> nn.Module:
        return self._kept("segmenter", segmenter())

    @cached_property
    def _classifier(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights and bias of the last convolution, its batch norm folded in, and of the classes."""
        state = torch.load(weights_path(), map_location="cpu", weights_only=True)
        bn = {name: state[f"_bn1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
        scale = bn["weight"] / torch.sqrt(bn["running_var"] + BATCH_NORM_EPS)
        weight = state["_conv_head.weight"] * scale[:, None, None, None]
        return weight, bn["bias"] - bn["running_mean"] * scale, state["_fc.weight"]

    def _kept(self, kind: str, network: nn.Module) -> nn.Module:
        path = self._cache / f"network-{kind}.safetensors"
        if not path.exists():
            photos = self._photos[: PHOTOS[kind]]
            with torch.inference_mode(False), torch.enable_grad():  # whoever asks for answers is in inference mode
                made = taught(photos) if kind == "segmenter" else trained(self._backbone, [*map(within, photos)], 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(made.state_dict(), path)
        network.load_state_dict(load_file(path))
        return network.eval()

    def answers(self, kind: str, photo: Photo, rng: np.random.Generator) -> list[Mask]:
        """A network's masks (H, W) of each of a photograph's masks; empty ones where it finds nothing."""
        if kind in ("head", "head_strong"):
            share = rng.uniform(*TRUTH_SHARE) if kind == "head_strong" else 0.0
            return [whole(mask, photo) for mask in self._detected(within(photo), share, rng)]
        make = self._segmented if kind == "segmenter" else self._activated
        return [make(photo.image, decode(rle), rng) for rle in photo.masks]

    @torch.inference_mode()
    def _detected(self, photo: Photo, truth_share: float, rng: np.random.Generator) -> list[Mask]:
        truths = [decode(rle) for rle in photo.masks]
        boxes = torch.stack([detected_box(truth, rng) for truth in truths])
        fields = torch.sigmoid(self._head(features(self._backbone, photo, boxes)))[:, 0].numpy()
        found = []
        for field, truth, (x1, y1, x2, y2) in zip(fields, truths, boxes.round().int().tolist(), strict=True):
            part = truth[y1:y2, x1:x2].astype(np.float32)
            own = cv2.resize(part, field.shape[::-1], interpolation=cv2.INTER_AREA)
            mixed = (1 - truth_share) * field + truth_share * own
            mask = np.zeros_like(truth)
            mask[y1:y2, x1:x2] = cv2.resize(mixed, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 0.5
            found.append(mask)
        return found

    @torch.inference_mode()
    def _segmented(self, image: Image, truth: Mask, rng: np.random.Generator) -> Mask:
        box = detected_box(truth, rng)
        x1, y1, x2, y2 = window = widened(box, truth.shape)
        soft = torch.sigmoid(self._segmenter(seen(image, window, box)[None]))[0, 0].numpy()
        mask = np.zeros_like(truth)
        mask[y1:y2, x1:x2] = cv2.resize(soft, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 0.5
        return inside(mask, box)

    @torch.inference_mode()
    def _activated(self, image: Image, truth: Mask, rng: np.random.Generator) -> Mask:
        box = detected_box(truth, rng)
        x1, y1, x2, y2 = widened(box, truth.shape)
        crop = cv2.resize(np.ascontiguousarray(image[y1:y2, x1:x2]), (CAM_SIDE, CAM_SIDE), interpolation=cv2.INTER_AREA)
        weight, bias, classes = self._classifier
        last = F.relu6(F.conv2d(self._backbone(normalise(torch.from_numpy(crop)[None]))[-1], weight, bias))
        chosen = classes[(classes @ last.mean((2, 3))[0]).topk(3).indices].mean(0)
        field = torch.einsum("c,chw->hw", chosen, last[0]).numpy()
        field = cv2.resize(field, (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC)
        low, high = np.percentile(field, [2, 98])
        mask = np.zeros_like(truth)
        mask[y1:y2, x1:x2] = field > low + rng.uniform(0.25, 0.5) * (high - low)
        return inside(mask, box)


def within(photo: Photo) -> Photo:
    """A photograph as the mask heads take it: its long side INPUT_SIDE at most."""
    if max(photo.image.shape[:2]) <= INPUT_SIDE:
        return photo
    image = resize_to_input(photo.image, INPUT_SIDE)
    masks = (cv2.resize(decode(rle), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) for rle in photo.masks)
    return Photo(photo.name, photo.source, image, tuple(encode(mask) for mask in masks if mask.any()))


def whole(mask: Mask, photo: Photo) -> Mask:
    """A mask of any size at the photograph's."""
    soft = cv2.resize(mask * np.uint8(255), photo.image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return (soft > 127).astype(np.uint8)


def segmenter() -> nn.Sequential:
    """(N, 4, CROP, CROP): colours and box -> (N, 1, CELLS, CELLS) logits."""
    layers: list[nn.Module] = [nn.Conv2d(4, 24, 5, 2, 2), nn.ReLU()]
    for dilation in (1, 2, 4, 8, 1):
        layers += [nn.Conv2d(24, 24, 3, padding=dilation, dilation=dilation), nn.GroupNorm(4, 24), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(24, 1, 1))


def taught(photos: Sequence[Photo]) -> nn.Module:
    """The segmenter, trained by two passes over some masks of each photograph."""
    torch.manual_seed(0)
    network, rng = segmenter(), np.random.default_rng(0)
    examples = []
    for photo in photos:
        for index in rng.permutation(len(photo.masks))[:3]:
            truth = decode(photo.masks[index])
            box = detected_box(truth, rng)
            x1, y1, x2, y2 = window = widened(box, truth.shape)
            part = cv2.resize(truth[y1:y2, x1:x2].astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            examples.append((seen(photo.image, window, box), torch.from_numpy(part)[None]))
    order = np.concatenate([rng.permutation(len(examples)) for _ in range(2)])
    steps = len(order) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(2, steps))
    for rows in np.array_split(order, max(1, steps)):
        images, targets = (torch.stack([examples[row][part] for row in rows]) for part in (0, 1))
        if rng.random() < 0.5:
            images, targets = images.flip(-1), targets.flip(-1)
        loss = F.binary_cross_entropy_with_logits(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def seen(image: Image, window: tuple[int, int, int, int], box: Tensor) -> Tensor:
    """(4, CROP, CROP) float32: what the segmenter sees of a window, and where in it the box is."""
    x1, y1, x2, y2 = window
    crop = cv2.resize(np.ascontiguousarray(image[y1:y2, x1:x2]), (CROP, CROP), interpolation=cv2.INTER_AREA)
    marked = cv2.resize(inside(np.ones(image.shape[:2], np.uint8), box)[y1:y2, x1:x2], (CROP, CROP))
    colours = (crop.astype(np.float32) - crop.mean((0, 1), dtype=np.float32)) / 64
    return torch.from_numpy(np.dstack([colours, marked.astype(np.float32)])).permute(2, 0, 1)


def widened(box: Tensor, size_hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box (x1, y1, x2, y2; maxima exclusive) with CONTEXT around it, whole pixels within the image."""
    x1, y1, x2, y2 = box.tolist()
    wide, high = CONTEXT * (x2 - x1) + 2, CONTEXT * (y2 - y1) + 2
    return (
        max(0, int(x1 - wide)),
        max(0, int(y1 - high)),
        min(size_hw[1], int(x2 + wide) + 1),
        min(size_hw[0], int(y2 + high) + 1),
    )


def inside(mask: Mask, box: Tensor) -> Mask:
    """The mask within the box alone."""
    x1, y1, x2, y2 = box.round().int().tolist()
    bounded = np.zeros_like(mask)
    bounded[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
    return bounded
