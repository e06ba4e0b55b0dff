"""Categories that a method treats otherwise (`method.per_category`), and small regions removed by rule. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from pipeline.masks import binary
from pipeline.masks import scores as mask_scores
from pipeline.masks.binary import Mask, Rle
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

LARGE = 10
"""A mask of so many times `min_region_px` is large enough that a region of that size is none of its parts."""


def ways(method: Method, categories: Iterable[str]) -> list[tuple[Method, frozenset[str] | None]]:
    """Each method that the masks of a chunk are refined by, with the categories that it is for; None: all of them.

    The method itself comes first, then others in the order of their categories. Those that are kept as they came are in
    none. What they are depends on the categories that are there, and on nothing else.
    """
    if not method.per_category:
        return [(method, None)]
    plain = method.model_copy(update={"per_category": {}})
    found: dict[str, tuple[Method, list[str]]] = {}
    for category in sorted(set(categories)):
        recipe = method.per_category.get(category)
        if recipe is None or not recipe.keep_coarse:
            own = plain.model_copy(update=recipe.of_method() if recipe else {})
            found.setdefault(own.model_dump_json(), (own, []))[1].append(category)
    first = found.pop(plain.model_dump_json(), None)
    return [(own, frozenset(names)) for own, names in ([first] if first else []) + list(found.values())]


def without_specks(
    images: Sequence[RefineImage], refined: Sequence[Sequence[RefinedMask]], least_px: int
) -> list[list[RefinedMask]]:
    """Refined masks without their small islands and holes; scores are those of the mask that is left."""
    return [
        [_cleaned(image, coarse, result, least_px) for coarse, result in zip(image.coarse, results, strict=True)]
        for image, results in zip(images, refined, strict=True)
    ]


def _cleaned(image: RefineImage, coarse: Rle, result: RefinedMask, least_px: int) -> RefinedMask:
    mask = binary.decode(result.rle)
    cleaned = cleaned_mask(mask, least_px)
    if (cleaned == mask).all():
        return result
    scores = mask_scores.shape_scores(image.pixels, binary.decode(coarse), cleaned)
    del scores["iteration_iou"]  # of the model's rounds
    return result._replace(rle=binary.encode(cleaned), scores={**result.scores, **scores})


def cleaned_mask(mask: Mask, least_px: int) -> Mask:
    """(H, W) {0, 1} without islands (8-connected) and holes (4-connected) of fewer than `least_px` pixels.

    Masks of up to LARGE times as many pixels stay as they are, and so does the largest island of each.
    """
    if np.count_nonzero(mask) <= LARGE * least_px:
        return mask
    islands = _small(mask, least_px, connectivity=8)
    mask = np.where(islands, 0, mask).astype(np.uint8)
    background = np.pad(1 - mask, 1, constant_values=1)  # all that touches the border is one
    return np.where(_small(background, least_px, connectivity=4)[1:-1, 1:-1], 1, mask).astype(np.uint8)


def _small(mask: Mask, least_px: int, connectivity: int) -> Mask:
    """(H, W) {0, 1}: the components of fewer than `least_px` pixels, but for the largest of all."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask), connectivity=connectivity)
    areas = statistics[:, cv2.CC_STAT_AREA].copy()
    small = areas < least_px
    small[0] = False
    if len(areas) > 1:
        small[1 + int(areas[1:].argmax())] = False
    return np.asarray(small[labels], np.uint8)
