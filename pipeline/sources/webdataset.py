"""WebDataset tars: a sample is the members of one key, and has an image.

    KEY.jpg (png, webp, ...), KEY.image.jpg, KEY.input.jpg   the image
    KEY.json                                masks, as `cells.py` understands them: {"annotations": [...]}, ...
    KEY.mask.png, KEY.seg.png, KEY.3.png    mask images; so is KEY.png beside another image
Members may stand in any order, and keys may have dots: the key of a sample is its image's name. `--masks` is a tar or a
folder of tars, `--images` the same folder. Tars are read in place; they must not be compressed. An image's URI is
`shard-000.tar#KEY.jpg`. Members that belong to no image, or hold no masks, are named.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from pipeline.errors import RefusedError
from pipeline.sources import containers
from pipeline.sources.cells import masks_in
from pipeline.sources.containers import Piece
from pipeline.sources.files import MAX_FILE_BYTES, UNREADABLE
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage.containers import TAR, member_uri, tar_files

IMAGES = {suffix.lstrip(".") for suffix in IMAGE_SUFFIXES}
BESIDE = frozenset((".json", ".jsonl", ".yaml", ".yml", ".idx", ".index"))
_OF_IMAGE = re.compile(r"\.(image|img|input|rgb|photo|picture)$", re.IGNORECASE)
_OF_MASK = re.compile(
    r"(?P<key>.+?)([._-](masks?|seg|segmentation|labels?|gt|target|annotations?|instances?|alpha|matte|output)|\.\d+)",
    re.IGNORECASE,
)


class _Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    size: int


@dataclass
class _Sample:
    """An image with the members that hold its masks."""

    key: str
    image: _Member
    jsons: list[_Member] = field(default_factory=list)
    masks: list[_Member] = field(default_factory=list)


def scan_piece(given: SourceInput, piece: Piece) -> Iterator[PlannedImage]:
    """Every sample of a tar that has an image. Raises RefusedError for one alone that is damaged or compressed."""
    store = containers.root(given, TAR)
    with store.open(piece.path) as file:
        members: list[_Member] = []
        try:
            for info in tar_files(file, f"{store.uri}/{piece.path}"):
                members.append(_Member(info.name, info.offset_data, info.size))
        except RefusedError as error:
            if containers.is_alone(given, TAR):
                raise
            given.coverage.leave(piece.path, "damaged", str(error))
        else:
            given.coverage.take(piece.path)
        for sample in _samples(members, piece.path, given):
            yield _planned(sample, piece.path, file, piece.problem)


def _samples(members: list[_Member], container: str, given: SourceInput) -> list[_Sample]:
    """The samples of a tar, in the order of their images; whatever is part of none is named."""
    last = {member.name: member for member in members}
    stems = {_OF_IMAGE.sub("", split_suffix(name)[0]) for name in last if split_suffix(name)[1] in IMAGES}
    samples: dict[str, _Sample] = {}
    for member in sorted(last.values(), key=lambda one: split_suffix(one.name)[1] == "png"):
        if _is_image(member.name, stems):
            samples.setdefault(_key(member.name), _Sample(_key(member.name), member))
    images = {sample.image.name for sample in samples.values()}
    for member in members:
        uri = member_uri(container, member.name)
        why = "a later member has its name" if last[member.name] is not member else None
        if member.name not in images and why is None:
            why = _join(member, samples)
        if why is None:
            given.coverage.take(uri, "member")
        else:
            given.coverage.leave(uri, why, kind="member")
    for sample in samples.values():
        sample.jsons.sort(key=lambda member: member.name.lower())
        sample.masks.sort(key=lambda member: member.name.lower())
    return sorted(samples.values(), key=lambda sample: sample.image.offset)


def _is_image(name: str, stems: set[str]) -> bool:
    """Whether a member is an image, rather than a mask of one."""
    stem, suffix = split_suffix(name)
    if suffix not in IMAGES:
        return False
    found = _OF_MASK.fullmatch(stem)
    if found and found["key"] in stems:
        return False
    own = _OF_IMAGE.sub("", stem)
    return suffix != "png" or not any(key in stems for key in _prefixes(own))


def _join(member: _Member, samples: dict[str, _Sample]) -> str | None:
    """Add a member to its sample, or say why it is part of none."""
    stem, suffix = split_suffix(member.name)
    found = _OF_MASK.fullmatch(stem)
    keys = [stem, *_prefixes(stem), *([found["key"]] if found else [])]
    sample = next((samples[key] for key in keys if key in samples), None)
    if sample is None:
        return "a member without an image"
    if suffix == "json":
        sample.jsons.append(member)
    elif suffix in IMAGES and (suffix == "png" or found):
        sample.masks.append(member)
    else:
        return "a second image of one key" if suffix in IMAGES else "a member that holds no masks"
    return None


def _key(name: str) -> str:
    return _OF_IMAGE.sub("", split_suffix(name)[0])


def _prefixes(stem: str) -> list[str]:
    """`a/b.c.d` -> `a/b.c`, `a/b`."""
    folder, slash, last = stem.rpartition("/")
    parts = last.split(".")
    return [folder + slash + ".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def split_suffix(name: str) -> tuple[str, str]:
    """`a/b.mask.png` -> `a/b.mask`, `png`."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.rpartition(".")
    return (folder + slash + stem, suffix.lower()) if stem else (name, "")


def _planned(sample: _Sample, container: str, file: BinaryIO, problem: str | None) -> PlannedImage:
    masks: list[PlannedMask] = []
    digest = hashlib.sha256()
    for member in [*sample.jsons, *sample.masks]:
        prefix = str(PurePosixPath(member.name).with_suffix(""))
        if member.size > MAX_FILE_BYTES:
            detail = f"{member.name} has {member.size} bytes, more than {MAX_FILE_BYTES}"
            masks.append(PlannedMask(prefix, -1, "", UNREADABLE, detail))
            continue
        file.seek(member.offset)
        data = file.read(member.size)
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
            "offset": sample.image.offset,
            "length": sample.image.size,
            "column": None,
        },
    )
