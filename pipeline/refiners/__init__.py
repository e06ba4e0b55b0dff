"""Refiners: functions from images with coarse masks to refined masks with scores.

A new refiner is one file, one line in REFINERS, one test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.models import MaskModel
from pipeline.refiners import samrefiner
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

Refiner = Callable[[MaskModel, Sequence[RefineImage], Method], list[list[RefinedMask]]]

REFINERS: dict[str, Refiner] = {"samrefiner": samrefiner.refine}

__all__ = ["REFINERS", "RefineImage", "RefinedMask", "Refiner"]
