"""LVIS JSON: COCO's annotations, with `coco_url` in place of `file_name`, or beside one of an older image set (v0.5).

https://www.lvisdataset.org/dataset. `.../train2017/000000391895.jpg` is `train2017/000000391895.jpg` in the image root,
or `000000391895.jpg` where the root holds that. `file_name` counts where the root has it. Options are those of COCO.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.sources import coco
from pipeline.sources.fields import as_name
from pipeline.sources.types import PlannedImage, SourceInput


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image, with its annotations, then those of images that `images` does not have."""

    def name_of(image: dict[str, Any]) -> str:
        own = coco.file_name(image)
        parts = as_name(image.get("coco_url")).partition("?")[0].split("/")
        if own and (own in given.images or not parts[-1]):
            return own
        of_url = next((name for name in (parts[-1], "/".join(parts[-2:])) if name in given.images), None)
        return of_url or own or "/".join(parts[-2:])

    return coco.scan(given, name_of)
