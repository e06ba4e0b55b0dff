"""LVIS JSON: COCO's form, with the image's place in its `coco_url` instead of a file name.

https://www.lvisdataset.org/dataset. `.../train2017/000000391895.jpg` is `train2017/000000391895.jpg` in the image root,
or `000000391895.jpg` where the root holds that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.sources import coco
from pipeline.sources.types import PlannedImage, SourceInput


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image, with its annotations, then those of images that `images` does not have."""

    def name_of(image: dict[str, Any]) -> str:
        if image.get("file_name"):
            return coco.file_name(image)
        parts = str(image.get("coco_url") or "").split("/")
        return parts[-1] if parts[-1] in given.images else "/".join(parts[-2:])

    return coco.scan(given, name_of)
