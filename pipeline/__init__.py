"""Relabel segmentation datasets: refine coarse masks with Segment Anything.

from pipeline import refine
better = refine("photo.jpg", "mask.png")     # one image, no Ray

import pipeline
result = pipeline.open("s3://bucket/output") # what `relabel run` wrote
result.masks()                               # an Arrow table
result.show(mask_id)                         # image with the coarse and the refined outline

pipeline.run("s3://bucket/coarse.json", "s3://bucket/output", images="s3://bucket/photos")   # `relabel run`
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.dataset import open_result as open  # noqa: A004 - pipeline.open is its public name
    from pipeline.entry import run
    from pipeline.single import refine

__version__ = "0.1.0"
__all__ = ["__version__", "open", "refine", "run"]

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
    """What is public, whether or not it has been imported yet; modules stay importable by their names."""
    return sorted(__all__)
