"""Are refined labels worth it? Trains the same small segmenter on coarse and on refined labels, asks the truth.

    python -m jobs.examples.train_segmenter OUTPUT --truth gt.json --split split.json

OUTPUT is what `relabel run` wrote. On the images of list A of the split, a small U-Net learns to cut out the object
in a box, once from the masks that came in and once from those to train on: same start, same batches, same steps. On the
images of list B both are compared with the true masks. Without a split, halves of the images by a hash of their names.

Needs neither a GPU nor pretrained weights; a few hundred masks take minutes on two cores.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline import masks
from pipeline.dataset import MaskDataset, Result, open_result
from pipeline.dataset.feed import Target
from pipeline.dataset.samples import Photos
from pipeline.errors import RefusedError
from pipeline.evaluation.bootstrap import ImageBootstrap
from pipeline.evaluation.inputs import read_image_list, read_truth
from pipeline.evaluation.pairing import Truth

SIDE = 96  # pixels of a crop
MARGIN = 0.25  # of the box's sides, around it
BATCH = 16


class Crops(NamedTuple):
    """N objects cut out by their boxes. pixels (N, 3, SIDE, SIDE) float32 [0, 1]; masks (N, SIDE, SIDE) float32."""

    pixels: Tensor
    masks: Tensor


class Scores(NamedTuple):
    """On the test images: IoU with the truth of each mask, (N,), for either kind of labels."""

    coarse: np.ndarray[tuple[int], np.dtype[np.float64]]
    refined: np.ndarray[tuple[int], np.dtype[np.float64]]


def main(
    output: Annotated[str, typer.Argument(help="What `relabel run --output` named.")],
    truth: Annotated[str, typer.Option(help="COCO JSON of the true masks.")],
    split: Annotated[str | None, typer.Option(help="JSON with image lists A (train) and B (test).")] = None,
    images: Annotated[str | None, typer.Option(help="Where the photographs are now.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    seed: int = 0,
) -> None:
    """Train on coarse and on refined labels; report both on true masks."""
    result = open_result(output)
    truths = read_truth(truth)
    train, test = halves(truths) if split is None else tuple(set(read_image_list(f"{split}:{key}")) for key in "AB")
    scores = compare(result, [one for one in truths if one.image_name in test], train, images, epochs, seed)
    names = [one.image_name for one in truths if one.image_name in test]
    gain = ImageBootstrap(np.unique(names, return_inverse=True)[1]).mean(scores.refined - scores.coarse)
    low, high = gain.interval()
    typer.echo(f"mIoU on {len(names)} true masks of images that training did not see, {epochs} epochs, seed {seed}")
    typer.echo(f"  trained on coarse labels   {scores.coarse.mean():.3f}")
    typer.echo(f"  trained on refined labels  {scores.refined.mean():.3f}")
    typer.echo(f"  difference {gain.value:+.3f}, 95 % interval by image {low:+.3f} to {high:+.3f}")


def halves(truths: list[Truth]) -> tuple[set[str], set[str]]:
    """Image names, by the parity of their hashes."""
    names = {one.image_name for one in truths}
    first = {name for name in names if hashlib.sha256(name.encode()).digest()[0] % 2}
    return first, names - first


def compare(
    result: Result, test: list[Truth], train: set[str], images_root: str | None, epochs: int, seed: int
) -> Scores:
    """Train twice, test twice. Raises RefusedError when there is nothing to train or to test on."""
    if not test:
        raise RefusedError("the truth has no mask on a test image")
    held_out = test_crops(test, Photos.of(result, images_root))
    found = []
    for label in ("coarse_rle", "mask_rle"):
        where = pc.field("image_uri").isin(sorted(train))
        feed = MaskDataset(result.store.uri, where, label=label, transforms=crop, images_root=images_root)
        parts = [feed[number][0] for number in range(len(feed))]  # crops are small: one pass, then they stay in memory
        seen = Crops(torch.cat([part.pixels for part in parts]), torch.cat([part.masks for part in parts]))
        found.append(test_iou(fit(seen, epochs, seed), held_out))
    return Scores(*found)


def crop(image: tv_tensors.Image, target: Target) -> tuple[Crops, Target]:
    """A transform of the feed: every object of the image, cut out by its box with a margin, SIDE x SIDE."""
    cut = [cut_out(image, mask[None], box) for mask, box in zip(target["masks"], target["boxes"], strict=True)]
    return Crops(torch.stack([c[0] for c in cut]), torch.stack([c[1] for c in cut])), target


def cut_out(image: Tensor, mask: Tensor, box_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """(3, H, W) uint8, (1, H, W) -> (3, SIDE, SIDE) and (SIDE, SIDE) float32; outside the image black and unset."""
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    across, down = (x2 - x1) * MARGIN, (y2 - y1) * MARGIN
    top, left = int(y1 - down), int(x1 - across)
    size = max(1, int(y2 - y1 + 2 * down)), max(1, int(x2 - x1 + 2 * across))
    window = (top, left, *size, [SIDE, SIDE])
    pixels = v2.functional.resized_crop(image.as_subclass(Tensor).float() / 255, *window, antialias=True)
    nearest = v2.InterpolationMode.NEAREST
    return pixels, v2.functional.resized_crop(mask.as_subclass(Tensor).float(), *window, interpolation=nearest)[0]


def test_crops(truths: list[Truth], photos: Photos) -> Crops:
    """The true masks, cut out by their own boxes."""
    cut = []
    for one in truths:
        height, width = one.mask["size"]
        image = torch.from_numpy(photos.read(one.image_name, (height, width)).transpose(2, 0, 1).copy())
        x, y, box_width, box_height = masks.bbox_xywh(one.mask)
        box = torch.tensor([x, y, x + box_width, y + box_height])
        cut.append(cut_out(image, torch.from_numpy(masks.decode(one.mask))[None], box))
    return Crops(torch.stack([c[0] for c in cut]), torch.stack([c[1] for c in cut]))


def fit(seen: Crops, epochs: int, seed: int) -> nn.Module:
    """A fresh network after `epochs` passes; every random choice comes from `seed`."""
    torch.manual_seed(seed)
    network = SmallUNet()
    steps = epochs * -(-len(seen.pixels) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(seen.pixels)).split(BATCH):
            pixels, wanted = augment(seen.pixels[rows], seen.masks[rows])
            logits = network(pixels)[:, 0]
            likely = logits.sigmoid()
            overlap = 1 - (2 * (likely * wanted).sum() + 1) / (likely.sum() + wanted.sum() + 1)
            loss = functional.binary_cross_entropy_with_logits(logits, wanted) + overlap
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def augment(pixels: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror half of the batch, change the light of each crop a little."""
    mirrored = torch.rand(len(pixels)) < 0.5
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    wanted = torch.where(mirrored[:, None, None], wanted.flip(-1), wanted)
    light = 1 + 0.2 * torch.randn(len(pixels), 1, 1, 1)
    return pixels * light + 0.05 * torch.randn(len(pixels), 3, 1, 1), wanted


@torch.no_grad()
def test_iou(network: nn.Module, held_out: Crops) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(N,) IoU of prediction and truth inside each crop."""
    found = torch.cat([network(part)[:, 0] > 0 for part in held_out.pixels.split(64)])
    true = held_out.masks > 0
    union = (found | true).sum((1, 2)).clamp(min=1)
    return ((found & true).sum((1, 2)) / union).double().numpy()


class SmallUNet(nn.Module):
    """(N, 3, SIDE, SIDE) in [0, 1] -> (N, 1, SIDE, SIDE) logits; half a million weights."""

    WIDTHS = (16, 32, 64, 96)

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            block(given, width) for given, width in zip((3, *self.WIDTHS), self.WIDTHS, strict=False)
        )
        self.up = nn.ModuleList(
            block(below + width, width) for below, width in zip(self.WIDTHS[:0:-1], self.WIDTHS[-2::-1], strict=True)
        )
        self.out = nn.Conv2d(self.WIDTHS[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        features = (pixels - 0.45) / 0.25
        passed: list[Tensor] = []
        for number, down in enumerate(self.down):
            features = down(functional.max_pool2d(features, 2) if number else features)
            passed.append(features)
        for up, beside in zip(self.up, passed[-2::-1], strict=True):
            grown = functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = up(torch.cat([grown, beside], dim=1))
        return self.out(features)


def block(given: int, width: int) -> nn.Module:
    """Two 3 x 3 convolutions."""
    layers: list[nn.Module] = []
    for channels in (given, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU()]
    return nn.Sequential(*layers)


if __name__ == "__main__":
    typer.run(main)
