"""Training examples: crops of photographs, accurate masks on them, coarse masks made from those, prompts.

Example number `step` is a pure function of (seed, step, side), so a resumed run sees what an uninterrupted one would.
Images are decoded once and kept in memory; masks stay run-length encoded.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import RefusedError
from pipeline.masks.binary import Mask, Rle, decode
from pipeline.masks.frames import FloatArray, Frame, resize_to_input, tight_box_xyxy
from pipeline.masks.prompts import GaussianForm, build_prompts, gaussian_logits
from pipeline.models.lite.model import PIXEL_MEAN
from pipeline.models.lite.training.damage import Image
from pipeline.models.lite.training.image_cache import read_images
from pipeline.models.lite.training.real_damage import mixed_damage
from pipeline.words import plural

Part = Literal["fit", "iou", "val"]
IOU_PERCENT, VAL_PERCENT = 7, 8  # of the images: for the IoU head alone, and for validation
STRENGTHS = (1.0, 15.0, 30.0)
FORMS: tuple[GaussianForm, ...] = ("paper", "code")
GAMMA = 4.0
MIN_AREA_SHARE = 0.001  # of the crop, for a mask to be worth a prompt there
OBJECT_CROP_SHARE = 0.4
VIEW_SHARES = (0.5, 1.2)  # of the photograph, for other crops; above 1 all of it, as in use


@dataclass(frozen=True)
class Photo:
    """One photograph (H, W, 3) uint8 RGB and its accurate masks."""

    name: str
    source: str
    image: Image
    masks: tuple[Rle, ...]
    coarse: tuple[tuple[Rle, ...], ...] = ()  # of each mask, made beforehand; none where a folder has none
    weight: float = 1.0  # how much more often than others of a source of its size it is drawn


class PromptArrays(NamedTuple):
    """Prompts in the prompt and mask frames of their crops: of one mask, or of N with a leading axis."""

    points_xy: FloatArray  # (2, 2)
    point_labels: npt.NDArray[np.int64]  # (2,)
    box_xyxy: FloatArray  # (4,)
    mask_logits: FloatArray  # (S/2, S/2)
    coarse: FloatArray  # (S/2, S/2) in [0, 1]


class Example(NamedTuple):
    """B crops with M prompts each, N = B * M, as numpy arrays."""

    images: npt.NDArray[np.uint8]  # (B, S, S, 3), padded with PIXEL_MEAN
    size_hw: npt.NDArray[np.int64]  # (B, 2), pixels that the crop fills
    image_index: npt.NDArray[np.int64]  # (N,)
    prompts: PromptArrays  # of N coarse masks
    truth: FloatArray  # (N, S/2, S/2) in [0, 1], area-averaged
    truth_boxes_xyxy: FloatArray  # (N, 4) prompt frame: the true mask's box, drawn by a slightly unsteady hand


def part_of(name: str) -> Part:
    """Which split an image belongs to: by the hash of its name, so that it never changes."""
    percent = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "iou" if percent < IOU_PERCENT else "val" if percent < IOU_PERCENT + VAL_PERCENT else "fit"


def load_all(
    folders: Sequence[Path], parts: set[Part], limit: int | None = None, cache: Path | None = None
) -> list[Photo]:
    """Photographs of several folders; `limit` holds for each. Ids of images and masks are each folder's own."""
    return [photo for folder in folders for photo in load_photos(folder, parts, limit, cache)]


def load_photos(folder: Path, parts: set[Part], limit: int | None = None, cache: Path | None = None) -> list[Photo]:
    """Photographs of `folder` that belong to `parts` and have masks, in the order of its gt.json or gt.json.gz.

    An image may name its `part`, else its name decides, and a `weight`, else 1. An annotation may have `coarse`:
    compressed RLE counts of coarse masks of it, made beforehand.
    """
    truth = json.loads(_truth_text(folder))
    masks: dict[int, list[Rle]] = {}
    coarse: dict[int, list[tuple[Rle, ...]]] = {}
    for annotation in truth["annotations"]:
        mask: Rle = annotation["segmentation"]
        masks.setdefault(annotation["image_id"], []).append(mask)
        made = tuple(Rle(size=mask["size"], counts=counts) for counts in annotation.get("coarse", ()))
        coarse.setdefault(annotation["image_id"], []).append(made)
    entries = [entry for entry in truth["images"] if entry["id"] in masks and _part(entry) in parts][:limit]
    images = read_images([folder / "images" / entry["file_name"] for entry in entries], cache)
    return [
        Photo(
            entry["file_name"],
            entry["source"],
            image,
            tuple(masks[entry["id"]]),
            tuple(coarse[entry["id"]]),
            entry.get("weight", 1.0),
        )
        for entry, image in zip(entries, images, strict=True)
    ]


def check_parts(folders: Sequence[Path]) -> None:
    """Raise RefusedError where none of the images with masks falls into one of the parts: each is needed."""
    truths = [json.loads(_truth_text(folder)) for folder in folders]
    with_masks = [{annotation["image_id"] for annotation in truth["annotations"]} for truth in truths]
    entries = [e for truth, ids in zip(truths, with_masks, strict=True) for e in truth["images"] if e["id"] in ids]
    if absent := [part for part in get_args(Part) if part not in {_part(entry) for entry in entries}]:
        raise RefusedError(
            f"none of {plural(len(entries), 'image')} with masks falls into {' or '.join(map(repr, absent))}: give "
            "more images (the hash of an image's name decides), or say `part` (fit, val, iou) with each in gt.json"
        )


def _part(entry: Mapping[str, Any]) -> Part:
    return entry.get("part") or part_of(entry["file_name"])


def has_truth(folder: Path) -> bool:
    """Whether the folder is one of training data."""
    return (folder / "gt.json").exists() or (folder / "gt.json.gz").exists()


def _truth_text(folder: Path) -> bytes:
    plain = folder / "gt.json"
    return plain.read_bytes() if plain.exists() else gzip.decompress((folder / "gt.json.gz").read_bytes())


class Sampler:
    """Draws examples; sources by the square root of their number of images."""

    def __init__(self, photos: list[Photo], images: int, masks: int, seed: int) -> None:
        self.photos, self.images, self.masks, self.seed = photos, images, masks, seed
        self.chances = photo_chances(photos)

    def example(self, step: int, side: int) -> Example:
        """Example number `step` at image side `side`; fewer images at larger sides, so that steps cost alike."""
        rng = np.random.default_rng([self.seed, step, side])
        crops = [self._crop(rng, side) for _ in range(max(1, self.images * 256 // side))]
        prompts: list[PromptArrays] = []
        truths: list[FloatArray] = []
        boxes: list[FloatArray] = []
        for image, masks in crops:
            frame = Frame((image.shape[0], image.shape[1]), side)
            for index in rng.permutation(np.resize(rng.permutation(len(masks)), self.masks)):
                coarse = mixed_damage(image, masks[index], rng)
                form, strength = FORMS[rng.integers(len(FORMS))], STRENGTHS[rng.integers(len(STRENGTHS))]
                prompts.append(prompt_arrays(coarse, frame, form, strength))
                truths.append(frame.field_to_mask(masks[index], side // 2))
                boxes.append(frame.box_to_prompt(unsteady_box(masks[index], rng)))
        return Example(
            np.stack([pad(distort(image, rng), side) for image, _ in crops]),
            np.array([image.shape[:2] for image, _ in crops]),
            np.repeat(np.arange(len(crops)), self.masks),
            stack(prompts),
            np.stack(truths),
            np.stack(boxes),
        )

    def _crop(self, rng: np.random.Generator, side: int) -> tuple[Image, list[Mask]]:
        """A crop with long side `side` and the masks that matter in it."""
        while True:
            photo = self.photos[rng.choice(len(self.photos), p=self.chances)]
            chosen = decode(photo.masks[rng.integers(len(photo.masks))])
            window = crop_window(chosen, rng)
            if window is None:
                continue
            flip = -1 if rng.random() < 0.5 else 1
            image = cut_out(photo.image, window, side)[:, ::flip]
            masks = [cut_out(decode(rle), window, side)[:, ::flip] for rle in photo.masks]
            useful = [np.ascontiguousarray(m) for m in masks if m.mean() > MIN_AREA_SHARE and m.mean() < 0.95]
            if useful:
                return np.ascontiguousarray(image), useful


def photo_chances(photos: Sequence[Photo]) -> npt.NDArray[np.float64]:
    """(N,) chance of each photograph: its weight, and its source's by the square root of how many it has."""
    counts = Counter(photo.source for photo in photos)
    weights = np.array([photo.weight * counts[photo.source] ** -0.5 for photo in photos])
    return np.asarray(weights / weights.sum(), np.float64)


def crop_window(mask: Mask, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    """A window (x1, y1, x2, y2; maxima exclusive) that shows the mask: centred on the object, or a larger view."""
    box = tight_box_xyxy(mask)
    if box is None:
        return None
    x1, y1, x2, y2 = box
    height, width = mask.shape
    if rng.random() < OBJECT_CROP_SHARE:
        factor_x = factor_y = rng.uniform(1.2, 2.5)
        window_w, window_h = (x2 - x1 + 1) * factor_x, (y2 - y1 + 1) * factor_y
        if rng.random() < 0.5:
            window_w = window_h = max(window_w, window_h)
        jitter = 0.15
    else:
        share = rng.uniform(*VIEW_SHARES)
        window_w, window_h, jitter = width * share, height * share, 0.5
    window_w, window_h = max(window_w, 64.0), max(window_h, 64.0)
    centre_x = (x1 + x2 + 1) / 2 + rng.uniform(-jitter, jitter) * max(0.0, abs(window_w - (x2 - x1)))
    centre_y = (y1 + y2 + 1) / 2 + rng.uniform(-jitter, jitter) * max(0.0, abs(window_h - (y2 - y1)))
    left, top = max(0, int(centre_x - window_w / 2)), max(0, int(centre_y - window_h / 2))
    right, bottom = min(width, int(centre_x + window_w / 2)), min(height, int(centre_y + window_h / 2))
    return (left, top, right, bottom) if right - left >= 32 and bottom - top >= 32 else None


def cut_out(pixels: npt.NDArray[np.uint8], window: tuple[int, int, int, int], side: int) -> npt.NDArray[np.uint8]:
    """Cut (H, W) or (H, W, 3) to the window and resize its long side to `side`; masks stay binary."""
    x1, y1, x2, y2 = window
    cut = np.ascontiguousarray(pixels[y1:y2, x1:x2])
    if pixels.ndim == 3:
        return resize_to_input(cut, side)
    height, width = Frame((y2 - y1, x2 - x1), side).input_hw
    soft = cv2.resize(cut * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
    return (soft > 127).astype(np.uint8)


def prompt_arrays(coarse: Mask, frame: Frame, form: GaussianForm, strength: float) -> PromptArrays:
    """All prompts of one non-empty mask, in the frame of a model whose masks have half the image's side."""
    prompts, mask_side = build_prompts(coarse, form, GAMMA), frame.input_side // 2
    return PromptArrays(
        frame.points_to_prompt(prompts.points.points_xy),
        prompts.points.labels,
        frame.box_to_prompt(prompts.box_xyxy),
        gaussian_logits(frame.field_to_mask(prompts.gaussian, mask_side), strength),
        frame.field_to_mask(coarse, mask_side),
    )


def unsteady_box(mask: Mask, rng: np.random.Generator) -> FloatArray:
    """(4,) tight box xyxy in pixels, half of the time with each side off by a few percent."""
    box = np.array(tight_box_xyxy(mask), np.float32)
    spread = rng.choice([0.0, 0.04]) * np.tile(box[2:] - box[:2], 2)
    return np.asarray(box + rng.normal(0, 1, 4) * spread, np.float32)


def stack(prompts: list[PromptArrays]) -> PromptArrays:
    """Of one mask each -> of all of them."""
    return PromptArrays(*(np.stack(values) for values in zip(*prompts, strict=True)))


def distort(image: Image, rng: np.random.Generator) -> Image:
    """Brightness, contrast, colour, now and then grey, blur or noise. (H, W, 3) uint8 -> same."""
    pixels: npt.NDArray[Any] = image.astype(np.float32)
    pixels = (pixels - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-25, 25) + rng.uniform(-12, 12, 3)
    if rng.random() < 0.1:
        pixels[:] = pixels.mean(axis=2, keepdims=True)
    if rng.random() < 0.15:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.15:
        pixels += rng.normal(0, rng.uniform(2, 10), pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


def pad(image: Image, side: int) -> Image:
    """(h, w, 3) -> (side, side, 3), at the bottom and right the value that normalises to 0."""
    square = np.full((side, side, 3), PIXEL_MEAN, np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    return square
