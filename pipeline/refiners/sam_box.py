"""A SAM prompted with the coarse mask's tight box and nothing else: what most people do with a box and SAM."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.models import MaskModel
from pipeline.refiners import samrefiner
from pipeline.refiners.types import RefinedMask, RefineImage
from schemas.config import Method

PROMPTS = {"use_points": False, "use_box": True, "use_mask": False, "elastic_threshold": 0.0}
ONE_LOOK = {"iterations": 1, "crop_ratio": 0.0, "mirror": False, "colour_vote": 0.0, "box_trials": 0}


def refine(model: MaskModel, images: Sequence[RefineImage], method: Method) -> list[list[RefinedMask]]:
    """The candidate with the highest predicted IoU for each box; of `method` only the batch sizes count."""
    return samrefiner.refine(model, images, method.model_copy(update={**PROMPTS, **ONE_LOOK}))
