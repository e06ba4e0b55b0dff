"""A folder of class maps beside a folder of images: `maps/NAME.png` for `images/NAME.jpg`, as Pascal VOC has them.

Indexed or grey images, or colours. Every value is a class, and its category id: 0 is background, 255 is void (pixels
that nobody vouches for). One mask for each class, with all of its regions. Images without a map are not planned: VOC
has six times as many images as maps.

Colours, and names, come from a label map in the folder or above it (`label_maps.py`); Cityscapes' names are known.
Options of this source:
    background=none|N      the value that is no class (0; none where every value is one, as in Cityscapes' train ids)
    void=none|N            the value that nobody vouches for (255)
    labels=URI             the label map, wherever it lies and whatever it is called
    files={stem}_*         as of `png.py`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pipeline.decoding.label_image import VOID, LabelImage
from pipeline.errors import RefusedError
from pipeline.sources import cityscapes, files, png, walks
from pipeline.sources.fields import as_int
from pipeline.sources.files import Found
from pipeline.sources.label_maps import LabelMap, find
from pipeline.sources.label_maps import read as read_map
from pipeline.sources.png import mask_of, odd_of, read
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store


@dataclass(frozen=True)
class Classes:
    """What values stand for. left_out: those that are no class; is_void_told: nobody has said which value is void."""

    names: LabelMap
    left_out: frozenset[int]
    is_void_told: bool = True


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a map, then the maps that belong to no image."""
    left_out = parse(given.options)
    kind = given.coverage.decide("kind of maps", lambda: _kind(given))
    classes = _classes(given, kind, left_out)

    def beside(path: str) -> str | None:
        found = cityscapes.kind_of(path)
        return f"Cityscapes' {found}, beside its {kind}" if kind and found not in (None, kind) else png.beside(path)

    def masks_of(path: str, data: bytes) -> Found:
        return masks_of_map(path, data, classes)

    yield from files.scan(given, png.suffixes(given), masks_of, images_without_files=False, beside=beside)


def parse(options: Mapping[str, str]) -> dict[str, int | None]:
    """`background` and `void` as far as they are given; None: there is none. Raises RefusedError."""
    own = {name: text for name, text in files.check(options).items() if name != "labels"}
    values = {name: None if text == "none" else as_int(text) for name, text in own.items()}
    wrong = [name for name, value in values.items() if value is None and own[name] != "none"]
    if wrong or not own.keys() <= {"background", "void"}:
        raise RefusedError(
            "source class-maps takes background=none|N, void=none|N, labels=URI and files={stem}_*, "
            f"not {dict(options)}"
        )
    return values


def masks_of_map(path: str, data: bytes, classes: Classes) -> Found:
    """One mask for each class of a map."""
    image = read(path, data)
    if isinstance(image, PlannedMask):
        return Found([image])
    if image.cut is not None:
        return Found([png.of_whole(path, image)], odd_of(image))
    if image.colours or (classes.names.colours and _are_colours(image, classes.names)):
        return Found(of_colours(path, data, classes.names), odd_of(image))
    values = [*image.values, *([0] if 0 not in classes.left_out and (image.labels == 0).any() else [])]
    masks = [
        replace(mask_of(path, value, image), category=classes.names.names.get(value, ""))
        for value in values
        if value not in classes.left_out
    ]
    return Found(masks, odd_of(image, classes.is_void_told and VOID in values and VOID in classes.left_out))


def of_colours(path: str, data: bytes, names: LabelMap) -> list[PlannedMask]:
    """One mask for each colour that is not background; a colour that no label map has keeps its own number."""
    image = read(path, data, packed=True)
    if isinstance(image, PlannedMask):
        return [image]
    found = []
    for colour in image.values:
        known = names.colours.get(colour)
        if known == 0:
            continue
        detail = "" if known is not None else f"colour without a name: {_hex(colour)} is in no label map (labelmap.txt)"
        category = names.names.get(known, "") if known is not None else _hex(colour)
        mask = mask_of(path, colour, packed=True)
        found.append(replace(mask, category_id=colour if known is None else known, category=category, detail=detail))
    return found


def _are_colours(image: LabelImage, names: LabelMap) -> bool:
    """Whether grey values are colours of a label map that happen to be grey, rather than ids of its classes."""
    greys = {value * 0x010101 for value in image.values}
    return greys <= names.colours.keys() and not set(image.values) <= names.names.keys()


def _hex(colour: int) -> str:
    return f"#{colour & 255:02x}{colour >> 8 & 255:02x}{colour >> 16:02x}"


def _kind(given: SourceInput) -> str | None:
    """Which of Cityscapes' files are the maps, None in a folder of other names."""
    paths = walks.some(Store(given.masks_uri, given.access), walks.LOOKED_AT)
    return cityscapes.best_kind(paths, ("labelIds", "labelTrainIds"))


def _classes(given: SourceInput, kind: str | None, stated: Mapping[str, int | None]) -> Classes:
    trained = kind == "labelTrainIds"
    stated_map = given.options.get("labels")
    names = read_map(stated_map, given.access) if stated_map else find(walks.location(given.masks_uri), given.access)
    if kind is not None:
        names = LabelMap(cityscapes.TRAIN_NAMES if trained else cityscapes.NAMES, names.colours)
    background = stated.get("background", None if trained or not names.background else 0)
    left_out = {background, stated.get("void", VOID)}
    return Classes(names, frozenset(value for value in left_out if value is not None), "void" not in stated)
