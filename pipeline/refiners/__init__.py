"""Refiners: functions from images with coarse masks to refined masks with scores.

A new refiner is one file, one line in REFINERS, one test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from pipeline.errors import RefusedError
from pipeline.masks.frames import ORIGINAL_SIZE
from pipeline.refiners import dense_crf, grabcut, none, pixelwise, sam_box, samrefiner, semantic
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

Refiner = Callable[[Any, Sequence[RefineImage], Method], list[list[RefinedMask]]]

"""The first argument is a model of the kind that the refiner needs (schemas/config.py, OWN_MODELS)."""

REFINERS: dict[str, Refiner] = {
    "samrefiner": samrefiner.refine,
    "sam-box": sam_box.refine,
    "none": pixelwise.each_mask(none.refine),
    "grabcut": pixelwise.each_mask(grabcut.refine),
    "dense-crf": pixelwise.each_mask(dense_crf.refine),
    "cascadepsp": pixelwise.by_network,
    "torchscript": pixelwise.by_network,
}

EXTRAS = {"dense-crf": "pydensecrf", "cascadepsp": "segmentation_refinement"}
"""Refiners that need an extra of this package (of the same name), and what it installs."""


def load_side(method: Method, input_side: int) -> int:
    """The long side at which images are loaded for a model of `input_side`: crops need the original."""
    return ORIGINAL_SIZE if method.crop_ratio else input_side


def refine(model: Any, images: Sequence[RefineImage], method: Method) -> list[list[RefinedMask]]:
    """The method's refined masks of each image, in the order of its coarse masks."""
    refiner = REFINERS[method.refiner]
    if semantic.wanted(method):
        return semantic.refine(refiner, model, images, method)
    return refiner(model, images, method)


def check_refiner(name: str) -> None:
    """Raise RefusedError for a refiner that does not exist or whose extra is not installed."""
    if name not in REFINERS:
        raise RefusedError(f"unknown refiner {name!r}; there are {', '.join(REFINERS)}")
    if name in EXTRAS and find_spec(EXTRAS[name]) is None:
        raise RefusedError(f"refiner {name} needs an extra: pip install 'relabel[{name}]'")


__all__ = ["EXTRAS", "REFINERS", "RefineImage", "RefinedMask", "Refiner", "check_refiner", "load_side", "refine"]
