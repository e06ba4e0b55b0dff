"""YOLO segmentation: `labels/NAME.txt` for `images/NAME.jpg`, a line an object: class x1 y1 x2 y2 ..., in shares of the
image's width and height.

A line of five numbers is a box (class, centre, width, height) and becomes its rectangle. The classes' names are those
of `data.yaml`, `dataset.yaml` or `classes.txt`, in the folder of labels or up to two above it. `--masks` is the folder
of labels, the folder that has it, or the .yaml in that one. A mask's source id is the file and the line, from 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import yaml

from pipeline.sources import files
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Access, Store

LABELS = "labels"
NAME_FILES = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt")


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image of the image root with its labels, then the label files that belong to no image."""
    labels = labels_folder(given.masks_uri, given.access)
    names = read_names(labels, given.access)

    def masks_of(path: str, data: bytes) -> list[PlannedMask]:
        if path in NAME_FILES:
            return []
        lines = data.decode("utf-8", "replace").splitlines()
        return [_mask(path, number, line.split(), names) for number, line in enumerate(lines, 1) if line.strip()]

    for image in files.scan(replace(given, masks_uri=labels), {".txt"}, masks_of, images_without_files=True):
        if image.masks or image.problem is None:  # classes.txt is no image's
            yield image


def labels_folder(masks_uri: str, access: Access) -> str:
    """The folder of the label files."""
    folder = masks_uri.rstrip("/")
    if folder.endswith((".yaml", ".yml")):
        folder = folder.rpartition("/")[0] or "."
    return f"{folder}/{LABELS}" if any(Store(f"{folder}/{LABELS}", access).walk()) else folder


def read_names(labels: str, access: Access) -> dict[int, str]:
    """Class index -> name; empty where no file tells."""
    folder = labels
    for _ in range(3):
        for name in NAME_FILES:
            try:
                text = Store(folder, access).read(name).decode("utf-8", "replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
            return _names(text, is_yaml=not name.endswith(".txt"))
        folder = folder.rpartition("/")[0]
        if not folder or folder.endswith(("/", ":")):
            break
    return {}


def _names(text: str, is_yaml: bool) -> dict[int, str]:
    found = text.splitlines() if not is_yaml else _yaml_names(text)
    pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
    return {int(str(index)): str(name).strip() for index, name in pairs if str(index).isdigit()}


def _yaml_names(text: str) -> Mapping[object, object] | list[object]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return []
    names = content.get("names") if isinstance(content, dict) else None
    return names if isinstance(names, dict | list) else []


def _mask(path: str, number: int, words: list[str], names: Mapping[int, str]) -> PlannedMask:
    source_id = f"{stem(path)}#{number}"
    try:
        values = [float(word) for word in words]
        category = int(values[0])
    except (ValueError, OverflowError):
        return PlannedMask(source_id, -1, "", files.UNREADABLE)
    points = values[1:]
    if len(points) == 4:
        x, y, width, height = points
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        points = [left, top, right, top, right, bottom, left, bottom]
    usable = len(points) >= 6 and len(points) % 2 == 0 and all(math.isfinite(value) for value in points)
    text = json.dumps({"normalized": [points]}, separators=(",", ":")) if usable else files.UNREADABLE
    return PlannedMask(source_id, category, names.get(category, ""), text)
