"""Exports: writers of one output format each. A new format is one file, one line in EXPORTS, one test.

An export turns the images of one shard of a result, with the masks that the selection takes, into files below the
target, and says what the format could not hold. How shards are shared out, resumed and split is `driver.py`'s.
"""

from __future__ import annotations

from pipeline.exports import (
    class_maps,
    coco,
    coco_panoptic,
    cvat,
    huggingface,
    label_studio,
    lvis,
    webdataset,
    yolo,
)
from pipeline.exports.types import Export

EXPORTS: dict[str, Export] = {
    "coco": coco.EXPORT,
    "coco-panoptic": coco_panoptic.EXPORT,
    "lvis": lvis.EXPORT,
    "class-maps": class_maps.EXPORT,
    "yolo": yolo.EXPORT,
    "webdataset": webdataset.EXPORT,
    "huggingface": huggingface.EXPORT,
    "label-studio": label_studio.EXPORT,
    "cvat": cvat.EXPORT,
}

__all__ = ["EXPORTS", "Export"]
