"""A folder of mask PNGs beside a folder of images: `masks/NAME.png` or `masks/NAME/*.png` for `images/NAME.jpg`.

What the pixels of one file mean:
    mode 1, or at most one non-zero value      a binary mask: every non-zero pixel, one mask
    several values (indexed, grey, packed RGB) one mask for each non-zero value; 255 is void when there are others
A mask's source id is the file's path without suffix, then `#value` for labels; the value is also the category id.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np

from pipeline.coarse import read_label_image
from pipeline.errors import MaskError
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store

VOID = 255
BATCH_FILES = 512


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the image root with its mask files, then the mask files that belong to no image."""
    store = Store(given.masks_uri, given.access)
    files = [file.path for file in store.list() if PurePosixPath(file.path).suffix.lower() == ".png"]
    images = {_stem(path): path for path in sorted(given.images) if _is_image(path)}
    by_image: dict[str, list[str]] = defaultdict(list)
    for path in files:
        by_image[_image_stem(path, images)].append(path)
    yield from _plan_all(store, ((images[stem], by_image.get(stem, []), None) for stem in images), given.threads)
    orphans = ((f"{stem}.png", by_image[stem], "image_missing") for stem in sorted(by_image.keys() - images.keys()))
    yield from _plan_all(store, orphans, given.threads)


def _plan_all(
    store: Store, images: Iterable[tuple[str, list[str], str | None]], threads: int
) -> Iterator[PlannedImage]:
    """Reads mask files ahead, a bounded number at a time, and keeps the order."""
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(images):
            read = pool.map(lambda path: _read(store, path), [path for _, paths, _ in batch for path in paths])
            for image, paths, problem in batch:
                masks, digests = zip(*[next(read) for _ in paths], strict=True) if paths else ((), ())
                yield PlannedImage(
                    image_uri=image,
                    source_image_id=_stem(image),
                    declared_hw=None,
                    masks=[mask for found in masks for mask in found],
                    problem=problem,
                    digest_extra=",".join(digests),
                )


def _read(store: Store, path: str) -> tuple[list[PlannedMask], str]:
    data = store.read(path)
    digest = hashlib.sha256(data).hexdigest()
    try:
        values = [int(value) for value in np.unique(read_label_image(data))]
    except MaskError:
        return [_mask(path, None)], digest  # fails again, and is counted, when it is loaded
    labels = [value for value in values if value != 0]
    if len(labels) <= 1:
        return [_mask(path, None)], digest
    return [_mask(path, value) for value in labels if value != VOID], digest


def _mask(path: str, value: int | None) -> PlannedMask:
    name = _stem(path)
    return PlannedMask(
        source_mask_id=name if value is None else f"{name}#{value}",
        category_id=1 if value is None else value,
        category="",
        geometry=json.dumps({"file": path, "value": value}),
    )


def _batches(
    images: Iterable[tuple[str, list[str], str | None]],
) -> Iterator[list[tuple[str, list[str], str | None]]]:
    batch: list[tuple[str, list[str], str | None]] = []
    for image in images:
        batch.append(image)
        if sum(len(paths) or 1 for _, paths, _ in batch) >= BATCH_FILES:
            yield batch
            batch = []
    if batch:
        yield batch


def _image_stem(path: str, images: dict[str, str]) -> str:
    """The image that a mask file belongs to: the one of its own name, else the one of its folder's."""
    stem = _stem(path)
    folder = str(PurePosixPath(path).parent)
    return folder if stem not in images and folder in images else stem


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
