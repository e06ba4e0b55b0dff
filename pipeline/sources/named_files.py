"""Images and masks that are named by file, folder or glob, and which belong together: for work without a plan.

A mask file belongs to an image as in a folder of mask images (`pairing.py`): `masks/cat.png` or `masks/cat/1.png` to
`images/cat.jpg`, and what other layouts call it. One image and one mask file belong together whatever they are called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import RefusedError
from pipeline.sources import pairing, walks
from pipeline.sources.coverage import Coverage, ignored_by_name
from pipeline.sources.label_maps import is_label_map
from pipeline.sources.pairs import MaskFile, Pairs, pairs
from pipeline.sources.types import IMAGE_SUFFIXES
from pipeline.storage import Access, Store, StoredFile

MAGIC = frozenset("*?[")


class Named(NamedTuple):
    """Files below `base`, by their paths relative to it. others: below it, too, and no images."""

    base: Path
    files: list[str]
    others: list[str]


class ImageMasks(NamedTuple):
    """An image's path and those of its masks, and their names relative to the folders that were named."""

    image: Path
    name: str
    masks: list[Path]
    mask_names: list[str]


class Matched(NamedTuple):
    """pairs: images that have masks. without_masks: paths of images. unread: paths below the masks' folder, and why."""

    pairs: list[ImageMasks]
    without_masks: list[str]
    unread: list[tuple[str, str]]


def is_several(text: str) -> bool:
    """Whether a folder or a glob is named, not one file."""
    return Path(text).is_dir() or _is_glob(text)


def match(images: str, masks: str) -> Matched:
    """Which mask belongs to which image. Raises RefusedError where there is nothing to do, or nothing fits."""
    pictures, files = named(images, "image"), named(masks, "mask")
    if not is_several(images) and not is_several(masks):
        [image], [mask] = pictures.files, files.files
        return Matched([ImageMasks(pictures.base / image, image, [files.base / mask], [mask])], [], [])
    if pictures.base.resolve() == files.base.resolve():
        pictures, files = _parted(pictures, files)
    rule = pairing.rule_for(pictures.files, lambda: files.files, Coverage(), "files")
    with pairs(
        pictures.files, (StoredFile(path, 0, None) for path in files.files), rule.of_image, rule.candidates
    ) as own:
        found = _matched(own, pictures, files)
    if not found.pairs:
        raise RefusedError(
            f"no mask of {masks} belongs to an image of {images}: masks are named after their images, as cat.png or "
            f"cat/1.png for cat.jpg; here are {files.files[0]} and {pictures.files[0]}"
        )
    return found


def named(text: str, what: str) -> Named:
    """The image files that a path or a glob names. what: a word for them. Raises RefusedError where there is none."""
    path = Path(text)
    if _is_glob(text):
        base = _fixed(path)
        paths = [one.relative_to(base).as_posix() for one in base.glob(str(path.relative_to(base))) if one.is_file()]
    elif path.is_dir():
        base, paths = path, [file.path for file in Store(text, Access()).walk(follow_links=True) if not file.special]
    elif path.is_file():
        return Named(path.parent, [path.name], [])
    else:
        raise RefusedError(f"cannot read the {what} {text}: there is no such file or folder")
    readable = {path: walks.has_suffix(path, IMAGE_SUFFIXES) and not is_label_map(path) for path in sorted(paths)}
    if not any(readable.values()):
        raise RefusedError(f"no {what} at {text}: {len(paths)} files there, none of them an image")
    return Named(
        base,
        [path for path, reads in readable.items() if reads],
        [path for path, reads in readable.items() if not (reads or ignored_by_name(path) or is_label_map(path))],
    )


def _is_glob(text: str) -> bool:
    return not Path(text).exists() and bool(MAGIC.intersection(text))


def _fixed(path: Path) -> Path:
    """The folder before the first part that is a pattern."""
    parts = list(path.parts)
    first = next(at for at, part in enumerate(parts) if MAGIC.intersection(part))
    return Path(*parts[:first])


def _parted(pictures: Named, files: Named) -> tuple[Named, Named]:
    """Images and masks that lie in one folder, told apart by their names."""
    both = dict.fromkeys([*pictures.files, *files.files])
    masks = [path for path in files.files if walks.is_mask_among(path, both)]
    images = [path for path in pictures.files if path not in set(masks)]
    if not images or not masks:
        raise RefusedError(f"images and masks are the same files in {files.base}: name a folder or a glob for each")
    return pictures._replace(files=images), Named(files.base, masks, [])


def _matched(own: Pairs, pictures: Named, files: Named) -> Matched:
    found = Matched([], [], [(path, "no image file") for path in files.others])
    for image, masks in own.images():
        if masks:
            found.pairs.append(_pair(pictures.base, image, masks, files.base))
        else:
            found.without_masks.append(image)
    if len(pictures.files) > 1:  # who names one image does not mean the masks of others
        found.unread.extend((path, "no image of that name") for path in _paths(own.orphans()))
    return found


def _pair(root: Path, image: str, masks: list[MaskFile], base: Path) -> ImageMasks:
    return ImageMasks(root / image, image, [base / mask.path for mask in masks], [mask.path for mask in masks])


def _paths(groups: Iterable[tuple[str, list[MaskFile]]]) -> Iterator[str]:
    return (file.path for _, group in groups for file in group)
