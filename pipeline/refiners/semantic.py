"""Semantic masks through any refiner: split into regions, refine each by itself, merge by highest logit.

With `split_regions` a mask is refined region by region (`masks/regions.py`) and becomes the union of what came back.
With `exclusive` the masks of one image do not overlap: a pixel that several claim goes to the one with the highest
logit, and a pixel that none claims is background. A class map asks for both.

Refiners without logits claim all pixels alike; there the first mask wins.

With `min_region_px` small islands and holes of whatever came back are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.masks import binary, regions
from pipeline.masks import scores as mask_scores
from pipeline.masks.binary import Mask, Rle
from pipeline.masks.frames import FloatArray, Frame
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

Refine = Callable[[Any, Sequence[RefineImage], Method], list[list[RefinedMask]]]

OF_REGIONS = (*mask_scores.OF_THE_MODEL, "iteration_iou")
"""Scores that cannot be taken from the merged mask; it gets the mean over its regions, weighted by their areas."""


def wanted(method: Method) -> bool:
    """Whether a method treats masks as parts of class maps."""
    return method.split_regions or method.exclusive


def refine(refiner: Refine, model: Any, images: Sequence[RefineImage], method: Method) -> list[list[RefinedMask]]:
    """Refined masks of each image, in the order of its coarse masks.

    Images go to the refiner `encode_batch` at a time, as it would take them itself, so that few logits are held.
    """
    refined = []
    for start in range(0, len(images), method.encode_batch):
        batch = images[start : start + method.encode_batch]
        parts = [[regions_of(rle) if method.split_regions else [rle] for rle in image.coarse] for image in batch]
        flat = [
            image._replace(coarse=[rle for of in whole for rle in of])
            for image, whole in zip(batch, parts, strict=True)
        ]
        for image, whole, results in zip(batch, parts, refiner(model, flat, method), strict=True):
            answers = iter(results)
            grouped = [[next(answers) for _ in of] for of in whole]
            refined.append(_merged(image, grouped, method.exclusive))
    return refined


def regions_of(rle: Rle) -> list[Rle]:
    """A mask's regions; none where it holds only specks."""
    labels = regions.split(binary.decode(rle))
    return [binary.encode(labels == number) for number in range(1, int(labels.max()) + 1)]


def _merged(image: RefineImage, grouped: list[list[RefinedMask]], exclusive: bool) -> list[RefinedMask]:
    """One result for each coarse mask of an image, from those of its regions."""
    if exclusive:
        owner = regions.highest(_claims(image.frame, grouped), image.frame.size_hw)
        unions = [(owner == index).astype(np.uint8) for index in range(len(grouped))]
    else:
        unions = [_union(results, image.frame.size_hw) for results in grouped]
    return [
        _result(image, coarse, refined, results)
        for coarse, refined, results in zip(image.coarse, unions, grouped, strict=True)
    ]


def _claims(frame: Frame, grouped: list[list[RefinedMask]]) -> Iterator[regions.Claim]:
    for index, results in enumerate(grouped):
        for result in results:
            yield index, binary.decode(result.rle), _strength(frame, result)


def _strength(frame: Frame, result: RefinedMask) -> FloatArray:
    if result.logits is None or not result.logits.size:
        return np.zeros(frame.size_hw, np.float32)
    return frame.logits_to_image(result.logits)


def _union(results: list[RefinedMask], size_hw: tuple[int, int]) -> Mask:
    union = np.zeros(size_hw, np.uint8)
    for result in results:
        union |= binary.decode(result.rle)
    return union


def _result(image: RefineImage, coarse: Rle, refined: Mask, results: list[RefinedMask]) -> RefinedMask:
    """A merged mask with its scores; empty where every region was a speck."""
    rle = binary.encode(refined)
    if len(results) == 1 and results[0].rle == rle:
        return results[0]._replace(logits=None)
    of_regions = _mean(results)
    scores = mask_scores.shape_scores(image.pixels, binary.decode(coarse), refined)
    return RefinedMask(rle, {**of_regions, **scores, **{name: of_regions.get(name, 0.0) for name in OF_REGIONS}})


def _mean(results: list[RefinedMask]) -> dict[str, float]:
    """Every score, averaged over regions by their refined areas."""
    if not results:
        return {}
    areas = np.array([binary.area(result.rle) for result in results], np.float64)
    weights = areas if areas.any() else np.ones(len(results))
    return {
        name: float(np.average([result.scores[name] for result in results], weights=weights))
        for name in results[0].scores
    }


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
    cleaned = regions.without_small(mask, least_px)
    if (cleaned == mask).all():
        return result
    scores = mask_scores.shape_scores(image.pixels, binary.decode(coarse), cleaned)
    del scores["iteration_iou"]  # of the model's rounds
    return result._replace(rle=binary.encode(cleaned), scores={**result.scores, **scores})
