"""REFINERS: functions from images with coarse masks to refined masks with scores.

A new refiner is one file, one line in REFINERS, one test. Of the two shapes that the file's function can have:

    of an image and one of its masks, for methods that prompt no SAM: `pixelwise.each_mask` makes a refiner of it
        def refine(image_rgb, coarse): ...                      # (H, W, 3) uint8, (H, W) uint8 -> (H, W) uint8
        "mine": Refiner(pixelwise.each_mask(mine.refine), model="none"),

    of all images of a chunk and a model (type `Run`), when it prompts or batches
        "mine": Refiner(mine.refine, model=PROMPTABLE),

The `model` decides what is loaded, at what size images come, and whose hash enters the fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.extras import require
from pipeline.models import ModelSpec
from pipeline.refiners import dense_crf, grabcut, none, pixelwise, sam_box, samrefiner, semantic
from pipeline.refiners.types import RefinedMask, RefineImage
from pipeline.registry import look_up
from schemas.config import Method

Run = Callable[[Any, Sequence[RefineImage], Method], list[list[RefinedMask]]]
"""(model, images, method) -> for each image, its refined masks in the order of its coarse masks."""

PROMPTABLE = "promptable"
"""Any model that follows the protocol MaskModel: the one that the user names."""


@dataclass(frozen=True)
class Refiner:
    """One refiner; picklable, as everything that it holds (`pipeline/registry.py`).

    run      what it does
    model    PROMPTABLE, or the name of the one model (models/registry.py) that it goes with; "none" needs no weights
    views    whether it heeds the settings of Method that a model's own presets are about: mirror image, crop, colours
    extra    the extra of this package that it needs, and the module by which it is known to be installed
    """

    run: Run
    model: str
    views: bool = False
    extra: tuple[str, str] | None = None

    def fits(self, spec: ModelSpec) -> bool:
        """Whether it can work with a model."""
        if self.model != PROMPTABLE:
            return spec.name == self.model
        return spec.promptable and (self.views or not spec.members)


REFINERS: dict[str, Refiner] = {
    "samrefiner": Refiner(samrefiner.refine, model=PROMPTABLE, views=True),
    "sam-box": Refiner(sam_box.refine, model=PROMPTABLE),
    "none": Refiner(pixelwise.each_mask(none.refine), model="none"),
    "grabcut": Refiner(pixelwise.each_mask(grabcut.refine), model="none"),
    "dense-crf": Refiner(pixelwise.each_mask(dense_crf.refine), model="none", extra=("dense-crf", "pydensecrf")),
    "cascadepsp": Refiner(pixelwise.by_network, model="cascadepsp", extra=("cascadepsp", "segmentation_refinement")),
    "torchscript": Refiner(pixelwise.by_network, model="torchscript"),
}


def find(name: str) -> Refiner:
    """The registered refiner. Raises RefusedError for one that does not exist."""
    return look_up(REFINERS, name, "refiner")


def check_refiner(name: str) -> None:
    """Raise RefusedError for a refiner that does not exist or whose extra is not installed."""
    extra = find(name).extra
    if extra:
        require(module=extra[1], extra=extra[0], what=f"refiner {name}")


def refine(
    model: Any, images: Sequence[RefineImage], method: Method, refiner: Refiner | None = None
) -> list[list[RefinedMask]]:
    """The method's refined masks of each image, in the order of its coarse masks.

    refiner: what the method names; None where it is registered in this process.
    """
    run = (refiner or find(method.refiner)).run
    refined = semantic.refine(run, model, images, method) if semantic.wanted(method) else run(model, images, method)
    return semantic.without_specks(images, refined, method.min_region_px) if method.min_region_px else refined
