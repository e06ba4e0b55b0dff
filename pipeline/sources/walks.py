"""What lies below `--masks`: every file once, each told to the coverage, so that no source can leave one out in silence."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from pipeline.masks.raster import NOT_DECODED
from pipeline.sources.coverage import IMAGES, Coverage
from pipeline.sources.types import IMAGE_SUFFIXES, SourceInput
from pipeline.storage import Store, StoredFile

Beside = Callable[[str], str | None]
"""A path -> why a file of that name is no mask file by design, or None."""


LOOKED_AT = 1000
"""Files of a folder that tell what it holds."""
AN_IMAGE = "an image of --images"


def nothing_beside(_path: str) -> str | None:
    """As Beside: every file should be a mask."""
    return None


def mask_files(given: SourceInput, suffixes: Collection[str], beside: Beside = nothing_beside) -> Iterator[StoredFile]:
    """The files of `--masks` that have one of the suffixes; all others are named with the reason."""
    for file in listed(given):
        if (why := beside(file.path)) is not None:
            given.coverage.ignore(file.path, why)
        elif has_suffix(file.path, suffixes):
            yield file
        elif is_same_folder(given) and has_suffix(file.path, IMAGE_SUFFIXES):
            given.coverage.ignore(file.path, AN_IMAGE)
        else:
            given.coverage.leave(file.path, f"no file of this format, which reads {_named(suffixes)}")


def _named(suffixes: Collection[str]) -> str:
    return "images" if suffixes is IMAGE_SUFFIXES else ", ".join(sorted(suffixes))


def listed(given: SourceInput, folder: str = "") -> Iterator[StoredFile]:
    """The files of `--masks` that are no images of `--images`; what is no file at all is named."""
    nested = images_below(given)
    for file in Store(given.masks_uri, given.access).walk(folder, follow_links=True):
        if file.special:
            given.coverage.leave(file.path, "no file", file.special)
        elif nested is not None and _is_image(file.path, nested):
            given.coverage.ignore(file.path, AN_IMAGE)
        else:
            yield file


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


def image_paths(given: SourceInput) -> Iterator[str]:
    """The images of `--images`, but for mask files that lie in a folder below it."""
    nested = masks_below(given)
    for path in given.images:
        is_mask = nested is not None and path.startswith(nested)
        if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES and not is_mask:
            yield path


def _is_image(path: str, below: str) -> bool:
    return path.startswith(below) and PurePosixPath(path).suffix.lower() in (IMAGE_SUFFIXES | NOT_DECODED)
