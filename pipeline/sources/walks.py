"""What lies below `--masks`: every file once, each told to the coverage, so that none is left out in silence."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Container, Iterator
from pathlib import Path, PurePosixPath

from pipeline.decoding.raster import NOT_DECODED
from pipeline.sources import pairing
from pipeline.sources.coverage import IMAGES, Coverage
from pipeline.sources.pairs import stem
from pipeline.sources.types import IMAGE_SUFFIXES, SourceInput
from pipeline.storage import Store, StoredFile
from schemas import layout

Beside = Callable[[str], str | None]
"""A path -> why a file of that name is no mask file by design, or None."""


LOOKED_AT = 1000
"""Files of a folder that tell what it holds."""
AN_IMAGE = "an image of --images"
OF_AN_EXPORT = "of an export by relabel"


def nothing_beside(_path: str) -> str | None:
    """As Beside: every file should be a mask."""
    return None


def mask_files(given: SourceInput, suffixes: Collection[str], beside: Beside = nothing_beside) -> Iterator[StoredFile]:
    """The files of `--masks` that have one of the suffixes; all others are named with the reason."""
    among = is_same_folder(given)
    is_mask = masks_among(given) if ".png" in suffixes else _no_mask
    for file in listed(given):
        if (why := beside(file.path)) is not None:
            given.coverage.ignore(file.path, why)
        elif among and has_suffix(file.path, IMAGE_SUFFIXES) and not is_mask(file.path):
            given.coverage.ignore(file.path, AN_IMAGE)
        elif has_suffix(file.path, suffixes):
            yield file
        else:
            given.coverage.leave(file.path, f"this format reads {_named(suffixes)} only")


def _named(suffixes: Collection[str]) -> str:
    return "images" if suffixes is IMAGE_SUFFIXES else ", ".join(sorted(suffixes))


def listed(given: SourceInput, folder: str = "") -> Iterator[StoredFile]:
    """The files of `--masks` that are no images of `--images`; what is no file at all is named."""
    nested, store = images_below(given), Store(given.masks_uri, given.access)
    for file in given.within(store.walk(folder, follow_links=True)):
        if file.special:
            given.coverage.leave(file.path, "no file", file.special)
        elif nested is not None and _is_image(file.path, nested):
            given.coverage.ignore(file.path, AN_IMAGE)
        elif _is_of_an_export(store, file.path):
            given.coverage.ignore(file.path, OF_AN_EXPORT)
        else:
            yield file


def _is_of_an_export(store: Store, path: str) -> bool:
    """Whether it is what `relabel export` keeps beside masks."""
    folder, name = posixpath.split(path)
    if name == layout.EXPORT_REPORT:
        return store.exists(posixpath.join(folder, layout.EXPORT_STATE, "job.json"))
    return layout.EXPORT_STATE in folder.split("/")


def regular(images: Store, coverage: Coverage) -> Iterator[StoredFile]:
    """The files of the image root, also behind links to folders; what is no file at all is named."""
    for file in images.walk(follow_links=True):
        if file.special:
            coverage.leave(file.path, "no file", file.special, root=IMAGES)
        else:
            yield file


def some(store: Store, limit: int) -> list[str]:
    """Paths of a few files in the store, in order, without listing all of them."""
    root = store.full("").rstrip("/") + "/"
    return sorted(path.removeprefix(root) for path in store.some(limit))


def has_suffix(path: str, suffixes: Collection[str]) -> bool:
    """Whether a path ends in one of the suffixes, in large or small letters; files of the system do not count."""
    return PurePosixPath(path).suffix.lower() in suffixes and not posixpath.basename(path).startswith("._")


def images_below(given: SourceInput) -> str | None:
    """The image root as a path in the folder of masks, with a slash at its end; None where it is not in it.

    None also where both are the same folder: there the suffix tells masks from images.
    """
    masks, images = location(given.masks_uri), location(given.images_uri)
    return f"{images[len(masks) + 1 :]}/" if given.images_uri and images.startswith(f"{masks}/") else None


def masks_below(given: SourceInput) -> str | None:
    """The folder of masks as a path in the image root, with a slash at its end; None where it is not in it."""
    masks, images = location(given.masks_uri), location(given.images_uri)
    return f"{masks[len(images) + 1 :]}/" if given.images_uri and masks.startswith(f"{images}/") else None


def is_same_folder(given: SourceInput) -> bool:
    """Whether masks and images lie in one folder."""
    return bool(given.images_uri) and location(given.masks_uri) == location(given.images_uri)


def location(uri: str) -> str:
    """A URI without a slash at its end; a local path from its root."""
    return uri.rstrip("/") if "://" in uri else str(Path(uri).resolve())


class ImageFiles(Collection[str]):
    """Paths of the images of `--images`, but for mask files that lie in a folder below it, or among them."""

    def __init__(self, given: SourceInput, suffixes: Collection[str]) -> None:
        """suffixes: of mask files."""
        self._images = given.images
        self._masks = masks_below(given)
        self._among = is_same_folder(given) and ".png" in suffixes
        self._is_mask = masks_among(given)

    def __iter__(self) -> Iterator[str]:
        return (path for path in self._images if self._is_image(path))

    def __contains__(self, path: object) -> bool:
        return path in self._images and self._is_image(str(path))

    def __len__(self) -> int:
        return len(self._images)

    def _is_image(self, path: str) -> bool:
        if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES or (self._masks and path.startswith(self._masks)):
            return False
        return not (self._among and self._is_mask(path))


def masks_among(given: SourceInput) -> Callable[[str], bool]:
    """Whether a file among images is a mask: by the pattern that is stated, else by its name (`is_mask_among`)."""
    pattern = given.options.get(pairing.PATTERN)
    if pattern is None:
        return lambda path: is_mask_among(path, given.images)
    shorter = pairing.stems_by(pattern)

    def fits(path: str) -> bool:
        own = stem(path)
        found = (f"{name}{suffix}" for name in shorter(own) if name != own for suffix in IMAGE_SUFFIXES)
        return PurePosixPath(path).suffix.lower() == ".png" and any(name in given.images for name in found)

    return fits


def _no_mask(_path: str) -> bool:
    return False


def is_mask_among(path: str, images: Container[str]) -> bool:
    """Whether a file among images is a mask: a PNG whose name, as it is or without a word like _mask, is another's."""
    if PurePosixPath(path).suffix.lower() != ".png":
        return False
    own, bare = stem(path), pairing.without_words(stem(path))
    beside = {f"{name}{suffix}" for name in (own, bare) for suffix in IMAGE_SUFFIXES} - {path, f"{own}.png"}
    return any(other in images for other in beside) or _is_in_masks(path, images)


def _is_in_masks(path: str, images: Container[str]) -> bool:
    """Whether it lies as in the Data Science Bowl: `1/masks/x.png` beside `1/images/1.png`."""
    parts = path.split("/")
    if len(parts) < 3 or parts[-2] != "masks":
        return False
    image = f"{'/'.join(parts[:-2])}/images/{parts[-3]}"
    return any(f"{image}{suffix}" in images for suffix in IMAGE_SUFFIXES)


def _is_image(path: str, below: str) -> bool:
    return path.startswith(below) and PurePosixPath(path).suffix.lower() in (IMAGE_SUFFIXES | NOT_DECODED)
