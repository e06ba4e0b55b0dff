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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from pipeline.decoding import raster
from pipeline.errors import RefusedError
from pipeline.sources import box_forms, containers, segments
from pipeline.sources.box_forms import FormOf
from pipeline.sources.cell_fields import LeftFields, has_words_alone, parsed
from pipeline.sources.cells import Cells
from pipeline.sources.containers import Piece
from pipeline.sources.files import MAX_FILE_BYTES, UNREADABLE
from pipeline.sources.grids import SizeOf
from pipeline.sources.segments import with_segments
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage.containers import TAR, TarFile, member_uri, tar_contents

IMAGES = {suffix.lstrip(".") for suffix in IMAGE_SUFFIXES}
BESIDE = frozenset((".json", ".jsonl", ".yaml", ".yml", ".idx", ".index"))
_OF_IMAGE = re.compile(r"\.(image|img|input|rgb|photo|picture)$", re.IGNORECASE)
_OF_MASK = re.compile(
    r"(?P<key>.+?)"
    r"(?P<word>[._-](masks?|seg|segmentation|labels?|gt|target|annotations?|instances?|alpha|matte|output)|\.\d+)",
    re.IGNORECASE,
)


@dataclass
class _Sample:
    """An image with the members that hold its masks."""

    key: str
    image: TarFile
    jsons: list[TarFile] = field(default_factory=list)
    masks: list[TarFile] = field(default_factory=list)


def scan_piece(given: SourceInput, piece: Piece) -> Iterator[PlannedImage]:
    """Every sample of a tar that has an image. Raises RefusedError for one alone that is damaged or compressed."""
    store = containers.root(given, TAR)
    with store.open(piece.path) as file:
        members, left = _members(file, store.uri, piece.path, given), LeftFields(given.coverage, piece.path)
        samples = _samples(members, piece.path, given)
        form_of = box_forms.of_file(partial(_records, samples, file), piece.path, given.options, given.coverage)
        for sample in samples:
            yield _planned(sample, piece.path, file, piece.problem, given, left, form_of)
        left.tell()


def _members(file: BinaryIO, root: str, path: str, given: SourceInput) -> list[TarFile]:
    """The files of a tar; what is none, or may be missing, is named. Raises RefusedError for a damaged one alone."""
    found = tar_contents(file, f"{root}/{path}")
    if found.problem and containers.is_alone(given, TAR):
        raise RefusedError(found.problem)
    for name, what in found.others:
        given.coverage.leave(member_uri(path, name), what, kind="member")
    if found.problem:
        given.coverage.leave(path, "damaged", found.problem)
    elif found.is_closed:
        given.coverage.take(path)
    else:
        given.coverage.leave(path, "a tar without a mark at its end: it may have been cut; what is there was read")
    return found.files


def _samples(members: list[TarFile], container: str, given: SourceInput) -> list[_Sample]:
    """The samples of a tar, in the order of their images; whatever is part of none is named."""
    last = {member.name: member for member in members}
    stems = {_OF_IMAGE.sub("", split_suffix(name)[0]) for name in last if split_suffix(name)[1] in IMAGES}
    words = {found["word"].lower() for found in map(_mask_of, last) if found and found["key"] in stems}
    words = {word for word in words if not word[1:].isdigit()}  # frames of a film are numbered, too
    samples: dict[str, _Sample] = {}
    for member in sorted(last.values(), key=lambda one: split_suffix(one.name)[1] == "png"):
        if _is_image(member.name, stems, words):
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


def _mask_of(name: str) -> re.Match[str] | None:
    """The key and the word after it, where an image's name is like a mask's."""
    stem, suffix = split_suffix(name)
    return _OF_MASK.fullmatch(stem) if suffix in IMAGES else None


def _is_image(name: str, stems: set[str], words: set[str]) -> bool:
    """Whether a member is an image, rather than a mask of one. words: that masks of images in the tar have there."""
    stem, suffix = split_suffix(name)
    if suffix not in IMAGES:
        return False
    found = _mask_of(name)
    if found and (found["key"] in stems or (suffix == "png" and found["word"].lower() in words)):
        return False
    own = _OF_IMAGE.sub("", stem)
    return suffix != "png" or not any(key in stems for key in _prefixes(own))


def _join(member: TarFile, samples: dict[str, _Sample]) -> str | None:
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


def _is_of_words(data: bytes) -> bool:
    """Whether JSON is a caption and the like: no numbers in lists, and nothing with fields of its own."""
    content = parsed(data)
    if not isinstance(content, Mapping) or not has_words_alone(content):
        return False
    lists = [value for value in content.values() if isinstance(value, list)]
    is_flat = not any(isinstance(value, Mapping) for value in content.values())
    return is_flat and all(isinstance(one, str) for value in lists for one in value)


def _segments_in(data: bytes) -> Any:
    """What JSON says of the segments in the mask image beside it; None where it says other things."""
    content = parsed(data)
    return content.get(segments.FIELD) if isinstance(content, Mapping) and has_words_alone(content) else None


def _records(samples: list[_Sample], file: BinaryIO) -> Iterator[tuple[bytes, SizeOf]]:
    """The JSON of the samples, and who knows the (H, W) of their images."""
    for sample in samples:
        for member in sample.jsons:
            if member.length <= MAX_FILE_BYTES:
                file.seek(member.offset)
                yield file.read(member.length), _size_of(sample, file)


def _size_of(sample: _Sample, file: BinaryIO) -> SizeOf:
    @cache
    def size_of() -> tuple[int, int] | None:
        file.seek(sample.image.offset)
        return raster.size_hw(file.read(sample.image.length))

    return size_of


def _planned(
    sample: _Sample,
    container: str,
    file: BinaryIO,
    problem: str | None,
    given: SourceInput,
    left: LeftFields,
    form_of: FormOf,
) -> PlannedImage:
    size_of = _size_of(sample, file)
    masks: list[PlannedMask] = []
    ids: Any = None
    digest = hashlib.sha256()
    for member in [*sample.jsons, *sample.masks]:
        prefix = str(PurePosixPath(member.name).with_suffix(""))
        if member.length > MAX_FILE_BYTES:
            detail = f"{member.name} has {member.length} bytes, more than {MAX_FILE_BYTES}"
            masks.append(PlannedMask(prefix, -1, "", UNREADABLE, detail))
            continue
        file.seek(member.offset)
        data = file.read(member.length)
        uri = member_uri(container, member.name)
        tell = partial(given.coverage.remark, uri)
        if sample.masks and member in sample.jsons and _is_of_words(data):
            tell("JSON without masks, beside images of masks")
            continue
        digest.update(hashlib.sha256(data).digest())
        if sample.masks and member in sample.jsons and (found := _segments_in(data)) is not None:
            ids = found
            continue
        cells = Cells(tell=tell, size_of=size_of, left=left, where=uri, form_of=form_of)
        masks += with_segments(cells.masks_in(data, prefix), ids, {}, tell)
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
            "length": sample.image.length,
            "column": None,
        },
    )
