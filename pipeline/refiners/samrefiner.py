"""SAMRefiner (ICLR 2025): prompts from the coarse mask, the most confident candidate, again from that.

Written from the paper's description; see `prompts.py` for the prompts and their two forms. The image is encoded once
for all of its masks. Masks go through the decoder together, in slabs of `decode_batch` prompts over the images of an
encoder batch; a slab's composition depends on the chunk alone, never on timing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline import masks, quality
from pipeline.errors import JobError
from pipeline.geometry import FloatArray, Frame
from pipeline.masks import Mask, Rle
from pipeline.models import MaskModel, PromptBatch
from pipeline.prompts import build_prompts, gaussian_logits, grow_box, similar_pixels, upsampled_norm
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

STRENGTH_AFTER_GROWTH = 1.0
"""Weight of the Gaussian mask of an instance whose box grew this iteration: the mask is too small to be trusted."""


@dataclass(frozen=True)
class _Instance:
    """One mask on its way: `image` is its place in the encoder batch."""

    image: int
    frame: Frame
    current: Mask
    previous: Mask
    logits: FloatArray
    predicted_iou: float


def refine(model: MaskModel, images: Sequence[RefineImage], method: Method) -> list[list[RefinedMask]]:
    """Refined masks of each image, in the order of its coarse masks."""
    refined: list[list[RefinedMask]] = [[] for _ in images]
    for start in range(0, len(images), method.encode_batch):
        images_of_batch = images[start : start + method.encode_batch]
        if not any(image.coarse for image in images_of_batch):
            continue
        batch = _Batch(model, images_of_batch, method)
        for slab in _slabs(images_of_batch, method.decode_batch):
            for (image, coarse), instance in zip(slab, _refine_slab(batch, slab), strict=True):
                refined[start + image].append(_scored(images_of_batch[image], coarse, instance))
    return refined


class _Batch:
    """The images of one encoder pass: their embedding, and what the elastic box needs of it, once for each image."""

    def __init__(self, model: MaskModel, images: Sequence[RefineImage], method: Method) -> None:
        self.model, self.images, self.method = model, images, method
        self.embedding = model.encode([image.pixels for image in images])
        self._similarity: dict[int, tuple[FloatArray, FloatArray]] = {}

    def similar_pixels(self, instance: _Instance) -> npt.NDArray[np.bool_]:
        """Where the image looks like the instance's mask, (H, W) bool."""
        if instance.image not in self._similarity:
            features = self.model.features(self.embedding, instance.image)
            self._similarity[instance.image] = features, upsampled_norm(features, instance.frame.size_hw)
        return similar_pixels(*self._similarity[instance.image], instance.current, self.model.similarity_cut)


def _slabs(images: Sequence[RefineImage], size: int) -> Iterator[list[tuple[int, Rle]]]:
    flat = [(index, rle) for index, image in enumerate(images) for rle in image.coarse]
    for start in range(0, len(flat), size):
        yield flat[start : start + size]


def _refine_slab(batch: _Batch, slab: list[tuple[int, Rle]]) -> list[_Instance]:
    nothing = np.zeros((0, 0), np.float32)
    coarse = [masks.decode(rle) for _, rle in slab]
    instances = [
        _Instance(image, batch.images[image].frame, mask, mask, nothing, 0.0)
        for (image, _), mask in zip(slab, coarse, strict=True)
    ]
    for _ in range(batch.method.iterations):
        # An instance that became empty has nothing to be prompted from; it stays as it is.
        active = [index for index, instance in enumerate(instances) if instance.current.any()]
        if not active:
            break
        for index, stepped in zip(active, _iterate(batch, [instances[index] for index in active]), strict=True):
            instances[index] = stepped
    return instances


def _iterate(batch: _Batch, instances: list[_Instance]) -> list[_Instance]:
    """One round of prompt, decode, select. Raises JobError when the model is broken: that is no fault of an image."""
    candidates = batch.model.predict(batch.embedding, _prompt_batch(batch, instances))
    if not (np.isfinite(candidates.predicted_iou).all() and np.isfinite(candidates.logits).all()):
        raise JobError(f"model {batch.model.name} returned values that are not finite; check its weights and device")
    stepped = []
    for row, instance in enumerate(instances):
        best = int(np.argmax(candidates.predicted_iou[row]))
        logits = candidates.logits[row, best]
        stepped.append(
            replace(
                instance,
                previous=instance.current,
                current=(instance.frame.logits_to_image(logits) > 0).astype(np.uint8),
                logits=logits,
                predicted_iou=float(candidates.predicted_iou[row, best]),
            )
        )
    return stepped


def _prompt_batch(batch: _Batch, instances: list[_Instance]) -> PromptBatch:
    method, side = batch.method, batch.model.mask_side
    points, labels, boxes, logits, coarse = [], [], [], [], []
    for instance in instances:
        prompts = build_prompts(instance.current, method.gaussian_form, method.gaussian_gamma)
        box, grew = prompts.box_xyxy, False
        if method.elastic_threshold > 0:
            box, grew = grow_box(box, batch.similar_pixels(instance), method.elastic_threshold)
        frame = instance.frame
        strength = STRENGTH_AFTER_GROWTH if grew else method.gaussian_strength
        points.append(frame.points_to_prompt(prompts.points.points_xy))
        labels.append(prompts.points.labels)
        boxes.append(frame.box_to_prompt(box))
        if method.use_mask:
            logits.append(gaussian_logits(frame.field_to_mask(prompts.gaussian, side), strength))
            coarse.append(frame.field_to_mask(instance.current, side))
    return PromptBatch(
        image_index=np.array([instance.image for instance in instances], np.int64),
        points_xy=np.stack(points) if method.use_points else None,
        point_labels=np.stack(labels) if method.use_points else None,
        boxes_xyxy=np.stack(boxes) if method.use_box else None,
        mask_logits=np.stack(logits) if method.use_mask else None,
        coarse=np.stack(coarse) if method.use_mask else None,
    )


def _scored(image: RefineImage, coarse: Rle, instance: _Instance) -> RefinedMask:
    scores = quality.score(
        pixels=image.pixels,
        coarse=masks.decode(coarse),
        refined=instance.current,
        previous=instance.previous,
        logits=instance.logits,
        predicted_iou=instance.predicted_iou,
    )
    return RefinedMask(masks.encode(instance.current), scores)
