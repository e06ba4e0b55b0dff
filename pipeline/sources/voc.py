"""Pascal VOC instances: `SegmentationObject/NAME.png` holds object numbers, `SegmentationClass/NAME.png` their classes.

`--masks` is the folder of both (`VOC2012`) or SegmentationObject itself, `--images` is JPEGImages. 0 is background,
255 void. One mask for each object; its class is the one that most of its pixels have. Images without a PNG are not
planned: VOC has six times as many images as segmentations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.errors import MaskError
from pipeline.masks.coarse import read_label_image
from pipeline.sources import files
from pipeline.sources.png import VOID, mask_of, values
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store

OBJECTS, CLASSES = "SegmentationObject", "SegmentationClass"
NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a PNG of objects, then the PNGs that belong to no image."""
    objects = root(given.masks_uri)
    classes = Store(f"{objects.removesuffix(OBJECTS)}{CLASSES}", given.access)

    def masks_of(path: str, data: bytes) -> list[PlannedMask]:
        numbers = values(data)
        if numbers is None:
            return [mask_of(path, None)]  # fails again, and is counted, when it is loaded
        labels = _labels(classes, path)
        own = read_label_image(data)
        return [_mask(path, number, own, labels) for number in numbers if number != VOID]

    yield from files.scan(replace(given, masks_uri=objects), {".png"}, masks_of, images_without_files=False)


def root(masks_uri: str) -> str:
    """The folder that the masks' files are relative to."""
    folder = masks_uri.rstrip("/")
    return folder if folder.endswith(f"/{OBJECTS}") else f"{folder}/{OBJECTS}"


def _labels(classes: Store, path: str) -> npt.NDArray[np.int64] | None:
    try:
        return read_label_image(classes.read(path))
    except (FileNotFoundError, MaskError):
        return None


def _mask(path: str, number: int, objects: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None) -> PlannedMask:
    category = 1
    if labels is not None and labels.shape == objects.shape:
        found = labels[(objects == number) & (labels != 0) & (labels != VOID)]
        category = int(np.bincount(found).argmax()) if found.size else -1
    name = NAMES[category] if labels is not None and 0 < category < len(NAMES) else ""
    return replace(mask_of(path, number), category_id=category, category=name)
