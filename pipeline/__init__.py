"""Relabel segmentation datasets: refine coarse masks with Segment Anything.

from pipeline import refine
better = refine("photo.jpg", "mask.png")     # one image, no Ray; refine_with_scores: decision, quality, scores too

import pipeline
result = pipeline.open("s3://bucket/output") # what `relabel run` wrote
result.masks("quality >= 0.8")               # an Arrow table
result.show(mask_id)                         # image with the coarse and the refined outline
result.evaluate("s3://bucket/truth.json")    # where you know the truth

pipeline.evaluate("s3://bucket/output", "s3://bucket/truth.json")   # every figure of `relabel evaluate`
pipeline.run("s3://bucket/coarse.json", "s3://bucket/output", images="s3://bucket/photos")   # `relabel run`
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.entry import run
    from pipeline.opened import evaluate, open  # noqa: A004 - pipeline.open is its public name
    from pipeline.single import refine, refine_with_scores

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "open", "refine", "refine_with_scores", "run"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that wants these lines adds a handler


def _check_neighbour(name: str) -> None:
    """Raise ImportError unless Python finds the package `name` beside this one, where it was installed."""
    found = find_spec(name)
    origin = found.origin if found else None
    if origin is None or Path(origin).resolve().parents[1] != Path(__file__).resolve().parents[1]:
        raise ImportError(
            f"{__file__} needs the package `{name}` beside it, and Python finds {origin or 'nothing'}: start in "
            "another folder, or take that one off PYTHONPATH"
        )


_check_neighbour("schemas")


_PUBLIC = {
    "evaluate": ("pipeline.opened", "evaluate"),
    "open": ("pipeline.opened", "open"),
    "refine": ("pipeline.single", "refine"),
    "refine_with_scores": ("pipeline.single", "refine_with_scores"),
    "run": ("pipeline.entry", "run"),
}
"""Imported when first used: they need more than most of the package does."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    module, function = _PUBLIC[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    """What is public, whether or not it has been imported yet; modules stay importable by their names."""
    return sorted(__all__)
