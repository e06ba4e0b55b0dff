"""By which part of their paths images and mask files belong together (FileRule), found out where names differ.

`masks/cat.png` is that of `images/cat.jpg`: the same path without suffix. Where no file has such an image, the layouts
that datasets are published in are tried on a sample, and the first that fits most is taken for all files and pinned.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from heapq import nsmallest
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.errors import RefusedError
from pipeline.sources.coverage import Coverage
from pipeline.sources.pairs import stem
from pipeline.sources.types import IMAGE_SUFFIXES

FIRST_FILES = 64
SAMPLE = 1000
STEM = "{stem}"
PATTERN = "files"
"""The option that says how mask files are named, of all sources that read such."""
SEPARATORS = frozenset("_-. ")

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
    r"|manual1|target|labelids|instanceids|p|parts_\d{1,3}))$",
    re.IGNORECASE,
)
_BEFORE_MASKS = re.compile(r"^(masks?|seg|segmentation|labels?|gt)[_. -]", re.IGNORECASE)
_OF_IMAGES = re.compile(r"([_. -](leftimg8bit|image|images|img|sat|rgb|photo|input|im|training))$", re.IGNORECASE)
_BEFORE_IMAGES = re.compile(r"^(image|img|photo)[_. -]", re.IGNORECASE)

Key = Callable[[str], str]


Shorter = Callable[[str], Iterator[str]]
"""A mask file's path without its suffix -> those of images that it may be longer than, the longest first."""


def _nothing_shorter(_name: str) -> Iterator[str]:
    return iter(())


class FileRule(NamedTuple):
    """A path without its suffix -> what an image and its mask files have in common.

    shorter: of files that belong to no image as they are: what else to look for.
    """

    of_image: Key
    of_file: Key
    what: str
    shorter: Shorter = _nothing_shorter

    def candidates(self, path: str) -> Iterator[str]:
        """What the image of a mask file may have, likeliest first; path: with its suffix."""
        yield self.of_file(stem(path))
        yield self.of_file(str(PurePosixPath(path).parent))
        yield from self.shorter(stem(path))


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


def _cut(name: str) -> Iterator[str]:
    """`cat_mask_2` -> `cat_mask`, `cat`."""
    folders, slash, last = _without_roles(name).rpartition("/")
    return (f"{folders}{slash}{last[:at]}" for at in range(len(last) - 1, 0, -1) if last[at] in SEPARATORS)


def by_pattern(pattern: str) -> FileRule:
    """The rule that names of mask files say: `{stem}_*` for `cat_1.png` of `cat.jpg`. Raises RefusedError."""
    shorter = stems_by(pattern)
    return FileRule(
        _without_roles, lambda _name: "", f"the pattern {pattern}", lambda name: shorter(_without_roles(name))
    )


def stems_by(pattern: str) -> Shorter:
    """As `by_pattern`, of paths as they are. Raises RefusedError."""
    before, found, after = pattern.partition(STEM)
    if not found or STEM in after or "/" in pattern:
        raise RefusedError(f"files={pattern}: it has to hold {STEM} once, and no folder, as in {STEM}_*")
    ending = after.removesuffix(next((one for one in IMAGE_SUFFIXES if after.endswith(one)), ""))

    def shorter(name: str) -> Iterator[str]:
        folders, slash, last = name.rpartition("/")
        if last.startswith(before):
            ends = range(len(last), len(before), -1)
            yield from (f"{folders}{slash}{last[len(before) : at]}" for at in ends if fnmatchcase(last[at:], ending))

    return shorter


def _shared_folder(name: str) -> str:
    """`1/images/a` and `1/masks/x` are both `1/`: of folders that hold an image each."""
    parts = name.split("/")
    return f"{'/'.join(parts[:-2])}/" if len(parts) > 2 and parts[-2].lower() in _FOLDERS else name


RULES: dict[str, FileRule] = {
    "same": FileRule(_same, _same, "the same path"),
    "folders": FileRule(_without_roles, _without_roles, "the same path but for folders such as images and labels"),
    "affixes": FileRule(_bare_image, _bare_file, "the same path but for words such as _mask and _leftImg8bit"),
    "name": FileRule(_last(_bare_image), _last(_bare_file), "the same name in any folder"),
    "folder": FileRule(_shared_folder, _shared_folder, "the folder that they share: 1/images/a and 1/masks/x"),
    "longer": FileRule(_without_roles, _without_roles, "names that go on after the image's: cat_1 of cat", _cut),
}


def rule_for(
    images: Collection[str],
    files: Callable[[], Iterable[str]],
    coverage: Coverage,
    what: str,
    pattern: str | None = None,
) -> FileRule:
    """The rule for the mask files of one folder. files: their paths, gone through twice where they do not match.

    pattern: as of `by_pattern`, where it is stated.
    """
    if pattern is not None:
        return by_pattern(pattern)
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
    wanted = {name for path in files for name in rule.candidates(path)}
    found: dict[str, str] = {}
    for path in images:
        key = rule.of_image(stem(path))
        if key not in wanted or PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if found.setdefault(key, stem(path)) != stem(path):
            return 0
    return sum(any(name in found for name in rule.candidates(path)) for path in files)
