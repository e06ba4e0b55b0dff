"""By which part of their paths images and mask files belong together (FileRule), found out where names differ.

`masks/cat.png` is that of `images/cat.jpg`: the same path without suffix. Where no file has such an image, the layouts
that datasets are published in are tried on a sample, and the first that fits most is taken for all files and pinned.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Collection, Iterable
from heapq import nsmallest
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.sources.coverage import Coverage
from pipeline.sources.pairs import stem
from pipeline.sources.types import IMAGE_SUFFIXES

FIRST_FILES = 64
SAMPLE = 1000

_FOLDER_NAMES = """
    images image imgs img jpegimages photos input inputs rgb leftimg8bit image_2 data
    masks mask labels label annotations annotation annot gt gts ground_truth groundtruth gtfine gtcoarse
    segmentation segmentations seg segs semantic instance instances targets labelids segmentationclass
    segmentationobject trainannot matte mattes alpha
"""
_FOLDERS = frozenset(_FOLDER_NAMES.split())
_OF_MASKS = re.compile(
    r"(_gt(fine|coarse)(_polygons|_color|_labeltrainids|_labelids|_instanceids|_instancetrainids)?"
    r"|[_. -](masks?|seg|segmentation|labels?|lab|gt|groundtruth|ground_truth|annotations?|instances?|matte|alpha|l"
    r"|manual1|target|labelids|instanceids|p))$",
    re.IGNORECASE,
)
_BEFORE_MASKS = re.compile(r"^(masks?|seg|segmentation|labels?|gt)[_. -]", re.IGNORECASE)
_OF_IMAGES = re.compile(r"([_. -](leftimg8bit|image|images|img|sat|rgb|photo|input|im|training))$", re.IGNORECASE)
_BEFORE_IMAGES = re.compile(r"^(image|img|photo)[_. -]", re.IGNORECASE)

Key = Callable[[str], str]


class FileRule(NamedTuple):
    """A path without its suffix -> what an image and its mask files have in common."""

    of_image: Key
    of_file: Key
    what: str


def without_words(name: str) -> str:
    """A mask's path without suffix, and without a word such as _mask that says what it is."""
    folders, slash, last = name.rpartition("/")
    return folders + slash + (_BEFORE_MASKS.sub("", _OF_MASKS.sub("", last)) or last)


def _same(name: str) -> str:
    return name


def _without_roles(name: str) -> str:
    """Without the folders that say what is in them: `train/labels/a` and `train/images/a` are `train/a`."""
    *folders, last = name.split("/")
    return "/".join([*(folder for folder in folders if folder.lower() not in _FOLDERS), last])


def _bare(name: str, before: re.Pattern[str], after: re.Pattern[str]) -> str:
    folders, slash, last = _without_roles(name).rpartition("/")
    shorter = before.sub("", after.sub("", last))
    return folders + slash + (shorter or last)


def _bare_image(name: str) -> str:
    return _bare(name, _BEFORE_IMAGES, _OF_IMAGES)


def _bare_file(name: str) -> str:
    return _bare(name, _BEFORE_MASKS, _OF_MASKS)


def _last(key: Key) -> Key:
    return lambda name: key(name).rpartition("/")[2]


RULES: dict[str, FileRule] = {
    "same": FileRule(_same, _same, "the same path"),
    "folders": FileRule(_without_roles, _without_roles, "the same path but for folders such as images and labels"),
    "affixes": FileRule(_bare_image, _bare_file, "the same path but for words such as _mask and _leftImg8bit"),
    "name": FileRule(_last(_bare_image), _last(_bare_file), "the same name in any folder"),
}


def rule_for(images: Collection[str], files: Callable[[], Iterable[str]], coverage: Coverage, what: str) -> FileRule:
    """The rule for the mask files of one folder. files: their paths, gone through twice where they do not match."""
    return RULES[coverage.decide(f"pairs of {what}", lambda: _found(images, files)) or "same"]


def _found(images: Collection[str], files: Callable[[], Iterable[str]]) -> str | None:
    if not len(images):
        return None
    if any(_has_image(path, images) for path in islice(files(), FIRST_FILES)):
        return "same"
    sample = nsmallest(SAMPLE, files(), key=lambda path: (zlib.crc32(path.encode("utf-8", "surrogatepass")), path))
    shares = {name: _matched(rule, sample, images) for name, rule in RULES.items()}
    if not any(shares.values()):
        return None
    return "same" if shares["same"] else max(RULES, key=lambda name: shares[name])


def _has_image(path: str, images: Collection[str]) -> bool:
    names = {stem(path), str(PurePosixPath(path).parent)}
    return any(
        f"{name}{ending}" in images
        for name in names
        for suffix in IMAGE_SUFFIXES
        for ending in (suffix, suffix.upper())
    )


def _matched(rule: FileRule, files: list[str], images: Collection[str]) -> int:
    """How many of the files have an image, 0 where one has several."""
    wanted = {rule.of_file(stem(path)) for path in files} | {rule.of_file(str(PurePosixPath(p).parent)) for p in files}
    found: dict[str, str] = {}
    for path in images:
        key = rule.of_image(stem(path))
        if key not in wanted or PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if found.setdefault(key, stem(path)) != stem(path):
            return 0
    return sum(rule.of_file(stem(p)) in found or rule.of_file(str(PurePosixPath(p).parent)) in found for p in files)
