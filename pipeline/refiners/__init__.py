"""Refiners: functions from images with coarse masks to refined masks. `registry.py` tells how to add one."""

from __future__ import annotations

from pipeline.refiners.pixels import load_pixels, load_side, looks_closer
from pipeline.refiners.registry import PROMPTABLE, REFINERS, Refiner, check_refiner, find, refine
from pipeline.refiners.types import RefinedMask, RefineImage

__all__ = [
    "PROMPTABLE",
    "REFINERS",
    "RefineImage",
    "RefinedMask",
    "Refiner",
    "check_refiner",
    "find",
    "load_pixels",
    "load_side",
    "looks_closer",
    "refine",
]
