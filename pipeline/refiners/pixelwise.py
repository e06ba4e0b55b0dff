"""Makes a refiner of a function of one image and one mask, for methods that do not prompt a SAM.

Such a function knows nothing of frames, batches and scores. It is given the image at the size at which it was loaded,
which its model says: the original size with the model `none`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks import binary
from pipeline.masks import scores as mask_scores
from pipeline.masks.binary import Mask, Rle
from pipeline.models import PixelModel
from pipeline.refiners.background import Overlapped
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

RefineOne = Callable[[npt.NDArray[np.uint8], Mask], Mask]
"""(H, W, 3) uint8 RGB and (H, W) uint8 {0, 1}, not empty -> (H, W) uint8 {0, 1}, which may be empty."""

UNKNOWN = float("nan")
PROBABILITY_CUT = 0.5
MASKS_WAITING = 16  # to be scored, two full-size masks each


def each_mask(function: RefineOne) -> Callable[[object, Sequence[RefineImage], Method], list[list[RefinedMask]]]:
    """The refiner that applies `function` to every mask by itself; it uses no model."""
    return partial(_each_mask, function)  # which can be pickled, as a function inside this one could not


def _each_mask(
    function: RefineOne, _model: object, images: Sequence[RefineImage], _method: Method
) -> list[list[RefinedMask]]:
    return [[_refined(image, coarse, function) for coarse in image.coarse] for image in images]


def by_network(model: PixelModel, images: Sequence[RefineImage], _method: Method) -> list[list[RefinedMask]]:
    """The refiner of networks that map (image, mask) to a probability: `cascadepsp` and `torchscript`."""

    def function(image_rgb: npt.NDArray[np.uint8], coarse: Mask) -> Mask:
        return (model.probability(image_rgb, coarse) > PROBABILITY_CUT).astype(np.uint8)

    with Overlapped(MASKS_WAITING) as overlapped:
        refined = [
            [overlapped.submit(_scored, *_answer(image, rle, function)) for rle in image.coarse] for image in images
        ]
    return [[result.result() for result in results] for results in refined]


def _refined(image: RefineImage, coarse: Rle, function: RefineOne) -> RefinedMask:
    return _scored(*_answer(image, coarse, function))


def _answer(image: RefineImage, coarse: Rle, function: RefineOne) -> tuple[RefineImage, Mask, Mask]:
    """The image with its coarse and its refined mask."""
    mask = binary.decode(coarse)
    refined = function(image.pixels, _resized(mask, image.pixels.shape[:2]))
    return image, mask, _resized(refined, mask.shape)


def _scored(image: RefineImage, mask: Mask, refined: Mask) -> RefinedMask:
    scores = mask_scores.shape_scores(image.pixels, mask, refined)
    return RefinedMask(binary.encode(refined), scores | dict.fromkeys(mask_scores.OF_THE_MODEL, UNKNOWN))


def _resized(mask: Mask, size_hw: tuple[int, ...]) -> Mask:
    if mask.shape == size_hw:
        return mask
    return np.asarray(cv2.resize(mask, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST), np.uint8)
