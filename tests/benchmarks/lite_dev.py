"""What `lite_quality.py` measures on: photographs with true and coarse masks, and damage that training never saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.binary import Mask, Rle, decode, iou
from pipeline.masks.frames import Frame, resize_to_input, tight_box_xyxy
from pipeline.masks.prompts import build_prompts, gaussian_logits
from pipeline.models import MaskModel, PromptBatch

Image = npt.NDArray[np.uint8]
DEV_KINDS = ("superpixel", "morph", "poly", "lowres", "patches")
GAUSSIAN_FORM, GAMMA, STRENGTH = "code", 4.0, 15.0
CROP_MARGIN = 0.4  # of the box's side, on each side, in the second pass
MIN_GRABCUT_IOU = 0.4  # below this GrabCut found something else, and nothing is left to refine


@dataclass(frozen=True)
class Photo:
    """One photograph (H, W, 3) uint8 RGB; `truth` and each kind of `coarse` hold its masks in the same order."""

    name: str
    source: str
    image: Image
    ids: tuple[int, ...]
    truth: tuple[Mask, ...]
    coarse: dict[str, tuple[Mask, ...]]


def load_dev(folder: Path, every: int = 1) -> list[Photo]:
    """Every n-th photograph of `folder` (gt.json, coarse_<kind>.json, images/)."""
    truth = json.loads((folder / "gt.json").read_text())
    coarse = {kind: _by_id(json.loads((folder / f"coarse_{kind}.json").read_text())) for kind in DEV_KINDS}
    photos = []
    for entry in truth["images"][::every]:
        annotations = [a for a in truth["annotations"] if a["image_id"] == entry["id"]]
        ids = tuple(a["id"] for a in annotations)
        image = cv2.cvtColor(cv2.imread(str(folder / "images" / entry["file_name"])), cv2.COLOR_BGR2RGB)
        photos.append(
            Photo(
                entry["file_name"],
                entry["source"],
                image,
                ids,
                tuple(decode(a["segmentation"]) for a in annotations),
                {kind: tuple(decode(masks[i]) for i in ids) for kind, masks in coarse.items()},
            )
        )
    return [photo for photo in photos if photo.ids]


def _by_id(annotations: list[dict[str, object]] | dict[str, object]) -> dict[int, Rle]:
    rows = annotations["annotations"] if isinstance(annotations, dict) else annotations
    return {row["id"]: row["segmentation"] for row in rows}


def shifted(image: Image, truth: Mask, seed: int) -> Mask | None:
    """The true mask moved by 6 to 14 % of its size in a random direction."""
    rng = np.random.default_rng([seed, 7])
    length, angle = np.sqrt(truth.sum()) * rng.uniform(0.06, 0.14), rng.uniform(0, 2 * np.pi)
    move = np.array([[1, 0, round(length * np.cos(angle))], [0, 1, round(length * np.sin(angle))]], np.float32)
    moved = cv2.warpAffine(truth, move, truth.shape[::-1], flags=cv2.INTER_NEAREST)
    return moved if moved.any() else None


def grabcut(image: Image, truth: Mask, seed: int) -> Mask | None:
    """GrabCut's answer to the true mask's box, grown by 5 %; None where it found nothing like the object."""
    x1, y1, x2, y2 = _grow(truth, 0.05)
    left, top, right, bottom = _grow(truth, 0.4)
    window = np.ascontiguousarray(image[top:bottom, left:right, ::-1])
    labels = np.zeros(window.shape[:2], np.uint8)
    rectangle = (x1 - left, y1 - top, max(1, x2 - x1), max(1, y2 - y1))
    if rectangle[2] >= window.shape[1] and rectangle[3] >= window.shape[0]:
        return None  # no background to learn from
    cv2.setRNGSeed(seed)
    cv2.grabCut(window, labels, rectangle, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_RECT)
    found = np.zeros_like(truth)
    found[top:bottom, left:right] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return found if found.any() and iou(found, truth) >= MIN_GRABCUT_IOU else None


UNSEEN: dict[str, Callable[[Image, Mask, int], Mask | None]] = {"shift": shifted, "grabcut": grabcut}


def refine(
    model: MaskModel, image: Image, masks: list[Mask], seen: Image | None = None
) -> tuple[list[Mask], list[float]]:
    """One plain pass over the masks of one image: refined masks and predicted IoU. `seen` replaces the photograph."""
    frame = Frame((image.shape[0], image.shape[1]), model.input_side)
    embedding = model.encode([resize_to_input(image if seen is None else seen, model.input_side)])
    return decode_masks(model, embedding, frame, prompt_batch(model, frame, masks))


def refine_crop(model: MaskModel, image: Image, mask: Mask) -> tuple[Mask, float]:
    """One more pass on a crop around a mask; what lies outside the crop stays."""
    left, top, right, bottom = _grow(mask, CROP_MARGIN)
    window = np.ascontiguousarray(image[top:bottom, left:right])
    answers, scores = refine(model, window, [np.ascontiguousarray(mask[top:bottom, left:right])])
    whole = mask.copy()
    whole[top:bottom, left:right] = answers[0]
    return whole, scores[0]


def from_boxes(model: MaskModel, image: Image, masks: list[Mask]) -> tuple[list[Mask], list[float]]:
    """What the model answers to the masks' tight boxes alone."""
    frame = Frame((image.shape[0], image.shape[1]), model.input_side)
    embedding = model.encode([resize_to_input(image, model.input_side)])
    boxes = np.stack([frame.box_to_prompt(tight_box_xyxy(mask)) for mask in masks])
    batch = PromptBatch(np.zeros(len(masks), np.int64), None, None, boxes, None, None)
    return decode_masks(model, embedding, frame, batch)


def prompt_batch(model: MaskModel, frame: Frame, masks: list[Mask]) -> PromptBatch:
    """Points, box, Gaussian and coarse mask of every mask of one image."""
    prompts = [build_prompts(mask, GAUSSIAN_FORM, GAMMA) for mask in masks]
    fields = [frame.field_to_mask(prompt.gaussian, model.mask_side) for prompt in prompts]
    return PromptBatch(
        np.zeros(len(masks), np.int64),
        np.stack([frame.points_to_prompt(prompt.points.points_xy) for prompt in prompts]),
        np.stack([prompt.points.labels for prompt in prompts]),
        np.stack([frame.box_to_prompt(prompt.box_xyxy) for prompt in prompts]),
        np.stack([gaussian_logits(field, STRENGTH) for field in fields]),
        np.stack([frame.field_to_mask(mask, model.mask_side) for mask in masks]),
    )


def decode_masks(
    model: MaskModel, embedding: object, frame: Frame, batch: PromptBatch
) -> tuple[list[Mask], list[float]]:
    """The candidate that the model prefers for every prompt, in image pixels, and its predicted IoU."""
    answer = model.predict(embedding, batch)
    best = answer.predicted_iou.argmax(axis=1)
    masks = [(frame.logits_to_image(answer.logits[i, c]) > 0).astype(np.uint8) for i, c in enumerate(best)]
    return masks, [float(answer.predicted_iou[i, c]) for i, c in enumerate(best)]


def _grow(mask: Mask, margin: float) -> tuple[int, int, int, int]:
    """The mask's box grown by a share of its sides (at least 8 px), inside the image; maxima exclusive."""
    box = tight_box_xyxy(mask)
    if box is None:
        raise ValueError("an empty mask has no box")
    x1, y1, x2, y2 = box
    grow_x, grow_y = max(8, int((x2 - x1 + 1) * margin)), max(8, int((y2 - y1 + 1) * margin))
    height, width = mask.shape
    return max(0, x1 - grow_x), max(0, y1 - grow_y), min(width, x2 + 1 + grow_x), min(height, y2 + 1 + grow_y)
