"""Folders of mask files beside a folder of images: `masks/NAME.png` or `masks/NAME/*.png` for `images/NAME.jpg`.

What one file holds is its source's business (`png.py`, `class_maps.py`, `cam.py`); which image it belongs to is that of
`pairs.py`. A file that is too large is not read: it becomes one mask that fails, and is counted, when it is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from pipeline.sources.pairs import MaskFile, pairs, stem
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store

ReadFile = Callable[[str, bytes], list[PlannedMask]]
"""A mask file's path and content -> the masks in it."""

BATCH_FILES = 512
MAX_FILE_BYTES = 1 << 29
UNREADABLE = "null"
"""A geometry that fails as `mask_unreadable`."""

_Group = tuple[str, list[MaskFile], str | None]


def scan(
    given: SourceInput, suffixes: Collection[str], read: ReadFile, *, images_without_files: bool
) -> Iterator[PlannedImage]:
    """The images of the image root with the masks of their files, then the files that belong to no image."""
    store = Store(given.masks_uri, given.access)
    images = (path for path in given.images if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES)
    files = (file for file in store.walk() if PurePosixPath(file.path).suffix.lower() in suffixes)

    def masks_of(file: MaskFile) -> tuple[list[PlannedMask], str]:
        if file.size > MAX_FILE_BYTES:
            return [PlannedMask(stem(file.path), -1, "", UNREADABLE)], f"{file.size} bytes"
        data = store.read(file.path)
        return read(file.path, data), hashlib.sha256(data).hexdigest()

    with pairs(images, files) as paired:
        known = ((path, own, None) for path, own in paired.images() if own or images_without_files)
        yield from _plan_all(masks_of, known, given.threads)
        orphans = ((own[0].path, own, "image_missing") for _, own in paired.orphans())
        yield from _plan_all(masks_of, orphans, given.threads)


def _plan_all(
    masks_of: Callable[[MaskFile], tuple[list[PlannedMask], str]], images: Iterable[_Group], threads: int
) -> Iterator[PlannedImage]:
    """Reads mask files ahead, a bounded number at a time, and keeps the order."""
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(images):
            read = pool.map(masks_of, [file for _, files, _ in batch for file in files])
            for image, files, problem in batch:
                masks, digests = zip(*[next(read) for _ in files], strict=True) if files else ((), ())
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
        if sum(len(files) or 1 for _, files, _ in batch) >= BATCH_FILES:
            yield batch
            batch = []
    if batch:
        yield batch
