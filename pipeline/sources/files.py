"""Mask files beside images: read ahead, in order, with everything that is not read named.

What one file holds is its source's business (`png.py`, `class_maps.py`, `cam.py`); which image it belongs to is that of
`pairing.py`. A file that is too large is not read: it becomes one mask that fails, and is counted, when it is loaded;
so does one that is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pipeline.sources import names, pairing, walks
from pipeline.sources.pairs import MaskFile, pairs, stem
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.sources.walks import Beside
from pipeline.storage import Store

BATCH_FILES = 512
MAX_FILE_BYTES = 1 << 29
UNREADABLE = "null"
"""A geometry that fails as `mask_unreadable`."""


class Found(NamedTuple):
    """The masks of a file; and what is odd about it, where its masks do not say so in their details."""

    masks: list[PlannedMask]
    odd: tuple[str, ...] = ()


ReadFile = Callable[[str, bytes], list[PlannedMask] | Found]
"""A mask file's path and content -> the masks in it."""


class _Group(NamedTuple):
    """An image's path with its mask files; and what is wrong with it, if it is not there."""

    image: str
    files: list[MaskFile]
    problem: str | None = None
    detail: str = ""


def scan(
    given: SourceInput,
    suffixes: Collection[str],
    read: ReadFile,
    *,
    images_without_files: bool,
    beside: Beside = walks.nothing_beside,
) -> Iterator[PlannedImage]:
    """The images of the image root with the masks of their files, then the files that belong to no image.

    beside: why other files of these suffixes are no mask files, by their paths.
    """
    store = Store(given.masks_uri, given.access)
    images = walks.ImageFiles(given, suffixes)
    reads = _reads(given, suffixes, beside)
    pattern = given.options.get(pairing.PATTERN)
    rule = pairing.rule_for(
        images, lambda: (f.path for f in store.walk() if reads(f.path)), given.coverage, "files", pattern
    )
    reader = _Reader(given, store, read)
    files = walks.mask_files(given, suffixes, beside)
    with pairs(images, files, rule.of_image, rule.candidates) as paired:
        known = (_Group(path, own) for path, own in paired.images() if own or images_without_files)
        yield from reader.plan_all(known)
        orphans = (_orphan(own, given) for _, own in paired.orphans())
        yield from reader.plan_all(orphans)
    names.say_matches(reader.matched, reader.files, "mask files", given.coverage)


def check(options: Mapping[str, str]) -> dict[str, str]:
    """The options that are the source's own. Raises RefusedError for a pattern that is none."""
    if pairing.PATTERN in options:
        pairing.by_pattern(options[pairing.PATTERN])
    return {name: value for name, value in options.items() if name != pairing.PATTERN}


def _reads(given: SourceInput, suffixes: Collection[str], beside: Beside) -> Callable[[str], bool]:
    """Whether a path is that of a mask file."""
    among = walks.is_same_folder(given) and ".png" in suffixes
    is_among = walks.masks_among(given)

    def reads(path: str) -> bool:
        is_mask = not among or is_among(path)
        return walks.has_suffix(path, suffixes) and beside(path) is None and is_mask

    return reads


def _orphan(files: list[MaskFile], given: SourceInput) -> _Group:
    path = files[0].path
    return _Group(
        path, files, "image_missing", f"--images has no image of the name {stem(path)}" if given.images else ""
    )


class _Reader:
    """Mask files, read ahead and counted."""

    def __init__(self, given: SourceInput, store: Store, read: ReadFile) -> None:
        self._given, self._store, self._read = given, store, read
        self.files = self.matched = 0

    def plan_all(self, groups: Iterable[_Group]) -> Iterator[PlannedImage]:
        """Reads a bounded number of files at a time, and keeps the order."""
        with ThreadPoolExecutor(self._given.threads) as pool:
            for batch in _batches(groups):
                read = pool.map(self._masks_of, [file for group in batch for file in group.files])
                for group in batch:
                    yield self._planned(group, [next(read) for _ in group.files])

    def _masks_of(self, file: MaskFile) -> tuple[Found, str]:
        """The masks of a file, and its part of the digest."""
        if file.size > MAX_FILE_BYTES:
            detail = f"{file.path} has {file.size} bytes, more than {MAX_FILE_BYTES}"
            return Found([PlannedMask(stem(file.path), -1, "", UNREADABLE, detail)]), f"{file.size} bytes"
        try:
            data = self._store.read(file.path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return Found([_gone(file.path)]), "missing"
        read = self._read(file.path, data)
        return read if isinstance(read, Found) else Found(read), hashlib.sha256(data).hexdigest()

    def _planned(self, group: _Group, found: list[tuple[Found, str]]) -> PlannedImage:
        for file, (of_file, _) in zip(group.files, found, strict=True):
            self._given.coverage.take(file.path)
            notes = {mask.detail for mask in of_file.masks if mask.detail}
            for note in (*notes, *of_file.odd):
                self._given.coverage.remark(file.path, _kind_of_note(note))
        self.files += len(group.files)
        self.matched += len(group.files) if group.problem is None else 0
        return PlannedImage(
            image_uri=group.image,
            source_image_id=stem(group.image),
            declared_hw=None,
            masks=[mask for of_file, _ in found for mask in of_file.masks],
            problem=group.problem,
            digest_extra=",".join(digest for _, digest in found),
            detail=group.detail,
        )


def _gone(path: str) -> PlannedMask:
    """A file that was listed and is not there: it fails as `mask_missing` when it is loaded."""
    geometry = json.dumps({"file": path, "value": None})
    return PlannedMask(stem(path), 1, "", geometry, f"gone: {path} is listed and cannot be opened; a link to nothing?")


def _kind_of_note(note: str) -> str:
    """What a note says of all such files; what comes after the colon is of the one."""
    return note.partition(":")[0]


def _batches(groups: Iterable[_Group]) -> Iterator[list[_Group]]:
    batch: list[_Group] = []
    for group in groups:
        batch.append(group)
        if sum(len(one.files) or 1 for one in batch) >= BATCH_FILES:
            yield batch
            batch = []
    if batch:
        yield batch
