"""A folder of mask images beside a folder of images: `cat.png`, or `cat/1.png`, `cat/2.png`, ..., for `cat.jpg`.

PNG, GIF, BMP, TIFF, WebP, JPEG and whatever else Pillow decodes. What the pixels of one file mean:
    mode 1, or at most one non-zero value      a binary mask: every non-zero pixel, one mask
    soft edges, alpha, JPEG                    a binary mask, cut half-way (see `label_image.py`)
    several values (indexed, grey, packed RGB) one mask for each non-zero value; 255 beside others may be void, which
                                               is told (see `void.py`; `class-maps:void=none` reads it)
    indexed, a palette of greys alone          as the grey image, where black is not index 0 (see `palettes.py`)
A mask's source id is the file's path without suffix, then `#value` for labels; the value is also the category id.
Files whose values are classes, always, are another source: `class_maps.py`. Option of this source:
    files={stem}_*         how mask files are named, where their names are longer than the images' (found by looking)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pipeline.decoding import label_image, void
from pipeline.decoding.label_image import VOID, LabelImage
from pipeline.errors import MaskError, RefusedError
from pipeline.sources import files, walks
from pipeline.sources.files import Found
from pipeline.sources.label_maps import is_label_map
from pipeline.sources.pairs import stem
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput

LARGE_VALUES = "values above 255 taken as categories; --source instances reads them as class * 1000 + number"


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the image root with its mask files, then the mask files that belong to no image."""
    yield from files.scan(given, suffixes(given), masks_of_file, images_without_files=True, beside=beside)


def parse(options: Mapping[str, str]) -> None:
    """Raises RefusedError for what is no option of this source."""
    if files.check(options):
        raise RefusedError(f"source png takes files={{stem}}_*, not {dict(options)}")


def suffixes(given: SourceInput) -> frozenset[str]:
    """Of mask images: all, but PNG alone where they lie among the images."""
    return frozenset({".png"}) if walks.is_same_folder(given) else IMAGE_SUFFIXES


def beside(path: str) -> str | None:
    """As walks.Beside: a label map is no mask."""
    return "names and colours of classes" if is_label_map(path) else None


def masks_of_file(path: str, data: bytes) -> Found:
    """The masks in a mask image of which nothing else is known."""
    found = read(path, data, greys=True)
    if isinstance(found, PlannedMask):
        return Found([found])
    values = found.values
    if found.cut is not None or len(values) <= 1:
        return Found([of_whole(path, found)], odd_of(found))
    has_void = void.is_void(found)
    masks = [mask_of(path, value, found) for value in values if not has_void or value != VOID]
    return Found(masks, (*odd_of(found, has_void), *([LARGE_VALUES] if _are_large(found) else [])))


def _are_large(image: LabelImage) -> bool:
    """Whether values go beyond 8 bits, and are no count of objects."""
    values = image.values
    return not image.colours and values[-1] > VOID and 2 * len(values) < values[-1]


def odd_of(image: LabelImage, has_void: bool = False) -> tuple[str, ...]:
    """What is odd about a mask image, and whether it has void."""
    return tuple(filter(None, (image.odd, void.TAKEN_AS_VOID if has_void else "")))


def read(path: str, data: bytes, packed: bool = False, greys: bool = False) -> LabelImage | PlannedMask:
    """A mask image's labels; else the one mask that stands for the file, fails when it is loaded, and is counted."""
    try:
        return label_image.read(data, packed, greys)
    except MaskError as error:
        return replace(mask_of(path, None), detail=f"unreadable: {error.detail}")


def of_whole(path: str, image: LabelImage) -> PlannedMask:
    """All of an image that is not background as one mask."""
    cut = {} if image.cut is None else {"cut": image.cut}
    geometry = {"file": path, "value": None, **cut, **_how(image)}
    return PlannedMask(stem(path), 1, "", json.dumps(geometry), image.note)


def mask_of(path: str, value: int | None, image: LabelImage | None = None, packed: bool = False) -> PlannedMask:
    """The mask of a file's pixels that equal `value`, or of all that are not zero."""
    name = stem(path)
    geometry = {"file": path, "value": value, **({"packed": True} if packed else _how(image))}
    return PlannedMask(
        source_mask_id=name if value is None else f"{name}#{value}",
        category_id=1 if value is None else value,
        category="",
        geometry=json.dumps(geometry),
        detail=image.note if image else "",
    )


def _how(image: LabelImage | None) -> dict[str, bool]:
    """What a geometry says of how its file is read, beside the value."""
    return {"greys": True} if image is not None and image.greys else {}
