"""What exports take and give.

The numbers of images, and those of masks, in an export are the source's where they are integers and all differ, so
that a COCO result can be held against its ground truth; else they count from 1 in the result's order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import pyarrow.compute as pc

from pipeline.dataset import Result, filter_expression
from pipeline.dataset.by_image import Group, Row, read_group
from pipeline.exports.names import Names
from pipeline.exports.own_files import OwnFiles
from pipeline.storage import Store

T = TypeVar("T")

MASK_COLUMNS = [
    "mask_id",
    "source_mask_id",
    "category_id",
    "category",
    "mask_rle",
    "bbox_xywh",
    "area",
    "decision",
    "quality",
    "crowd",
    "extra",
]


@dataclass(frozen=True)
class Options:
    """What to export, and how.

    splits: (name, share), empty for one undivided export. polygons: instead of RLE. void: URI of class maps whose void
    stays. with_images: copy the images. rejected: ids of masks that a person rejected: left out.
    """

    min_quality: float | None = None
    decisions: tuple[str, ...] = ()
    where: str | None = None
    splits: tuple[tuple[str, float], ...] = ()
    keep_empty: bool = False
    polygons: bool = False
    void: str | None = None
    with_images: bool = False
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What an export must know of the whole result before its first file.

    categories: class id -> name; class_ids: (category_id, category) of a mask -> class id (they differ where one id has
    several names). own_image_ids, own_mask_ids: the source's ids serve as numbers. names: of the files that an image
    has. dataset: what the source said of it as a whole.
    """

    categories: dict[int, str]
    class_ids: dict[tuple[int, str], int]
    own_image_ids: bool
    own_mask_ids: bool
    names: Names
    dataset: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Names of the classes in the order of their ids; those of the same name are one label."""
        return list(dict.fromkeys(name for _, name in sorted(self.categories.items())))


@dataclass(frozen=True)
class ExportImage:
    """One image and its selected masks, rows of MASK_COLUMNS with `number` and `class_id` added and
    `extra` parsed.

    left_out: class ids of masks that the image has and the selection does not take. extra: the source's other fields.
    source_id: the image's id in the source.
    """

    number: int
    image_id: str
    source_id: str
    uri: str
    height: int
    width: int
    split: str
    masks: list[Row]
    left_out: list[int]
    extra: Row = field(default_factory=dict)


@dataclass
class Piece:
    """What writing one group, or finishing, did. files: relative to the target; lost: what the format cannot hold.

    unread: image uri -> what of it should be in the export and could not be read. It makes the exit code 3, and a later
    run tries it again.
    """

    files: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    images_of: Counter[str] = field(default_factory=Counter)  # "split/class id" -> images that have the class
    masks_of: Counter[str] = field(default_factory=Counter)
    fragments: list[str] = field(default_factory=list)  # names of the group's files that `finish` joins
    unread: dict[str, str] = field(default_factory=dict)

    def leave_out(self, what: str, number: int) -> None:
        """Count what is not exported."""
        if number:
            self.counts[f"left out: {what}"] += number

    def miss(self, uri: str, what: str, why: str) -> None:
        """Count, and name, what could not be read. what: as it is counted; why: of this image."""
        self.leave_out(what, 1)
        self.unread[uri] = why

    def lose(self, what: str, number: int) -> None:
        """Count what the format cannot hold."""
        if number:
            self.lost[what] += number

    def count(self, image: ExportImage) -> None:
        """Count an image that was written, and its masks."""
        self.counts.update({"images": 1, "masks": len(image.masks)})
        classes = [f"{image.split}/{mask['class_id']}" for mask in image.masks]
        self.masks_of.update(classes)
        self.images_of.update(sorted(set(classes)))  # a set has another order in each process


@dataclass(frozen=True)
class Job:
    """One export; picklable. images: the root to read images from."""

    result: Result
    target: OwnFiles
    images: Store
    options: Options
    survey: Survey

    @property
    def splits(self) -> list[str]:
        """Names of the splits; one empty name for an undivided export."""
        return [name for name, _ in self.options.splits] or [""]

    def read(self, group: Group, piece: Piece, with_unknown: bool = False) -> Iterator[ExportImage]:
        """The images of one group that are exported; what is left out is counted in `piece`.

        Failed images are not. Nor are those of which the selection leaves no mask (to a trainer they would look like
        background), unless they never had one or `keep_empty` says so. with_unknown: both are, if their size is known,
        in a format that says of every pixel whether it is known.
        """
        for number, image, masks in read_group(self.result, group, MASK_COLUMNS, selection(self.options)):
            taken = [self._numbered(mask) for mask in masks if mask["taken"]]
            failed = sum(mask["decision"] == "failed" for mask in masks)
            is_ok = image["status"] == "ok" or (with_unknown and bool(image["height"] and image["width"]))
            dropped = is_ok and bool(masks) and not taken and not (self.options.keep_empty or with_unknown)
            piece.leave_out("failed images", not is_ok)
            piece.leave_out("images of which no mask is selected", dropped)
            piece.leave_out("failed masks", failed)
            piece.leave_out("masks not selected", len(masks) - len(taken) - failed)
            if not is_ok or dropped:
                continue
            yield ExportImage(
                number=int(image["source_image_id"]) if self.survey.own_image_ids else number + 1,
                image_id=image["image_id"],
                source_id=image.get("source_image_id") or "",
                uri=image["image_uri"],
                height=image["height"],
                width=image["width"],
                split=split_of(image["image_id"], self.options.splits),
                masks=taken,
                left_out=sorted({self._class_id(mask) for mask in masks if not mask["taken"]}),
                extra=parse_extra(image.get("extra")),
            )

    def _numbered(self, mask: Row) -> Row:
        number = int(mask["source_mask_id"]) if self.survey.own_mask_ids else mask["number"] + 1
        extra = parse_extra(mask["extra"])
        return {**mask, "number": number, "class_id": self._class_id(mask), "extra": extra}

    def _class_id(self, mask: Row) -> int:
        return self.survey.class_ids[mask["category_id"], mask["category"] or ""]


def _accept(_job: Job) -> None:
    """Every job is one that the format can hold."""


def _never(_job: Job, _image: ExportImage) -> bool:
    """Nothing that the format reads could be missing."""
    return False


class Export(NamedTuple):
    """One format. write: one group to its files; finish: what goes over all groups, called once when all are written.

    Both may be repeated after an interruption. copies_images: whether images are part of the format; names_images:
    whether it says where they are; has_void: whether it can hold the void of class maps. check: raises RefusedError,
    before anything is written, for what the format cannot hold. can_read: whether what was unread of an image
    (`Piece.unread`) is there now.
    """

    write: Callable[[Job, Group, int], Piece]
    finish: Callable[[Job, Sequence[Piece]], Piece]
    copies_images: bool = False
    names_images: bool = False
    has_void: bool = False
    check: Callable[[Job], None] = _accept
    can_read: Callable[[Job, ExportImage], bool] = _never


def selection(options: Options) -> pc.Expression:
    """The masks that are exported: never failed ones. Raises RefusedError for a filter that is none."""
    taken = pc.field("mask_rle").is_valid()
    if options.min_quality is not None:
        taken &= pc.field("quality") >= options.min_quality
    if options.decisions:
        taken &= pc.field("decision").isin(list(options.decisions))
    if options.rejected:
        taken &= ~pc.field("mask_id").isin(list(options.rejected))
    return taken if options.where is None else taken & filter_expression.parse(options.where)


def parse_extra(text: str | None) -> Row:
    """The fields that a source carried."""
    return dict(json.loads(text)) if text else {}


def split_of(image_id: str, splits: Sequence[tuple[str, float]]) -> str:
    """The split of an image, by the hash of its id: the same in every export with the same shares."""
    if not splits:
        return ""
    place = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") / 2**64
    for name, share in splits:
        place -= share
        if place < 0:
            return name
    return splits[-1][0]


def named(stem: str, split: str, suffix: str) -> str:
    """`stem.suffix`, or `stem_split.suffix` where there are splits."""
    return f"{stem}_{split}{suffix}" if split else f"{stem}{suffix}"


def in_split(split: str, path: str) -> str:
    """A path, in the folder of the split where there are splits."""
    return f"{split}/{path}" if split else path


def batches(images: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size`, in order."""
    left = iter(images)
    while batch := list(islice(left, size)):
        yield batch


def as_json(piece: Piece) -> dict[str, Any]:
    """For the record of what is done."""
    return {name: value if isinstance(value, list) else dict(value) for name, value in vars(piece).items()}


def from_json(content: dict[str, Any]) -> Piece:
    """The inverse of `as_json`."""
    counters = {name: Counter(content[name]) for name in ("counts", "lost", "images_of", "masks_of")}
    unread = content.get("unread", {})
    return Piece(files=content["files"], fragments=content.get("fragments", []), unread=unread, **counters)
