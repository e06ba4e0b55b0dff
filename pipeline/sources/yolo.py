"""YOLO segmentation: `labels/NAME.txt` for `images/NAME.jpg`, a line an object: class x1 y1 x2 y2 ..., in shares of the
image's width and height.

A line of five numbers is a box (class, centre, width, height), which becomes a prompt: its rectangle. So is one of
YOLO pose, where the names' file has `kpt_shape`; its key points are carried as extra. What a tracker or a model adds at
a line's end (confidence, track id) is no corner: it is carried, too. The classes' names are those
of `data.yaml`, `dataset.yaml` or `classes.txt`, in the folder of labels or up to two above it. `--masks` is the folder
of labels, the folder that has it (Ultralytics' and Roboflow's layouts too), or the .yaml in that one. A mask's source
id is the file and the line, from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from pipeline.sources import files, shapes, walks
from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_float, as_int, as_name, brief_value
from pipeline.sources.pairs import stem
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Access, Store, brief

LABELS = "labels"
NAME_FILES = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt")
LIST_FILES = frozenset(("train.txt", "val.txt", "valid.txt", "test.txt", "autosplit_train.txt", "autosplit_val.txt"))
MAX_NAMES_BYTES = 1 << 22
LOOKED_AT = 200
SAMPLED = 32
OUTSIDE = 1.5
"""A coordinate above it is no share of a side; below it, it may be a little outside of the image."""
BOX_VALUES = 4


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the image root with its labels, then the label files that belong to no image."""
    labels = labels_folder(given.masks_uri, given.access)
    below = replace(given, masks_uri=labels)
    told = next(_names_files(labels, given.access, given.coverage), ("", ""))
    names, of_pose = read_names(*told, given.coverage), _key_point_values(*told)
    is_tracked = bool(given.coverage.decide("yolo tracks", lambda: _is_tracked(Store(labels, given.access))))

    def masks_of(path: str, data: bytes) -> list[PlannedMask]:
        lines = data.decode("utf-8-sig", "replace").splitlines()
        lines_with = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
        return [_mask(path, number, words, names, is_tracked, of_pose) for number, words in lines_with]

    yield from files.scan(below, {".txt"}, masks_of, images_without_files=True, beside=beside)
    if walks.location(labels) != walks.location(_folder_of(given.masks_uri)):
        _account_for_the_rest(given, labels)


def beside(path: str) -> str | None:
    """Why a file of the layout is no label file, None for label files."""
    name = PurePosixPath(path).name
    if name in NAME_FILES:
        return "names of classes"
    if name in LIST_FILES and "/" not in path:
        return "a list of images"
    if name.startswith("README"):
        return "by its name"
    return "a cache" if path.endswith(".cache") else None


def labels_folder(masks_uri: str, access: Access) -> str:
    """The folder of the label files."""
    folder = _folder_of(masks_uri)
    return f"{folder}/{LABELS}" if any(Store(f"{folder}/{LABELS}", access).walk()) else folder


def _folder_of(masks_uri: str) -> str:
    folder = masks_uri.rstrip("/")
    return folder.rpartition("/")[0] or "." if folder.endswith((".yaml", ".yml")) else folder


def _account_for_the_rest(given: SourceInput, labels: str) -> None:
    """Everything beside the labels is named."""
    below = f"{LABELS}/"
    for file in walks.listed(replace(given, masks_uri=labels.removesuffix(f"/{LABELS}"))):
        if file.path.startswith(below):
            continue
        if (why := beside(file.path)) is not None:
            given.coverage.ignore(file.path, why)
        elif file.path.startswith("images/") and walks.has_suffix(file.path, IMAGE_SUFFIXES):
            given.coverage.ignore(file.path, walks.AN_IMAGE)
        else:
            given.coverage.leave(file.path, "no part of YOLO's layout")


def read_names(name: str, text: str, coverage: Coverage) -> dict[int, str]:
    """Class index -> name; empty where no file tells. What of it cannot be read is named."""
    names, fault = _names(text.splitlines()) if name.endswith(".txt") else _yaml_names(text)
    if fault:
        coverage.leave(f"{name}: names", "names of classes that cannot be read", fault, "names")
    return names


def _key_point_values(name: str, text: str) -> int:
    """How many numbers of key points stand behind the box of a line; 0 where the labels are not of YOLO pose."""
    try:
        content = yaml.safe_load(text) if name.endswith((".yaml", ".yml")) else None
    except (yaml.YAMLError, RecursionError, ValueError):
        return 0
    shape = content.get("kpt_shape") if isinstance(content, dict) else None
    sides = [as_int(side) or 0 for side in shape] if isinstance(shape, list) else []
    return sides[0] * sides[1] if len(sides) == 2 else 0


def _names_files(labels: str, access: Access, coverage: Coverage) -> Iterator[tuple[str, str]]:
    """Files of class names: name and text, the nearest first."""
    folder = labels
    for _ in range(3):
        for name in NAME_FILES:
            if coverage.is_ignored(name):
                continue
            try:
                yield name, Store(folder, access).read(name)[:MAX_NAMES_BYTES].decode("utf-8-sig", "replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
        folder = folder.rpartition("/")[0]
        if not folder or folder.endswith(("/", ":")):
            break


def _names(found: Mapping[Any, Any] | Sequence[Any]) -> tuple[dict[int, str], str]:
    """Names by number, and what is wrong with the others; "" where nothing is."""
    pairs = [(as_int(key), name) for key, name in (found.items() if isinstance(found, Mapping) else enumerate(found))]
    odd = sum(key is None or key < 0 or isinstance(name, dict | list) for key, name in pairs)
    names = {key: as_name(name).strip() for key, name in pairs if key is not None and key >= 0}
    return names, f"{odd} of {len(pairs)} have no number, or are no name" if odd else ""


def _yaml_names(text: str) -> tuple[dict[int, str], str]:
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return {}, brief(error)
    found = content.get("names", []) if isinstance(content, dict) else []
    return _names(found) if isinstance(found, dict | list) else ({}, f"{brief_value(found)} is no list of names")


@dataclass(frozen=True)
class _Line:
    """A line's corners, and what a model or tracker wrote behind them."""

    points: list[float]
    extra: dict[str, Any]


def _mask(
    path: str, number: int, words: list[str], names: Mapping[int, str], is_tracked: bool, of_pose: int
) -> PlannedMask:
    source_id = f"{stem(path)}#{number}"
    where = f"line {number} of {path}"
    category = as_int(as_float(words[0]))
    if category is None or any(loose_float(word) is None for word in words):
        detail = f"no numbers: {where} begins {' '.join(words)[:40]!r}"
        return PlannedMask(source_id, -1, "", files.UNREADABLE, detail)
    line = _with_key_points(words, of_pose) or _parse(words, is_tracked)
    detail = _fault(line, where)
    text = files.UNREADABLE if detail else json.dumps({"normalized": [_corners(line.points)]}, separators=(",", ":"))
    if not detail and len(line.points) == BOX_VALUES:
        detail = shapes.BOX
    extra = json.dumps(line.extra) if line.extra else ""
    return PlannedMask(source_id, category, names.get(category, ""), text, detail, extra=extra)


def _with_key_points(words: Sequence[str], of_pose: int) -> _Line | None:
    """A line of YOLO pose, perhaps with a confidence behind it; None for any other."""
    values = [float(word) for word in words[1:]]
    behind = len(values) - BOX_VALUES - of_pose
    if not of_pose or behind not in (0, 1):
        return None
    extra = {"keypoints": values[BOX_VALUES : BOX_VALUES + of_pose]} | ({"confidence": values[-1]} if behind else {})
    return _Line(values[:BOX_VALUES], extra)


def _parse(words: Sequence[str], is_tracked: bool) -> _Line:
    """What of a line is corners: pairs of shares; a confidence makes their number odd, a track id even again."""
    values = [float(word) for word in words[1:]]
    if _has_track(words, is_tracked):
        return _Line(values[:-2], {"confidence": values[-2], "track_id": int(values[-1])})
    if len(values) % 2 and len(values) > BOX_VALUES:
        key = "track_id" if _is_integer(words[-1]) and values[-1] > 1 else "confidence"
        return _Line(values[:-1], {key: int(values[-1]) if key == "track_id" else values[-1]})
    return _Line(values, {})


def _has_track(words: Sequence[str], is_tracked: bool) -> bool:
    """Whether a line ends in a confidence and a track id: an integer where a share of a side should be."""
    count = len(words) - 1
    if count % 2 or count < BOX_VALUES + 2 or not _is_integer(words[-1]):
        return False
    return is_tracked or float(words[-1]) > OUTSIDE


def _fault(line: _Line, where: str) -> str:
    """Why a line is no object, "" where it is one."""
    count = len(line.points)
    if count < BOX_VALUES or count % 2:
        return f"too few numbers: {where} has {count} after its class"
    if any(as_float(value) is None for value in line.points):
        return f"no finite numbers: {where}"
    if max(abs(value) for value in line.points) > OUTSIDE:
        return f"no shares: {where} has the coordinate {max(line.points, key=abs):g}; are these pixels?"
    return ""


def _corners(points: list[float]) -> list[float]:
    if len(points) != BOX_VALUES:
        return points
    x, y, width, height = points
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return [left, top, right, top, right, bottom, left, bottom]


def loose_float(word: str) -> float | None:
    """A number, infinite or NaN ones too."""
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _is_integer(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _is_tracked(store: Store) -> bool:
    """Whether lines of the first files end in track ids that are plainly none of the corners."""
    labels = [path for path in walks.some(store, LOOKED_AT) if path.lower().endswith(".txt") and beside(path) is None]
    for path in labels[:SAMPLED]:
        try:
            lines = store.read(path).decode("utf-8-sig", "replace").splitlines()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        if any(
            _has_track(line.split(), False) for line in lines if all(loose_float(w) is not None for w in line.split())
        ):
            return True
    return False
