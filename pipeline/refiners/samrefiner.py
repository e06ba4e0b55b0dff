"""SAMRefiner (ICLR 2025): prompts from the coarse mask, the most confident candidate, again from that.

Written from the paper's description; see `prompts.py` for the prompts and their two forms. The image is encoded once
for all of its masks. Masks go through the decoder together, in slabs of `decode_batch` prompts over the images of an
encoder batch; a slab's composition depends on the chunk alone, never on timing.

Past the paper: the model may look again, at the mirror image and at a crop around the object (`looks.py`), and the
photograph's colours may vote (`colour.py`); the refined mask is where the mean of all answers says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline import masks, quality
from pipeline.errors import JobError
from pipeline.geometry import FloatArray, Frame, resize_to_input
from pipeline.masks import Mask, Rle
from pipeline.models import MaskModel, PromptBatch
from pipeline.prompts import build_prompts, gaussian_logits, grow_box, similar_pixels, upsampled_norm
from pipeline.refiners import semantic
from pipeline.refiners.behind import Behind
from pipeline.refiners.colour import colour_cut, vote
from pipeline.refiners.looks import Look, cut, evidence, fuse, mirrored, object_window
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
    rounds: int = 0

    @property
    def settled(self) -> bool:
        """Whether another round would change nothing: there is nothing to be prompted from, or the last one did not."""
        return not self.current.any() or (self.rounds > 0 and np.array_equal(self.current, self.previous))


def refine(model: MaskModel, images: Sequence[RefineImage], method: Method) -> list[list[RefinedMask]]:
    """Refined masks of each image, in the order of its coarse masks."""
    scored: list[list[Future[RefinedMask]]] = [[] for _ in images]
    with Behind(2 * method.decode_batch) as behind:
        for start in range(0, len(images), method.encode_batch):
            images_of_batch = images[start : start + method.encode_batch]
            if not any(image.coarse for image in images_of_batch):
                continue
            batch = _Batch(model, images_of_batch, method)
            for slab in _slabs(images_of_batch, method.decode_batch):
                instances = _refine_slab(batch, slab)
                looks = _look_again(batch, instances)
                for (image, coarse), instance, seen in zip(slab, instances, looks, strict=True):
                    result = behind.submit(_scored, images_of_batch[image], coarse, instance, seen, method)
                    scored[start + image].append(result)
    return [[result.result() for result in results] for results in scored]


class _Batch:
    """The images of one encoder pass: their embedding, and what the elastic box needs of it, once for each image."""

    def __init__(self, model: MaskModel, images: Sequence[RefineImage], method: Method) -> None:
        self.model, self.images, self.method = model, images, method
        self.embedding = model.encode([resize_to_input(image.pixels, model.input_side) for image in images])
        self._similarity: dict[int, tuple[FloatArray, FloatArray]] = {}

    @cached_property
    def mirror_image(self) -> _Batch:
        """The same images, left and right exchanged."""
        images = [image._replace(pixels=mirrored(image.pixels), coarse=[]) for image in self.images]
        return _Batch(self.model, images, self.method)

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
        active = [index for index, instance in enumerate(instances) if not instance.settled]
        if not active:
            break
        for index, stepped in zip(active, _iterate(batch, [instances[index] for index in active]), strict=True):
            instances[index] = stepped
    return [_as_if_iterated(instance, batch.method.iterations) for instance in instances]


def _as_if_iterated(instance: _Instance, iterations: int) -> _Instance:
    """A settled mask as all rounds would have left it; what became empty keeps the round in which it did."""
    return replace(instance, rounds=iterations) if instance.current.any() else instance


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
                rounds=instance.rounds + 1,
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


def _look_again(batch: _Batch, instances: list[_Instance]) -> list[list[Look]]:
    """The looks at each instance, that at the whole image first.

    The mirror image, encoded once for all of its masks, is prompted like the last round; the crop, a picture of its
    own, from that round's answer.
    """
    looks = []
    for instance in instances:
        height, width = instance.frame.size_hw
        looks.append([Look((0, 0, width, height), instance.frame, False, instance.logits, instance.predicted_iou)])
    if batch.method.mirror:
        for own, answer in zip(looks, _mirrored(batch, instances), strict=True):
            own.append(own[0]._replace(mirrored=True, logits=answer.logits, predicted_iou=answer.predicted_iou))
    if batch.method.crop_ratio:
        for index, look in _closer(batch, instances):
            looks[index].append(look)
    return looks


def _mirrored(batch: _Batch, instances: list[_Instance]) -> list[_Instance]:
    there = [replace(instance, current=mirrored(instance.previous)) for instance in instances]
    return _iterate(batch.mirror_image, there)


def _closer(batch: _Batch, instances: list[_Instance]) -> Iterator[tuple[int, Look]]:
    """Looks at crops, each with its instance's index, for the instances that a crop shows larger."""
    ratio = batch.method.crop_ratio
    windows = [(index, object_window(instance.current, ratio)) for index, instance in enumerate(instances)]
    wanted = [(index, window) for index, window in windows if window]
    for start in range(0, len(wanted), batch.method.encode_batch):
        pictures, there = [], []
        for place, (index, window) in enumerate(wanted[start : start + batch.method.encode_batch]):
            instance = instances[index]
            pixels = batch.images[instance.image].pixels
            if pixels.shape[:2] != instance.frame.size_hw:
                raise ValueError(f"crops need an image of {instance.frame.size_hw}, not {pixels.shape[:2]}")
            mask = cut(instance.current, window)
            frame = Frame((mask.shape[0], mask.shape[1]), batch.model.input_side)
            pictures.append(RefineImage(cut(pixels, window), frame, []))
            there.append(replace(instance, image=place, frame=frame, current=mask))
        answers = _iterate(_Batch(batch.model, pictures, batch.method), there)
        for (index, window), answer in zip(wanted[start:], answers, strict=False):
            yield index, Look(window, answer.frame, False, answer.logits, answer.predicted_iou)


def _scored(image: RefineImage, coarse: Rle, instance: _Instance, looks: list[Look], method: Method) -> RefinedMask:
    """The fused mask and all of its scores."""
    mask = masks.decode(coarse)
    fused, own = fuse(looks, instance.frame.size_hw)
    coloured = colour_cut(image.pixels, fused, mask) if method.colour_vote else None
    if coloured is not None:
        scale = instance.frame.input_hw[0] / instance.frame.size_hw[0]
        fused += np.float32(method.colour_vote) * vote(fused, mask, coloured, scale)
    refined = (fused > 0).astype(np.uint8)
    previous = instance.previous if instance.rounds > 1 else None
    scores = quality.shape_scores(image.pixels, mask, refined, previous) | evidence(looks, own, fused, mask, refined)
    if coloured is not None:
        scores |= {"colour_iou": masks.iou(refined, coloured), "coarse_colour_iou": masks.iou(mask, coloured)}
    return RefinedMask(masks.encode(refined), scores, instance.logits if semantic.wanted(method) else None)
