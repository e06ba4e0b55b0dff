"""What becomes of a mask's views: the refined mask, made and scored on one canvas, enlarged and coded once.

Every step works on the canvas around whatever is compared (`masks/canvas.py`); of the photograph's size are the box of
the mask that comes out and, on their own grid, the pixels that contrasts and colours are read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.errors import JobError
from pipeline.masks import binary
from pipeline.masks import scores as mask_scores
from pipeline.masks.binary import Mask
from pipeline.masks.canvas import Canvas, Patch, encode, patch_of_logits
from pipeline.masks.frames import FloatArray
from pipeline.masks.views import Scores, View, evidence, fuse, judged_on, seen_window
from pipeline.models import Pending
from pipeline.refiners import semantic
from pipeline.refiners.colour import MARGIN_RATIO, SMALLEST_MARGIN_PX, colour_cut, vote
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

NOT_FINITE = "the model returned values that are not finite; check its weights and device"
CONTRAST_MARGIN_PX = 2 * mask_scores.CONTRAST_RADIUS_PX + 2  # of the picture, around a mask whose contrast is taken


class _Judged(NamedTuple):
    """Mean logits (h, w) on a canvas, above 0 within the refined mask, and what images and logits say of it."""

    field: FloatArray
    scores: Scores


def scored(
    image: RefineImage,
    coarse: Patch,
    previous: Patch | None,
    views: Sequence[View],
    method: Method,
    told: Scores | None = None,
) -> RefinedMask:
    """The refined mask and all of its scores. previous: of the round before the last, None where there was only one.

    told: scores that are known; of the others only those are computed that need no image.
    """
    canvas = canvas_for(image, coarse, previous, views, method)
    given = coarse.on(canvas)
    if told is None:
        field, told = _judge(image, given, canvas, views, method)
    else:
        field, _ = fuse(views, canvas)
    before = None if previous is None else previous.on(canvas)
    scores = mask_scores.region_scores(given, (field > 0).astype(np.uint8), before) | told
    rle = encode(field, canvas, image.frame.size_hw)
    return RefinedMask(rle, scores, views[0].logits if semantic.wanted(method) else None)


def scored_later(image: RefineImage, coarse: Patch, pending: Pending, place: int, method: Method) -> RefinedMask:
    """As `scored`, of the mask at `place` of what a model was asked to look at. Waits for its answers.

    Raises JobError when the model is broken: that is no fault of an image.
    """
    found = pending.found()
    if not found.sound:
        raise JobError(NOT_FINITE)
    height, width = image.frame.size_hw
    views = [
        View((0, 0, width, height), image.frame, bool(turned), logits[place], float(predicted_iou[place]))
        for turned, (logits, predicted_iou) in enumerate(zip(found.logits, found.predicted_iou, strict=True))
    ]
    told = None if found.scores is None else found.scores[place]
    previous = None
    if told is None and found.previous is not None and found.counted is not None and found.counted[place] > 1:
        previous = patch_of_logits(found.previous[place], image.frame)
    return scored(image, coarse, previous, views, method, told)


def canvas_for(
    image: RefineImage, coarse: Patch, previous: Patch | None, views: Sequence[View], method: Method
) -> Canvas:
    """Around all that the coarse mask, the one before and the views' answers can be."""
    picture_px = image.pixels.shape[0] / image.frame.size_hw[0]  # to each of the image's
    seen = [seen_window(view, -method.colour_vote) for view in views]
    patches = [patch.canvas.window for patch in (coarse, previous) if patch is not None and patch.mask.size]
    windows = [*patches, *(window for window in seen if window is not None)]
    if method.colour_vote:
        return judged_on(windows, image.frame.size_hw, MARGIN_RATIO, int(SMALLEST_MARGIN_PX / picture_px) + 1)
    return judged_on(windows, image.frame.size_hw, 0.0, contrast_margin_px(image))


def contrast_margin_px(image: RefineImage) -> int:
    """Of the image, around a mask whose contrast is taken."""
    return int(CONTRAST_MARGIN_PX * image.frame.size_hw[0] / image.pixels.shape[0]) + 1


def _judge(image: RefineImage, coarse: Mask, canvas: Canvas, views: Sequence[View], method: Method) -> _Judged:
    """coarse: (h, w) on the canvas."""
    fused, own = fuse(views, canvas)
    size_hw = image.frame.size_hw
    coloured = colour_cut(image.pixels, size_hw, fused, coarse, canvas) if method.colour_vote else None
    if coloured is not None:
        scale = canvas.cell * image.frame.input_hw[0] / size_hw[0]
        fused += np.float32(method.colour_vote) * vote(fused, coarse, coloured, scale)
    refined = (fused > 0).astype(np.uint8)
    scores = evidence(views, own, fused, canvas, coarse, refined)
    scores |= mask_scores.contrasts_on(image.pixels, size_hw, canvas, coarse, refined)
    if coloured is not None:
        scores |= {"colour_iou": binary.iou(refined, coloured), "coarse_colour_iou": binary.iou(coarse, coloured)}
    return _Judged(fused, scores)
