"""What sources take and give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.decoding.raster import SUFFIXES
from pipeline.sources.coverage import Coverage
from pipeline.storage import Access, StoredFile
from pipeline.storage.containers import Member

IMAGE_SUFFIXES = SUFFIXES


@dataclass(frozen=True)
class PlannedMask:
    """One coarse mask as its source says it; `geometry` is JSON (see `coarse.py`).

    detail: what is wrong or odd, "" for nothing. crowd: a region of many objects. extra: JSON of an object, what else
    the source says of it, "" for nothing.
    """

    source_mask_id: str
    category_id: int
    category: str
    geometry: str
    detail: str = ""
    crowd: bool = False
    extra: str = ""


@dataclass(frozen=True)
class PlannedImage:
    """One image with its masks.

    image_uri: path relative to the image root, also the image's id. declared_hw: the size the source states.
    problem: reason code where the image cannot even be looked for. digest_extra: enters the digest of the masks
    (content of files that `geometry` only names). member: where the image stands in a container. detail, extra: as of a
    mask.
    """

    image_uri: str
    source_image_id: str
    declared_hw: tuple[int, int] | None
    masks: list[PlannedMask] = field(default_factory=list)
    problem: str | None = None
    digest_extra: str = ""
    member: Member | None = None
    detail: str = ""
    extra: str = ""


@dataclass(frozen=True)
class SourceInput:
    """masks_uri: what `--masks` names; images: the listed image root by path, empty where it cannot be listed; options:
    those of the source itself, as they were written (see `sources.parse`); coverage: to be told of everything that is
    found; images_uri: the image root, where it is known; within: a listing of `--masks` -> as much of it as is read.
    """

    masks_uri: str
    access: Access
    images: Mapping[str, StoredFile]
    threads: int = 8
    options: Mapping[str, str] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    images_uri: str = ""
    within: Callable[[Iterable[StoredFile]], Iterator[StoredFile]] = iter
