"""Pascal VOC segmentation: `SegmentationObject/NAME.png` has the objects, `SegmentationClass/NAME.png` their classes.

`--masks` is the folder of both (`VOC2012`) or SegmentationObject itself, `--images` is JPEGImages. 0 is background,
255 void. One mask for each object; its class is the one that most of its pixels have. Images without a PNG are not
planned: VOC has six times as many images as segmentations.

Images of colours are read as well, as CVAT and datumaro write them: classes by `labelmap.txt` in the folder, or by
VOC's own palette. Names are those of `labelmap.txt`, else VOC's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.decoding import label_image
from pipeline.decoding.label_image import VOID, LabelImage
from pipeline.errors import MaskError
from pipeline.sources import files, png, walks
from pipeline.sources.files import Found
from pipeline.sources.label_maps import LabelMap, find, packed
from pipeline.sources.png import mask_of, odd_of, read
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store

OBJECTS, CLASSES = "SegmentationObject", "SegmentationClass"
NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BESIDE = {
    "Annotations": "VOC's boxes: no masks",
    "ImageSets": "VOC's lists of images",
    "JPEGImages": "VOC's images",
    CLASSES: "the classes of the objects",
}


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a PNG of objects, then the PNGs that belong to no image."""
    objects = root(given.masks_uri)
    folder = objects.removesuffix(OBJECTS)
    names = find(walks.location(folder or "."), given.access)
    classes = _Classes(Store(f"{folder}{CLASSES}", given.access), names)

    def masks_of(path: str, data: bytes) -> Found:
        return _masks(path, data, classes)

    below = replace(given, masks_uri=objects)
    yield from files.scan(below, png.suffixes(below), masks_of, images_without_files=False, beside=png.beside)
    if objects != given.masks_uri.rstrip("/"):
        _account_for_the_rest(given)


def root(masks_uri: str) -> str:
    """The folder that the masks' files are relative to."""
    folder = masks_uri.rstrip("/")
    return folder if folder.endswith(f"/{OBJECTS}") else f"{folder}/{OBJECTS}"


@dataclass(frozen=True)
class _Classes:
    """The images of classes, and what their values or colours stand for."""

    store: Store
    names: LabelMap

    def read(self, path: str) -> tuple[LabelImage, str] | None:
        """The image of classes of an image of objects, and a note; None where there is none."""
        try:
            data = self.store.read(path)
            image = label_image.read(data)
            if image.colours or (self.names.colours and not self.names.names.keys() >= set(image.values)):
                return self._of_colours(label_image.read(data, packed=True))
            return image, ""
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, MaskError):
            return None

    def _of_colours(self, image: LabelImage) -> tuple[LabelImage, str]:
        known = self.names.colours or VOC_COLOURS
        labels = np.zeros(image.labels.shape, np.int64)
        unknown = []
        for colour in image.values:
            if colour not in known:
                unknown.append(colour)
            labels[image.labels == colour] = known.get(colour, colour)
        note = "colour without a name: it is in no label map (labelmap.txt)" if unknown else ""
        return LabelImage(labels), note

    def name(self, category: int) -> str:
        """The name of a class."""
        if self.names.names:
            return self.names.names.get(category, "")
        return NAMES[category] if 0 < category < len(NAMES) else ""


def _masks(path: str, data: bytes, classes: _Classes) -> Found:
    image = read(path, data)
    if isinstance(image, PlannedMask):
        return Found([image])
    if image.cut is not None:
        return Found([png.of_whole(path, image)], odd_of(image))
    if image.colours:
        image = label_image.read(data, packed=True)
    found = classes.read(path)
    void = {_VOID_COLOUR} if image.colours else {_VOID_COLOUR, VOID}
    masks = [_mask(path, number, image, found, classes) for number in image.values if number not in void]
    return Found(masks, odd_of(image, not void.isdisjoint(image.values)))


def _mask(
    path: str, number: int, objects: LabelImage, found: tuple[LabelImage, str] | None, classes: _Classes
) -> PlannedMask:
    mask = mask_of(path, number, objects, packed=objects.colours)
    if found is None:
        return replace(mask, category_id=1)
    if found[0].labels.shape != objects.labels.shape:
        return replace(mask, category_id=1, detail=f"classes of another size: those of {path} do not fit its objects")
    labels, note = found[0].labels, found[1]
    inside = labels[(objects.labels == number) & (labels != 0) & (labels != VOID)]
    values, counts = np.unique(inside, return_counts=True)
    category = int(values[counts.argmax()]) if values.size else -1
    return replace(mask, category_id=category, category=classes.name(category), detail=note or mask.detail)


def _account_for_the_rest(given: SourceInput) -> None:
    """Everything beside the objects is named."""
    for file in walks.listed(given):
        folder = file.path.partition("/")[0]
        if folder == OBJECTS:
            continue
        why = BESIDE.get(folder) or png.beside(file.path)
        if why is not None:
            given.coverage.ignore(file.path, why)
        else:
            given.coverage.leave(file.path, "no part of VOC's layout")


def _palette() -> dict[int, int]:
    """VOC's colours: the bits of an index are spread over the three channels, the highest first."""
    return {
        packed(
            *(sum((index >> (3 * step + channel) & 1) << (7 - step) for step in range(3)) for channel in range(3))
        ): index
        for index in range(len(NAMES))
    }


VOC_COLOURS = _palette()
_VOID_COLOUR = packed(224, 224, 192)
VOC_COLOURS[_VOID_COLOUR] = VOID
