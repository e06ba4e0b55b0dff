"""Folders of mask files beside a folder of images: `masks/NAME.png` or `masks/NAME/*.png` for `images/NAME.jpg`.

What one file holds is its source's business (`png.py`, `class_maps.py`, `cam.py`); which image it belongs to is this
module's. A file that is too large is not read: it becomes one mask that fails, and is counted, when it is loaded.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store

ReadFile = Callable[[str, bytes], list[PlannedMask]]
"""A mask file's path and content -> the masks in it."""

BATCH_FILES = 512
MAX_FILE_BYTES = 1 << 29
UNREADABLE = "null"
"""A geometry that fails as `mask_unreadable`."""

_Group = tuple[str, list[str], str | None]


def scan(
    given: SourceInput, suffixes: Collection[str], read: ReadFile, *, images_without_files: bool
) -> Iterator[PlannedImage]:
    """The images of the image root with the masks of their files, then the files that belong to no image."""
    store = Store(given.masks_uri, given.access)
    sizes = {file.path: file.size for file in store.list() if PurePosixPath(file.path).suffix.lower() in suffixes}
    images = {stem(path): path for path in sorted(given.images) if _is_image(path)}
    by_image: dict[str, list[str]] = defaultdict(list)
    for path in sizes:
        by_image[_image_stem(path, images)].append(path)

    def masks_of(path: str) -> tuple[list[PlannedMask], str]:
        if sizes[path] > MAX_FILE_BYTES:
            return [PlannedMask(stem(path), -1, "", UNREADABLE)], f"{sizes[path]} bytes"
        data = store.read(path)
        return read(path, data), hashlib.sha256(data).hexdigest()

    wanted = (name for name in images if images_without_files or name in by_image)
    known = ((images[name], by_image.get(name, []), None) for name in wanted)
    orphans = ((by_image[name][0], by_image[name], "image_missing") for name in sorted(by_image.keys() - images.keys()))
    yield from _plan_all(masks_of, known, given.threads)
    yield from _plan_all(masks_of, orphans, given.threads)


def stem(path: str) -> str:
    """The path without its suffix."""
    return str(PurePosixPath(path).with_suffix(""))


def _plan_all(
    masks_of: Callable[[str], tuple[list[PlannedMask], str]], images: Iterable[_Group], threads: int
) -> Iterator[PlannedImage]:
    """Reads mask files ahead, a bounded number at a time, and keeps the order."""
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(images):
            read = pool.map(masks_of, [path for _, paths, _ in batch for path in paths])
            for image, paths, problem in batch:
                masks, digests = zip(*[next(read) for _ in paths], strict=True) if paths else ((), ())
                yield PlannedImage(
                    image_uri=image,
                    source_image_id=stem(image),
                    declared_hw=None,
                    masks=[mask for found in masks for mask in found],
                    problem=problem,
                    digest_extra=",".join(digests),
                )


def _batches(images: Iterable[_Group]) -> Iterator[list[_Group]]:
    batch: list[_Group] = []
    for image in images:
        batch.append(image)
        if sum(len(paths) or 1 for _, paths, _ in batch) >= BATCH_FILES:
            yield batch
            batch = []
    if batch:
        yield batch


def _image_stem(path: str, images: dict[str, str]) -> str:
    """The image that a mask file belongs to: the one of its own name, else the one of its folder's."""
    own = stem(path)
    folder = str(PurePosixPath(path).parent)
    return folder if own not in images and folder in images else own


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
