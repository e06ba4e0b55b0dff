"""SAMRefiner (ICLR 2025): prompts from the coarse mask, the most confident candidate, again from that.

Written from the paper's description; see `prompts.py` for the prompts and their two forms. The image is encoded once
for all of its masks. Masks go through the decoder together, in decoder batches of `decode_batch` prompts, over the
images of an encoder batch; a decoder batch's composition depends on the chunk alone, never on timing.

Past the paper: the model may see further views, the mirror image and a crop around the object (`masks/views.py`), and
the image's colors may vote (`colour.py`); the refined mask is where the mean of all answers says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt

from pipeline.errors import JobError
from pipeline.masks import binary
from pipeline.masks import scores as mask_scores
from pipeline.masks.binary import Mask, Rle
from pipeline.masks.frames import FloatArray, Frame
from pipeline.masks.prompts import Prompts, build_prompts, gaussian_logits, grow_box, similar_pixels, upsampled_norm
from pipeline.masks.views import Judged, View, cut, evidence, fuse, mirrored, object_window
from pipeline.models import MaskModel, PromptBatch, frame_for, input_for
from pipeline.refiners import semantic
from pipeline.refiners.background import Overlapped
from pipeline.refiners.colour import colour_cut, vote
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

STRENGTH_AFTER_GROWTH = 1.0
"""Weight of the Gaussian mask of an instance whose box grew this iteration: the mask is too small to be trusted."""


@dataclass(frozen=True)
class _Instance:
    """One mask on its way: `image` is its place in the encoder batch."""

    image: int
    frame: Frame
    coarse: Mask
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
    with Overlapped(2 * method.decode_batch) as overlapped:
        for start in range(0, len(images), method.encode_batch):
            images_of_batch = images[start : start + method.encode_batch]
            if not any(image.coarse for image in images_of_batch):
                continue
            batch = _Batch(model, images_of_batch, method)
            for prompted in _decoder_batches(images_of_batch, method.decode_batch):
                instances = _refine_together(batch, prompted)
                views = _further_views(batch, instances)
                judged = _judged_on_device(batch, instances, views)
                for instance, seen, verdict in zip(instances, views, judged, strict=True):
                    image = images_of_batch[instance.image]
                    previous = instance.previous if instance.rounds > 1 else None
                    result = overlapped.submit(_scored, image, instance.coarse, previous, seen, verdict, method)
                    scored[start + instance.image].append(result)
    return [[result.result() for result in results] for results in scored]


class _Batch:
    """The images of one encoder pass: their embedding, and what the elastic box needs of it, once for each image."""

    def __init__(self, model: MaskModel, images: Sequence[RefineImage], method: Method) -> None:
        self.model, self.images, self.method = model, images, method
        self.embedding = model.encode([input_for(model, image.pixels) for image in images])
        self._similarity: dict[int, tuple[FloatArray, FloatArray]] = {}

    @cached_property
    def mirror_image(self) -> _Batch:
        """The same images, left and right exchanged."""
        images = [image._replace(pixels=mirrored(image.pixels), coarse=[]) for image in self.images]
        return _Batch(self.model, images, self.method)

    def similar_pixels(self, instance: _Instance) -> npt.NDArray[np.bool_]:
        """Where the image resembles the instance's mask, (H, W) bool."""
        if instance.image not in self._similarity:
            features = self.model.features(self.embedding, instance.image)
            self._similarity[instance.image] = features, upsampled_norm(features, instance.frame.size_hw)
        return similar_pixels(*self._similarity[instance.image], instance.current, self.model.similarity_cut)


def _decoder_batches(images: Sequence[RefineImage], size: int) -> Iterator[list[tuple[int, Rle]]]:
    flat = [(index, rle) for index, image in enumerate(images) for rle in image.coarse]
    for start in range(0, len(flat), size):
        yield flat[start : start + size]


def _refine_together(batch: _Batch, prompted: list[tuple[int, Rle]]) -> list[_Instance]:
    nothing = np.zeros((0, 0), np.float32)
    coarse = [binary.decode(rle) for _, rle in prompted]
    instances = [
        _Instance(image, batch.images[image].frame, mask, mask, mask, nothing, 0.0)
        for (image, _), mask in zip(prompted, coarse, strict=True)
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
    rows = np.arange(len(instances))
    best = candidates.predicted_iou.argmax(axis=1)
    logits, predicted_iou = candidates.logits[rows, best], candidates.predicted_iou[rows, best]
    current = _to_masks(batch.model, logits, [instance.frame for instance in instances])
    return [
        replace(
            instance,
            previous=instance.current,
            current=current[row],
            logits=logits[row],
            predicted_iou=float(predicted_iou[row]),
            rounds=instance.rounds + 1,
        )
        for row, instance in enumerate(instances)
    ]


def _to_masks(model: MaskModel, logits: FloatArray, frames: Sequence[Frame]) -> list[Mask]:
    """(N, s, s) logits, each in its frame -> masks of the frames' images."""
    if model.on_device is None:
        pairs = zip(frames, logits, strict=True)
        return [(frame.logits_to_image(of_one) > 0).astype(np.uint8) for frame, of_one in pairs]
    found: list[Mask] = []
    for frame, rows in groupby(range(len(frames)), key=lambda row: frames[row]):
        found += model.on_device.masks(logits[list(rows)], frame)
    return found


def _prompt_batch(batch: _Batch, instances: list[_Instance]) -> PromptBatch:
    method = batch.method
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
            gaussian, mask = _to_mask_frame(batch.model, prompts, instance)
            logits.append(gaussian_logits(gaussian, strength))
            coarse.append(mask)
    return PromptBatch(
        image_index=np.array([instance.image for instance in instances], np.int64),
        points_xy=np.stack(points) if method.use_points else None,
        point_labels=np.stack(labels) if method.use_points else None,
        boxes_xyxy=np.stack(boxes) if method.use_box else None,
        mask_logits=np.stack(logits) if method.use_mask else None,
        coarse=np.stack(coarse) if method.use_mask else None,
    )


def _to_mask_frame(model: MaskModel, prompts: Prompts, instance: _Instance) -> tuple[FloatArray, FloatArray]:
    """The Gaussian and the mask itself, (mask_side, mask_side) both."""
    fields, frame = (prompts.gaussian, instance.current), instance.frame
    if model.on_device is None:
        gaussian, mask = (frame.field_to_mask(field, model.mask_side) for field in fields)
    else:
        x1, y1, x2, y2 = (int(side) for side in prompts.box_xyxy)
        both = np.stack([np.asarray(field[y1 : y2 + 1, x1 : x2 + 1], np.float32) for field in fields])
        gaussian, mask = model.on_device.fields_to_mask(both, (x1, y1, x2, y2), frame, model.mask_side)
    return gaussian, mask


def _further_views(batch: _Batch, instances: list[_Instance]) -> list[list[View]]:
    """The views of each instance, the whole image first.

    The mirror image, encoded once for all of its masks, is prompted like the last round; the crop, a picture of its
    own, from that round's answer.
    """
    views = []
    for instance in instances:
        height, width = instance.frame.size_hw
        views.append([View((0, 0, width, height), instance.frame, False, instance.logits, instance.predicted_iou)])
    if batch.method.mirror:
        for own, answer in zip(views, _mirrored(batch, instances), strict=True):
            own.append(own[0]._replace(mirrored=True, logits=answer.logits, predicted_iou=answer.predicted_iou))
    if batch.method.crop_ratio:
        for index, view in _closer(batch, instances):
            views[index].append(view)
    return views


def _mirrored(batch: _Batch, instances: list[_Instance]) -> list[_Instance]:
    there = [replace(instance, current=mirrored(instance.previous)) for instance in instances]
    return _iterate(batch.mirror_image, there)


def _closer(batch: _Batch, instances: list[_Instance]) -> Iterator[tuple[int, View]]:
    """Views of crops, each with its instance's index, for the instances that a crop shows larger."""
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
            frame = frame_for(batch.model, (mask.shape[0], mask.shape[1]))
            pictures.append(RefineImage(cut(pixels, window), frame, []))
            there.append(replace(instance, image=place, frame=frame, current=mask))
        answers = _iterate(_Batch(batch.model, pictures, batch.method), there)
        for (index, window), answer in zip(wanted[start:], answers, strict=False):
            yield index, View(window, answer.frame, False, answer.logits, answer.predicted_iou)


def _judged_on_device(batch: _Batch, instances: list[_Instance], views: list[list[View]]) -> Sequence[Judged | None]:
    """What the device says of the views, image by image; None where it is left to `_judge`."""
    device = batch.model.on_device
    if device is None or batch.method.colour_vote:
        return [None] * len(instances)
    found: list[Judged | None] = []
    for image, rows in groupby(range(len(instances)), key=lambda row: instances[row].image):
        mine = list(rows)
        coarse = [instances[row].coarse for row in mine]
        judged = device.judge(batch.images[image].pixels, coarse, [views[row] for row in mine])
        found += judged or [None] * len(mine)
    return found


def _judge(image: RefineImage, coarse: Mask, views: list[View], method: Method) -> Judged:
    """The fused mask, and what views and image say of it."""
    fused, own = fuse(views, (coarse.shape[0], coarse.shape[1]))
    coloured = colour_cut(image.pixels, fused, coarse) if method.colour_vote else None
    if coloured is not None:
        fused += np.float32(method.colour_vote) * vote(fused, coarse, coloured, image.frame.input_scale)
    refined = (fused > 0).astype(np.uint8)
    scores = evidence(views, own, fused, coarse, refined) | mask_scores.contrasts(image.pixels, coarse, refined)
    if coloured is not None:
        scores |= {"colour_iou": binary.iou(refined, coloured), "coarse_colour_iou": binary.iou(coarse, coloured)}
    return Judged(refined, scores)


def _scored(
    image: RefineImage, coarse: Mask, previous: Mask | None, views: list[View], judged: Judged | None, method: Method
) -> RefinedMask:
    """The refined mask and all of its scores. previous: of the round before the last, None where there was only one."""
    refined, scores = judged or _judge(image, coarse, views, method)
    scores = scores | mask_scores.region_scores(coarse, refined, previous)
    return RefinedMask(binary.encode(refined), scores, views[0].logits if semantic.wanted(method) else None)
