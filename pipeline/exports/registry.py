"""EXPORTS: writers of one output format each.

A new export is one file, one line in EXPORTS, one test. An export turns the images of one shard of a result, with the
masks that the selection takes, into files below the target, and says what the format could not hold: the two functions
of `Export` (`types.py`), importable by name, since each of several workers is handed them. How shards are shared out,
resumed and split is `driver.py`'s.
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
from pipeline.registry import look_up

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


def find(name: str) -> Export:
    """The registered export. Raises RefusedError for a format that does not exist."""
    return look_up(EXPORTS, name, "export format")
