"""Relabel segmentation datasets: refine coarse masks with Segment Anything.

from pipeline import refine
better = refine("photo.jpg", "mask.png")     # one image, no Ray

import pipeline
result = pipeline.open("s3://bucket/output") # what `relabel run` wrote
result.masks()                               # an Arrow table
result.show(mask_id)                         # photo, coarse and refined outline

pipeline.run("s3://bucket/coarse.json", "s3://bucket/output", images="s3://bucket/photos")   # `relabel run`
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["open", "refine", "run"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that wants these lines adds a handler


def __getattr__(name: str) -> Any:
    """`refine`, `open` and `run`, imported when first used: they need more than most of the package does."""
    if name == "refine":
        from pipeline.single import refine

        return refine
    if name == "open":
        from pipeline.dataset import open_result

        return open_result
    if name == "run":
        from pipeline.entry import run

        return run
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
