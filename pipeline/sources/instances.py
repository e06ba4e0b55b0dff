"""A folder of images of instance ids beside a folder of images: `ids/NAME.png` for `images/NAME.jpg`; 0 is background.

Ids of 1000 and more are class * 1000 + number, as in Cityscapes' `instanceIds` and in KITTI MOTS (where 10000 stands
for "ignore" and is left out); the ids below 1000 of such a folder are classes without numbered objects. In folders
without such ids all objects have category 1, unless their ids are no count from 1: then they are classes too. 8 and 16
bit grey, indexed, and RGB as R + 256 G + 65536 B.

Where a folder `semantic` (KITTI) or `labels` (Mapillary) beside this one says that classes are the ids / 256, they are.
Options of this source:
    per_class=N            how many ids a class has (1000; 256 in KITTI and Mapillary); 0: ids are objects of one class
    files={stem}_*         as of `png.py`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.decoding.coarse import read_label_image
from pipeline.decoding.label_image import Labels
from pipeline.errors import MaskError, RefusedError
from pipeline.sources import cityscapes, files, png, walks
from pipeline.sources.fields import as_int
from pipeline.sources.files import Found
from pipeline.sources.label_maps import find
from pipeline.sources.png import mask_of, odd_of, read
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store

PER_CLASS = 1000
IGNORED = 10_000
TAKEN_AS_IGNORED = f'pixels of {IGNORED} taken as "ignore"'
LOOKED_AT = 32
CLASS_FOLDERS = ("semantic", "labels")
OF_CLASS_FOLDERS = 256
CLASSES, OBJECTS, CLASS_0 = "classes", "objects", "class 0"


@dataclass(frozen=True)
class Ids:
    """How ids are read. per_class: 0 where all objects are of one class. small: what ids below it are: `classes`,
    `objects` (of class 1), or `class 0`, as any other id.
    """

    per_class: int
    small: str
    names: Mapping[int, str]

    def category(self, number: int, small: str) -> int:
        """The category of an id; small: as that of the folder, or of this file."""
        if self.per_class and (number >= self.per_class or small == CLASS_0):
            return number // self.per_class
        return number if small == CLASSES else 1


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the image root with its objects, then the files that belong to no image."""
    stated = parse(given.options)
    paths = walks.some(Store(given.masks_uri, given.access), walks.LOOKED_AT)
    is_cityscapes = (
        given.coverage.decide("kind of ids", lambda: cityscapes.best_kind(paths, ("instanceIds",))) is not None
    )

    def beside(path: str) -> str | None:
        kind = cityscapes.kind_of(path)
        return (
            f"Cityscapes' {kind}, beside its instanceIds"
            if is_cityscapes and kind not in (None, "instanceIds")
            else (png.beside(path))
        )

    chosen = [path for path in paths if beside(path) is None and walks.has_suffix(path, png.suffixes(given))]
    ids = _ids(given, stated, is_cityscapes, chosen[:LOOKED_AT])

    def masks_of(path: str, data: bytes) -> Found:
        return _masks(path, data, ids)

    yield from files.scan(given, png.suffixes(given), masks_of, images_without_files=True, beside=beside)


def parse(options: Mapping[str, str]) -> int | None:
    """`per_class`, None where it is not given. Raises RefusedError."""
    own = files.check(options)
    number = as_int(own.get("per_class", "1000"))
    if not own.keys() <= {"per_class"} or number is None or number < 0:
        raise RefusedError(f"source instances takes per_class=N and files={{stem}}_*, not {dict(options)}")
    return number if own else None


def _masks(path: str, data: bytes, ids: Ids) -> Found:
    image = read(path, data)
    if isinstance(image, PlannedMask):
        return Found([image])
    if image.cut is not None:
        return Found([png.of_whole(path, image)], odd_of(image))
    values = image.values
    classed = bool(ids.per_class) and any(number >= ids.per_class for number in values)
    small = CLASSES if classed and ids.small == OBJECTS else ids.small
    masks = [
        replace(mask_of(path, number, image), category_id=category, category=ids.names.get(category, ""))
        for number in values
        if not (classed and number == IGNORED)
        for category in (ids.category(number, small),)
    ]
    return Found(masks, (*odd_of(image), *([TAKEN_AS_IGNORED] if classed and IGNORED in values else [])))


def _ids(given: SourceInput, stated: int | None, is_cityscapes: bool, paths: Sequence[str]) -> Ids:
    """As stated, as Cityscapes has them, as the folder beside says, or as the first files look."""
    found = given.coverage.decide("instance ids", lambda: _found(given, stated, is_cityscapes, paths))
    per_class, small = found or (PER_CLASS, OBJECTS)
    if is_cityscapes or (per_class == OF_CLASS_FOLDERS and _has_folder(given, CLASS_FOLDERS[0], paths)):
        return Ids(per_class, small, cityscapes.NAMES)
    return Ids(per_class, small, find(walks.location(given.masks_uri), given.access).names)


def _found(given: SourceInput, stated: int | None, is_cityscapes: bool, paths: Sequence[str]) -> tuple[int, str] | None:
    if stated is not None:
        return stated, OBJECTS if not stated else CLASSES if stated == PER_CLASS else CLASS_0
    if is_cityscapes:
        return PER_CLASS, CLASSES
    if any(_agrees(given, folder, paths) for folder in CLASS_FOLDERS):
        return OF_CLASS_FOLDERS, CLASS_0
    store = Store(given.masks_uri, given.access)
    found = [values for path in paths if (values := _values(store, path))]
    if not found:
        return None
    if any(values[-1] >= PER_CLASS for values in found):
        return PER_CLASS, CLASSES
    counted = any(values == list(range(1, len(values) + 1)) for values in found)
    known = all(value in cityscapes.NAMES for values in found for value in values)
    return PER_CLASS, CLASSES if known and not counted else OBJECTS


def _values(store: Store, path: str) -> list[int]:
    labels = _labels(store, path)
    return [] if labels is None else [int(value) for value in np.unique(labels) if value != 0]


def _labels(store: Store, path: str) -> Labels | None:
    try:
        return read_label_image(store.read(path))
    except (OSError, MaskError):
        return None


def _has_folder(given: SourceInput, folder: str, paths: Sequence[str]) -> bool:
    return any(_sibling(given, folder).exists(path) for path in paths[:1])


def _agrees(given: SourceInput, folder: str, paths: Sequence[str]) -> bool:
    """Whether a folder beside this one has maps of classes that are the ids / 256."""
    for path in paths[:LOOKED_AT]:
        classes, ids = _labels(_sibling(given, folder), path), _labels(Store(given.masks_uri, given.access), path)
        if classes is None or ids is None or classes.shape != ids.shape:
            return False
        if (ids >= OF_CLASS_FOLDERS).any():
            return bool((ids // OF_CLASS_FOLDERS == classes)[ids > 0].all())
    return False


def _sibling(given: SourceInput, folder: str) -> Store:
    return Store(f"{walks.location(given.masks_uri).rpartition('/')[0]}/{folder}", given.access)
