"""WebDataset tars: files that share a name up to its first dot are one sample: an image, and its masks.

    KEY.jpg (png, webp, ...)                the image
    KEY.json                                masks, as `cells.py` understands them: {"annotations": [...]}, ...
    KEY.mask.png, KEY.seg.png, KEY.3.png    mask PNGs; so is KEY.png beside another image
`--masks` is a tar or a folder of tars, `--images` the same folder. Tars are read in place, once, member by member; they
must not be compressed. An image's URI is `shard-000.tar#KEY.jpg`.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePosixPath
from typing import BinaryIO

from pipeline.sources import containers
from pipeline.sources.cells import masks_in
from pipeline.sources.files import MAX_FILE_BYTES, UNREADABLE
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage.containers import TAR, member_uri, tar_files

IMAGES = {suffix.lstrip(".") for suffix in IMAGE_SUFFIXES}


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every sample that has an image. Raises RefusedError for a tar that is damaged or compressed."""
    store, found = containers.find(given, TAR)
    for container in found:
        problem = containers.problem_of(container.path, given.images)
        with store.open(container.path) as file:
            infos = tar_files(file, f"{store.uri}/{container.path}")
            for key, members in groupby(infos, key=lambda info: split_name(info.name)[0]):
                sample = _Sample(key, list(members))
                if sample.image is not None:
                    yield _planned(sample, container.path, file, problem)


def split_name(name: str) -> tuple[str, str]:
    """`a/b.mask.png` -> `a/b`, `mask.png`: the key, and the rest after the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return folder + slash + key, suffix.lower()


class _Sample:
    """The members of one sample by what they are."""

    def __init__(self, key: str, members: list[tarfile.TarInfo]) -> None:
        by_suffix = {split_name(info.name)[1]: info for info in members}
        self.key = key
        self.jsons = [by_suffix[name] for name in sorted(by_suffix) if name.rpartition(".")[2] == "json"]
        pngs = [name for name in by_suffix if name.endswith(".png")]
        candidates = sorted(by_suffix.keys() & IMAGES, key=lambda name: (name == "png", name))
        self.image = by_suffix[candidates[0]] if candidates else None
        self.pngs = [by_suffix[name] for name in sorted({*pngs, *(set(candidates[1:]) & {"png"})})]


def _planned(sample: _Sample, container: str, file: BinaryIO, problem: str | None) -> PlannedImage:
    assert sample.image is not None  # noqa: S101 - `scan` asked
    masks: list[PlannedMask] = []
    digest = hashlib.sha256()
    for info in [*sample.jsons, *sample.pngs]:
        prefix = str(PurePosixPath(info.name).with_suffix(""))
        if info.size > MAX_FILE_BYTES:
            masks.append(PlannedMask(prefix, -1, "", UNREADABLE))
            continue
        file.seek(info.offset_data)
        data = file.read(info.size)
        digest.update(hashlib.sha256(data).digest())
        masks += masks_in(data, prefix, {})
    return PlannedImage(
        image_uri=member_uri(container, sample.image.name),
        source_image_id=sample.key,
        declared_hw=None,
        masks=masks,
        problem=problem,
        digest_extra=digest.hexdigest(),
        member={
            "container": container,
            "offset": sample.image.offset_data,
            "length": sample.image.size,
            "column": None,
        },
    )
