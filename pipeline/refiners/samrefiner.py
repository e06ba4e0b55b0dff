"""SAMRefiner (ICLR 2025): prompts from the coarse mask, the most confident candidate, again from that.

Written from the paper; see `prompts.py` for the prompts and their two forms. The image is encoded once for all of its
masks. They are decoded `decode_batch` at a time, over the images of an encoder batch; what is together depends on the
chunk alone, never on timing.

Past the paper: answers to boxes that are pushed outward may vote, several models may look, each at further views, the
mirror image and a crop (`masks/views.py`), and colors may vote (`colour.py`); the mask is where their mean says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.errors import JobError
from pipeline.masks import spans
from pipeline.masks.binary import Rle
from pipeline.masks.canvas import JUDGED_CELLS, Patch, canvas_of, field_to_mask, patch_of_logits, patch_of_spans
from pipeline.masks.frames import FloatArray, Frame, resized_hw
from pipeline.masks.prompts import build_prompts, gaussian_logits, grow_box, similar_pixels, upsampled_norm
from pipeline.masks.views import View, crop_pixels, mirrored, object_window, pushed_boxes, voted
from pipeline.models import Asked, MaskModel, Pending, PromptBatch, frame_for, input_for
from pipeline.refiners.background import Overlapped
from pipeline.refiners.pixels import seen_by
from pipeline.refiners.types import RefinedMask, RefineImage
from pipeline.refiners.verdict import NOT_FINITE, contrast_margin_px, scored, scored_later
from schemas.config import Method

STRENGTH_AFTER_GROWTH = 1.0  # of the mask prompt, where the box grew this round: the mask is too small to be trusted


@dataclass(frozen=True)
class _Instance:
    """One mask on its way: `image` is its place in the encoder batch."""

    image: int
    frame: Frame
    coarse: Patch
    current: Patch
    previous: Patch
    logits: FloatArray
    predicted_iou: float
    rounds: int = 0
    trial_iou: float | None = None

    @property
    def settled(self) -> bool:
        """Whether another round would change nothing: there is nothing to be prompted from, or the last one did not."""
        now, before = self.current, self.previous
        same = now.canvas == before.canvas and np.array_equal(now.mask, before.mask)
        return not now.mask.size or (self.rounds > 0 and same)


def refine(model: MaskModel, images: Sequence[RefineImage], method: Method) -> list[list[RefinedMask]]:
    """Refined masks of each image, in the order of its coarse masks."""
    results: list[list[Future[RefinedMask]]] = [[] for _ in images]
    with Overlapped(2 * method.decode_batch) as overlapped:
        for start in range(0, len(images), method.encode_batch):
            images_of_batch = images[start : start + method.encode_batch]
            if not any(image.coarse for image in images_of_batch):
                continue
            batches = [_Batch(*seen, method) for seen in seen_by(model, images_of_batch, method)]
            for prompted in _decoder_batches(images_of_batch, method.decode_batch):
                if _leaves_it_to(model, method):
                    instances = _instances(batches[0], prompted)
                    pending = _looked_at(batches[0], instances)
                    for place, instance in enumerate(instances):
                        image = images_of_batch[instance.image]
                        result = overlapped.submit(scored_later, image, instance.coarse, pending, place, method)
                        results[start + instance.image].append(result)
                    continue
                for (instance, views), *others in zip(*(_viewed(batch, prompted) for batch in batches), strict=True):
                    image = images_of_batch[instance.image]._replace(frame=instance.frame)  # the first model's
                    views += [view for _, of_other in others for view in of_other]
                    previous = instance.previous if instance.rounds > 1 else None
                    result = overlapped.submit(scored, image, instance.coarse, previous, views, method)
                    results[start + instance.image].append(result)
    return [[result.result() for result in of_image] for of_image in results]


class _Batch:
    """The images of one encoder pass: their embedding, and what the elastic box needs of it, once for each image."""

    def __init__(self, model: MaskModel, images: Sequence[RefineImage], method: Method) -> None:
        self.model, self.images, self.method = model, images, method
        self.embedding = model.encode([input_for(model, image.pixels, image.frame.size_hw) for image in images])
        self._similarity: dict[int, tuple[FloatArray, FloatArray]] = {}

    @cached_property
    def mirror_image(self) -> _Batch:
        """The same images, left and right exchanged."""
        images = [image._replace(pixels=mirrored(image.pixels), coarse=[]) for image in self.images]
        return _Batch(self.model, images, self.method)

    def grown(self, instance: _Instance) -> tuple[FloatArray, bool]:
        """The instance's box, grown where the image around it resembles its mask, and whether it grew."""
        height, width = size_hw = instance.frame.size_hw
        canvas = canvas_of((0, 0, width, height), size_hw, JUDGED_CELLS)
        if instance.image not in self._similarity:
            features = self.model.features(self.embedding, instance.image)
            self._similarity[instance.image] = features, upsampled_norm(features, (canvas.height, canvas.width))
        features, norm = self._similarity[instance.image]
        places = (np.floor(np.arange(n) * (extent / n)) for n, extent in zip(features.shape[1:], size_hw, strict=True))
        similar = similar_pixels(features, norm, instance.current.at(*places), self.model.similarity_cut)
        return grow_box(instance.current.box_xyxy, similar, self.method.elastic_threshold, size_hw, canvas.cell)


def _decoder_batches(images: Sequence[RefineImage], size: int) -> Iterator[list[tuple[int, Rle]]]:
    flat = [(index, rle) for index, image in enumerate(images) for rle in image.coarse]
    yield from (flat[start : start + size] for start in range(0, len(flat), size))


def _leaves_it_to(model: MaskModel, method: Method) -> bool:
    """Whether a model refines by itself. What is made of its answers (boxes that grow, votes, crops) is made here."""
    return model.looks and not (method.elastic_threshold or method.crop_ratio or method.box_trials)


def _looked_at(batch: _Batch, instances: list[_Instance]) -> Pending:
    method, images = batch.method, [batch.images[instance.image] for instance in instances]
    there = [replace(i, current=i.coarse.mirrored(i.frame.size_hw[1])) for i in instances]
    asked = Asked(
        prompts=_prompt_batch(batch, instances),
        mirrored=_prompt_batch(batch, there) if method.mirror else None,
        frames=[instance.frame for instance in instances],
        coarse=[instance.coarse for instance in instances],
        margin_px=[contrast_margin_px(image) for image in images],
        iterations=method.iterations,
        points=method.use_points,
        box=method.use_box,
        mask=method.use_mask,
        form=method.gaussian_form,
        gamma=method.gaussian_gamma,
        strength=method.gaussian_strength,
        judged=not method.colour_vote,
    )
    return batch.model.look(batch.embedding, batch.mirror_image.embedding if method.mirror else None, asked)


def _instances(batch: _Batch, prompted: list[tuple[int, Rle]]) -> list[_Instance]:
    nothing = np.zeros((0, 0), np.float32)
    coarse = [patch_of_spans(spans.of(rle), batch.images[image].frame.size_hw) for image, rle in prompted]
    return [
        _Instance(image, batch.images[image].frame, mask, mask, mask, nothing, 0.0)
        for (image, _), mask in zip(prompted, coarse, strict=True)
    ]


def _viewed(batch: _Batch, prompted: list[tuple[int, Rle]]) -> list[tuple[_Instance, list[View]]]:
    """Each mask after its rounds, and a model's views of it."""
    instances = _refine_together(batch, _instances(batch, prompted))
    if batch.method.box_trials:
        instances = _voted(batch, instances)
    return list(zip(instances, _further_views(batch, instances), strict=True))


def _refine_together(batch: _Batch, instances: list[_Instance]) -> list[_Instance]:
    for _ in range(batch.method.iterations):
        active = [index for index, instance in enumerate(instances) if not instance.settled]
        if not active:
            break
        for index, stepped in zip(active, _iterate(batch, [instances[index] for index in active]), strict=True):
            instances[index] = stepped
    # A settled mask is as all rounds would have left it; what became empty keeps the round in which it did.
    return [replace(i, rounds=batch.method.iterations) if i.current.mask.size else i for i in instances]


def _iterate(batch: _Batch, instances: list[_Instance]) -> list[_Instance]:
    """One round of prompt, decode, select."""
    logits, predicted_iou = _answers(batch, _prompt_batch(batch, instances))
    return [
        replace(
            instance,
            previous=instance.current,
            current=patch_of_logits(logits[row], instance.frame),
            logits=logits[row],
            predicted_iou=float(predicted_iou[row]),
            rounds=instance.rounds + 1,
        )
        for row, instance in enumerate(instances)
    ]


def _answers(batch: _Batch, prompts: PromptBatch) -> tuple[FloatArray, FloatArray]:
    """The most confident candidates of N prompts: logits (N, mask_side, mask_side) and predicted IoU (N,).

    Raises JobError when the model is broken: that is no fault of an image.
    """
    candidates = batch.model.predict(batch.embedding, prompts)
    if not (np.isfinite(candidates.predicted_iou).all() and np.isfinite(candidates.logits).all()):
        raise JobError(NOT_FINITE)
    rows, best = np.arange(len(prompts)), candidates.predicted_iou.argmax(axis=1)
    return candidates.logits[rows, best], candidates.predicted_iou[rows, best]


def _voted(batch: _Batch, instances: list[_Instance]) -> list[_Instance]:
    """Each instance as it and its trials vote: answers to the last round's prompts, but with the box pushed outward."""
    trials = batch.method.box_trials
    prompts = _prompt_batch(batch, [replace(instance, current=instance.previous) for instance in instances])
    together = max(1, batch.method.decode_batch // trials)
    voters: list[tuple[FloatArray, FloatArray]] = []
    for start in range(0, len(instances), together):
        some = instances[start : start + together]
        boxes = [i.frame.box_to_prompt(pushed_boxes(i.previous.box_xyxy, i.frame.size_hw, trials)) for i in some]
        asked = prompts.take(np.repeat(np.arange(start, start + len(some)), trials))
        logits, predicted_iou = _answers(batch, replace(asked, boxes_xyxy=np.concatenate(boxes)))
        voters += zip(np.split(logits, len(some)), np.split(predicted_iou, len(some)), strict=True)
    return [_elected(instance, *answers) for instance, answers in zip(instances, voters, strict=True)]


def _elected(instance: _Instance, logits: FloatArray, predicted_iou: FloatArray) -> _Instance:
    """An instance after the vote: logits (T, mask_side, mask_side) and predicted IoU (T,) of its trials."""
    median, trial_iou = voted(np.stack([instance.logits, *logits]))
    return replace(
        instance,
        current=patch_of_logits(median, instance.frame),
        logits=median,
        predicted_iou=float(np.mean([instance.predicted_iou, *predicted_iou])),
        trial_iou=trial_iou,
    )


def _prompt_batch(batch: _Batch, instances: list[_Instance]) -> PromptBatch:
    method = batch.method
    points, labels, boxes, logits, coarse = [], [], [], [], []
    for instance in instances:
        current, frame = instance.current, instance.frame
        prompts = build_prompts(current.mask, method.gaussian_form, method.gaussian_gamma)
        box, grew = np.array(current.box_xyxy, np.float32), False
        if method.elastic_threshold > 0:
            box, grew = batch.grown(instance)
        points.append(frame.points_to_prompt(current.canvas.to_image(prompts.points.points_xy)))
        labels.append(prompts.points.labels)
        boxes.append(frame.box_to_prompt(box))
        if method.use_mask:
            gaussian = field_to_mask(prompts.gaussian, current.canvas, frame, batch.model.mask_side)
            logits.append(gaussian_logits(gaussian, STRENGTH_AFTER_GROWTH if grew else method.gaussian_strength))
            if batch.model.reads_coarse:
                coarse.append(current.in_square(frame, batch.model.mask_side))
    return PromptBatch(
        image_index=np.array([instance.image for instance in instances], np.int64),
        points_xy=np.stack(points) if method.use_points else None,
        point_labels=np.stack(labels) if method.use_points else None,
        boxes_xyxy=np.stack(boxes) if method.use_box else None,
        mask_logits=np.stack(logits) if method.use_mask else None,
        coarse=np.stack(coarse) if coarse else None,
    )


def _further_views(batch: _Batch, instances: list[_Instance]) -> list[list[View]]:
    """The views of each instance, the whole image first.

    The mirror image, encoded once for all of its masks, is prompted like the last round; the crop, a picture of its
    own, from that round's answer.
    """
    views = []
    for instance in instances:
        height, width = instance.frame.size_hw
        whole = View((0, 0, width, height), instance.frame, False, instance.logits, instance.predicted_iou)
        views.append([whole._replace(trial_iou=instance.trial_iou)])
    if batch.method.mirror:
        for own, answer in zip(views, _mirrored(batch, instances), strict=True):
            own.append(own[0]._replace(mirrored=True, logits=answer.logits, predicted_iou=answer.predicted_iou))
    if batch.method.crop_ratio:
        for index, view in _closer(batch, instances):
            views[index].append(view)
    return views


def _mirrored(batch: _Batch, instances: list[_Instance]) -> list[_Instance]:
    there = [replace(i, current=i.previous.mirrored(i.frame.size_hw[1])) for i in instances]
    return _iterate(batch.mirror_image, there)


def _closer(batch: _Batch, instances: list[_Instance]) -> Iterator[tuple[int, View]]:
    """Views of crops, each with its instance's index, for the instances that a crop shows larger."""
    ratio, below = batch.method.crop_ratio, batch.method.crop_below
    boxes = [(index, i.current.box_xyxy, i.frame.size_hw) for index, i in enumerate(instances) if i.current.mask.size]
    windows = [(index, object_window(box, size_hw, ratio, below)) for index, box, size_hw in boxes]
    wanted = [(index, window) for index, window in windows if window]
    for start in range(0, len(wanted), batch.method.encode_batch):
        pictures, there = [], []
        for place, (index, window) in enumerate(wanted[start : start + batch.method.encode_batch]):
            instance = instances[index]
            pixels, size_hw = batch.images[instance.image].pixels, instance.frame.size_hw
            needed = resized_hw(size_hw, batch.method.crop_sides * batch.model.input_side, at_most=True)
            if pixels.shape[:2] != needed:
                raise ValueError(f"crops need an image of {needed}, not {pixels.shape[:2]}")
            x1, y1, x2, y2 = window
            frame = frame_for(batch.model, (y2 - y1, x2 - x1))
            pictures.append(RefineImage(crop_pixels(pixels, window, size_hw, frame.input_hw), frame, []))
            current = instance.current.moved(x1, y1)
            there.append(replace(instance, image=place, frame=frame, current=current))
        answers = _iterate(_Batch(batch.model, pictures, batch.method), there)
        for (index, window), answer in zip(wanted[start:], answers, strict=False):
            yield index, View(window, answer.frame, False, answer.logits, answer.predicted_iou)
