"""Are refined labels worth it? Trains the same small segmenter on coarse and on refined labels, asks the truth.

    python -m jobs.examples.train_segmenter OUTPUT --truth gt.json --split split.json

OUTPUT is what `relabel run` wrote. On the images of list A of the split, a small head on the frozen features of the
embedded model's image encoder learns to cut out the object in a window, once from the masks that came in and once from
those to train on: same start, same windows (around the box of the mask that came in, for either), same batches, same
steps. On the images of list B both cut out the objects in such windows, and are compared with the true masks, which are
joined by annotation id. Without a split, halves of the images by a hash of their names.

Needs neither a GPU nor a download; a few hundred masks take minutes on two cores.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.dataset import MaskDataset, Result, open_result
from pipeline.dataset.feed import Target
from pipeline.dataset.samples import Photos
from pipeline.errors import RefusedError
from pipeline.evaluation.bootstrap import ImageBootstrap
from pipeline.evaluation.inputs import read_image_list, read_truth
from pipeline.evaluation.pairing import Truth
from pipeline.masks import binary
from pipeline.models.lite.model import LiteModel

MARGIN = 0.25  # of a box's sides, around it
SEEN_SIDE = 512  # pixels of a window as the encoder sees it
SIDE = 128  # of a label in its window, and of a prediction
BATCH = 16


class Window(NamedTuple):
    """A part of an image, in pixels, as torchvision's crops take it."""

    top: int
    left: int
    height: int
    width: int


class Windows(NamedTuple):
    """By mask_id, and by the id that the mask's annotation has."""

    by_mask: dict[str, Window]
    by_annotation: dict[str, Window]


class Features(NamedTuple):
    """Of N windows: coarse (N, 128, 32, 32) and fine (N, 48, 64, 64), float16."""

    coarse: Tensor
    fine: Tensor


class HeldOut(NamedTuple):
    """An object to cut out: features of its window, and the whole image's truth (H, W)."""

    image_name: str
    features: Features
    window: Window
    truth: binary.Mask


class Scores(NamedTuple):
    """On the test images: IoU with the truth of each mask, (N,), for either kind of labels; the masks' images."""

    images: list[str]
    coarse: np.ndarray[tuple[int], np.dtype[np.float64]]
    refined: np.ndarray[tuple[int], np.dtype[np.float64]]


def main(
    output: Annotated[str, typer.Argument(help="What `relabel run --output` named.")],
    truth: Annotated[str, typer.Option(help="COCO JSON of the true masks.")],
    split: Annotated[str | None, typer.Option(help="JSON with image lists A (train) and B (test).")] = None,
    images: Annotated[str | None, typer.Option(help="Where the images are now.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 15,
    seed: int = 0,
) -> None:
    """Train on coarse and on refined labels; report both on true masks."""
    result = open_result(output)
    truths = read_truth(truth)
    train, test = halves(truths) if split is None else tuple(set(read_image_list(f"{split}:{key}")) for key in "AB")
    scores = compare(result, [one for one in truths if one.image_name in test], train, images, epochs, seed)
    gain = ImageBootstrap(np.unique(scores.images, return_inverse=True)[1]).mean(scores.refined - scores.coarse)
    low, high = gain.interval()
    count = len(scores.images)
    typer.echo(f"mIoU on {count} true masks of images that training did not see, {epochs} epochs, seed {seed}")
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
    windows, encoder = read_windows(result), LiteModel()
    held_out = held_out_objects(test, windows, Photos.of(result, images_root), encoder)

    def feed(label: str, transforms: See | CutLabels) -> MaskDataset:
        where = pc.field("image_uri").isin(sorted(train))
        return MaskDataset(result.store.uri, where, label=label, transforms=transforms, images_root=images_root)

    seen = gather(feed("coarse_rle", See(windows.by_mask, encoder)), "looking at the images")
    found = []
    for label in ("coarse_rle", "mask_rle"):
        labels = gather(feed(label, CutLabels(windows.by_mask)), f"reading {label}")
        ids = [mask_id for mask_id in seen if mask_id in labels]
        features = Features(*(torch.stack(parts) for parts in zip(*(seen[mask_id] for mask_id in ids), strict=True)))
        network = fit(features, torch.stack([labels[mask_id] for mask_id in ids]), epochs, seed)
        found.append(test_iou(network, held_out))
    return Scores([one.image_name for one in held_out], *found)


def read_windows(result: Result) -> Windows:
    """Where to look for the object of every mask."""
    usable = (pc.field("decision") != "failed") & pc.field("coarse_rle").is_valid()
    by_mask, by_annotation = {}, {}
    for row in result.masks(usable, ["mask_id", "source_mask_id", "coarse_rle"]).to_pylist():
        if binary.area(row["coarse_rle"]):
            window = window_around(binary.bbox_xywh(row["coarse_rle"]))
            by_mask[row["mask_id"]] = by_annotation[row["source_mask_id"]] = window
    return Windows(by_mask, by_annotation)


def window_around(box_xywh: list[float]) -> Window:
    """The box and a margin, in whole pixels; it may leave the image."""
    x, y, width, height = box_xywh
    across, down = width * MARGIN, height * MARGIN
    return Window(int(y - down), int(x - across), max(1, int(height + 2 * down)), max(1, int(width + 2 * across)))


class See:
    """A transform of the feed: what the encoder makes of the window of every mask, by mask_id."""

    def __init__(self, windows: dict[str, Window], encoder: LiteModel) -> None:
        self._windows, self._encoder = windows, encoder

    def __call__(self, image: tv_tensors.Image, target: Target) -> tuple[dict[str, Features], Target]:
        ids = target["mask_ids"]
        return {mask_id: look(self._encoder, image, self._windows[mask_id]) for mask_id in ids}, target


class CutLabels:
    """A transform of the feed: every mask in its window, (SIDE, SIDE) float32 in [0, 1], by mask_id."""

    def __init__(self, windows: dict[str, Window]) -> None:
        self._windows = windows

    def __call__(self, _image: tv_tensors.Image, target: Target) -> tuple[dict[str, Tensor], Target]:
        ids = target["mask_ids"]
        plain = [mask.as_subclass(Tensor)[None].float() for mask in target["masks"]]
        return {i: cut_out(mask, self._windows[i], SIDE)[0] for i, mask in zip(ids, plain, strict=True)}, target


def gather(feed: MaskDataset, doing: str) -> dict[str, Any]:
    """One pass over the feed: windows are small, so what its transform makes of them stays in memory."""
    found: dict[str, Any] = {}
    with typer.progressbar(range(len(feed)), label=doing, file=sys.stderr) as numbers:
        for number in numbers:
            found.update(feed[number][0])
    return found


def look(encoder: LiteModel, image: Tensor, window: Window) -> Features:
    """(3, H, W) uint8 -> the features of a window, without the leading N."""
    pixels = cut_out(image.as_subclass(Tensor).float(), window, SEEN_SIDE).round().byte()
    found = encoder.encode([pixels.permute(1, 2, 0).contiguous().numpy()]).features
    return Features(found.embedding[0].half(), found.skip8[0].half())


def cut_out(values: Tensor, window: Window, side: int) -> Tensor:
    """(C, H, W) float32 -> (C, side, side); zero outside the image."""
    return v2.functional.resized_crop(values, *window, [side, side], antialias=True)


def held_out_objects(truths: list[Truth], windows: Windows, photos: Photos, encoder: LiteModel) -> list[HeldOut]:
    """The objects to cut out. Raises RefusedError when no mask of the result has the id of a true mask."""
    found = []
    for one in truths:
        window = windows.by_annotation.get(one.annotation_id)
        if window is not None:
            height, width = one.mask["size"]
            image = torch.from_numpy(photos.read(one.image_name, (height, width)).transpose(2, 0, 1).copy())
            found.append(HeldOut(one.image_name, look(encoder, image, window), window, binary.decode(one.mask)))
    if not found:
        raise RefusedError("no true mask of a test image has the id of a mask in the result")
    return found


def fit(features: Features, labels: Tensor, epochs: int, seed: int) -> Head:
    """A fresh head after `epochs` passes; every random choice comes from `seed`."""
    torch.manual_seed(seed)
    network = Head()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    network.train()
    with typer.progressbar(length=steps, label="training", file=sys.stderr) as progress:
        for _ in range(epochs):
            for rows in torch.randperm(len(labels)).split(BATCH):
                logits, wanted = network(Features(features.coarse[rows], features.fine[rows])), labels[rows]
                likely = logits.sigmoid()
                overlap = 1 - (2 * (likely * wanted).sum() + 1) / (likely.sum() + wanted.sum() + 1)
                loss = functional.binary_cross_entropy_with_logits(logits, wanted) + overlap
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.update(1)
    return network.eval()


@torch.no_grad()
def test_iou(network: Head, held_out: list[HeldOut]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(N,) IoU of prediction and truth on the whole image."""
    found = []
    for one in held_out:
        logits = network(Features(one.features.coarse[None], one.features.fine[None]))
        found.append(binary.iou(paste(logits, one.window, one.truth.shape), one.truth))
    return np.array(found)


def paste(logits: Tensor, window: Window, size_hw: tuple[int, ...]) -> binary.Mask:
    """(1, SIDE, SIDE) -> (H, W): the prediction in its window, nothing elsewhere."""
    (height, width), (top, left, tall, wide) = size_hw, window
    found = v2.functional.resize(logits, [tall, wide], antialias=True)[0].numpy() > 0
    y, x = max(0, top), max(0, left)
    inside = found[y - top : height - top, x - left : width - left]
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return mask


class Head(nn.Module):
    """Features -> (N, SIDE, SIDE) logits; 34,000 weights. It knows where in the window it is."""

    WIDTH = 32

    def __init__(self) -> None:
        super().__init__()
        width = self.WIDTH
        self.coarse, self.fine, self.place = (nn.Conv2d(given, width, 1) for given in (128, 48, 2))
        self.norm = nn.GroupNorm(8, width)
        layers: list[nn.Module] = []
        for dilation in (1, 2, 4):
            layers += [
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(8, width),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(nn.ReLU(), *layers, nn.Conv2d(width, 1, 1))
        steps = torch.linspace(-1, 1, SEEN_SIDE // 8)
        self.register_buffer("places", torch.stack(torch.meshgrid(steps, steps, indexing="ij"))[None])

    def forward(self, features: Features) -> Tensor:
        grown = functional.interpolate(self.coarse(features.coarse.float()), scale_factor=2, mode="bilinear")
        inner = self.norm(grown + self.fine(features.fine.float()) + self.place(self.places))
        return functional.interpolate(self.layers(inner), size=(SIDE, SIDE), mode="bilinear")[:, 0]


if __name__ == "__main__":
    typer.run(main)
