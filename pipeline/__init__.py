"""Relabel segmentation datasets: refine coarse masks with Segment Anything.

from pipeline import refine
better = refine("photo.jpg", "mask.png")     # one image, no Ray

import pipeline
result = pipeline.open("s3://bucket/output") # what `relabel run` wrote
result.masks()                               # an Arrow table
result.show(mask_id)                         # photo, coarse and refined outline
"""

from __future__ import annotations

from typing import Any

__all__ = ["open", "refine"]


def __getattr__(name: str) -> Any:
    """`refine` and `open`, imported when first used: they need torch and pyarrow, most of the package does not."""
    if name == "refine":
        from pipeline.single import refine

        return refine
    if name == "open":
        from pipeline.dataset import open_result

        return open_result
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
