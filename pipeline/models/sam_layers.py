"""Layers of segment_anything that `lite` is made of, without the rest of that package.

Its own __init__ imports torchvision, and that torch's compiler: most of what the start of an actor costs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

PACKAGE = "segment_anything"


@contextmanager
def _unopened() -> Iterator[None]:
    """While it lasts, modules of the package are found without running its __init__; what is loaded already stays."""
    spec = None if PACKAGE in sys.modules else find_spec(PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        yield
        return
    stand_in = ModuleType(PACKAGE)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[PACKAGE] = stand_in
    try:
        yield
    finally:
        del sys.modules[PACKAGE]


if TYPE_CHECKING:
    from segment_anything.modeling import PromptEncoder, TwoWayTransformer
    from segment_anything.modeling.mask_decoder import MLP
else:
    with _unopened():
        from segment_anything.modeling import PromptEncoder, TwoWayTransformer
        from segment_anything.modeling.mask_decoder import MLP

__all__ = ["MLP", "PromptEncoder", "TwoWayTransformer"]
