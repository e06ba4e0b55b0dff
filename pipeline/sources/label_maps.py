"""Files that say which value or colour of a mask image is which class, as tools put them beside the images.

    labelmap.txt            CVAT, datumaro:  name:r,g,b:parts:actions, a line a class
    class_dict.csv          CamVid:          name,r,g,b under a head
    label_colors.txt        CamVid:          r g b name
    config.json, config_v1.2.json, ...       Mapillary Vistas: {"labels": [{"name", "readable", "color", "instances"}]}
    _classes.csv            Roboflow:        pixel value,name under a head
    objectInfo150.txt       ADE20K:          tab-separated, id first and name last
    any .json by option     {name: [r, g, b]}, or a list of {name, color, id?}
Classes are numbered from 0 where the first one is the background, else from 1; where a file gives ids, they are those.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipeline.errors import RefusedError, StorageError
from pipeline.sources import tables
from pipeline.sources.fields import as_int, as_list, as_name
from pipeline.storage import Access, Store, split_uri

FOLDERS_UP = 3
MAX_BYTES = 1 << 24
BACKGROUNDS = frozenset(("background", "void", "unlabelled", "unlabeled", "ignore", "_background_", "bg"))


@dataclass(frozen=True)
class LabelMap:
    """names: category id -> name. colours: packed colour (R + 256 G + 65536 B) -> category id; 0 is background.

    background: whether 0 stands for no class. file: where it comes from, "" for a map of nothing.
    """

    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, int] = field(default_factory=dict)
    background: bool = True
    file: str = ""


NOTHING = LabelMap()


def find(folder: str, access: Access) -> LabelMap:
    """The label map of a folder of masks: in it, or in one of the folders above."""
    for up in range(FOLDERS_UP):
        for name, parse in READERS.items():
            data = _read(Store(folder, access), name, may_be_closed=up > 0)
            if data and (found := parse(data[:MAX_BYTES].decode("utf-8-sig", "replace"), name)).names:
                return found
        folder = folder.rstrip("/").rpartition("/")[0]
        if not folder or folder.endswith(("/", ":")):
            break
    return NOTHING


def read(uri: str, access: Access) -> LabelMap:
    """The label map in a file of any name. Raises RefusedError for what is none."""
    store, name = split_uri(uri, access)
    data = _read(store, name, may_be_closed=False)[:MAX_BYTES]
    text = data.decode("utf-8-sig", "replace")
    by_suffix = (_of_json, _mapillary) if name.lower().endswith(".json") else TABLES
    for parse in [READERS[name]] if name in READERS else by_suffix:
        if (found := parse(text, name)).names:
            return found
    raise RefusedError(f"labels={uri} is no label map: it {'holds no class' if data else 'does not exist'}")


def _read(store: Store, name: str, may_be_closed: bool) -> bytes:
    """A file's bytes, b"" for none. may_be_closed: who reads the masks need not be allowed to read what is above."""
    try:
        return store.read(name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return b""
    except (StorageError, PermissionError):
        if may_be_closed:
            return b""
        raise


def is_label_map(path: str) -> bool:
    """Whether a file is one of these by its name."""
    return path.rpartition("/")[2] in READERS


def packed(red: int, green: int, blue: int) -> int:
    """A colour as one number."""
    return red + 256 * green + 65536 * blue


def _numbered(classes: Iterable[tuple[str, tuple[int, int, int] | None]], file: str) -> LabelMap:
    """Classes in their order -> ids."""
    found = list(classes)
    first = bool(found) and found[0][0].strip().lower() in BACKGROUNDS
    names: dict[int, str] = {}
    colours: dict[int, int] = {}
    for number, (name, colour) in enumerate(found, 0 if first else 1):
        is_background = name.strip().lower() in BACKGROUNDS and (colour in (None, (0, 0, 0)) or number == 0)
        if colour is not None:
            colours[packed(*colour)] = 0 if is_background else number
        if not is_background:
            names[number] = name.strip()
    return LabelMap(names, colours, True, file)


def _rgb(words: Iterable[str]) -> tuple[int, int, int] | None:
    values = [as_int(word) for word in words]
    red, green, blue = [*values, None, None, None][:3]
    if red is None or green is None or blue is None or not all(0 <= value <= 255 for value in (red, green, blue)):
        return None
    return red, green, blue


def _labelmap(text: str, file: str) -> LabelMap:
    lines = (line.split(":") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return _numbered(((parts[0], _rgb(parts[1].split(","))) for parts in lines if len(parts) > 1), file)


def _class_dict(text: str, file: str) -> LabelMap:
    rows = [row for row in csv.reader(tables.wide(text.splitlines())) if len(row) >= 4]
    found = [(row[0], _rgb(row[1:4])) for row in rows]
    return _numbered([one for one in found if one[1] is not None], file)


def _label_colors(text: str, file: str) -> LabelMap:
    lines = (re.split(r"\s+", line.strip(), maxsplit=3) for line in text.splitlines())
    found = [(words[3], _rgb(words[:3])) for words in lines if len(words) == 4]
    return _numbered([one for one in found if one[1] is not None], file)


def _mapillary(text: str, file: str) -> LabelMap:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return NOTHING
    labels = as_list(content.get("labels")) if isinstance(content, dict) else []
    entries = [label if isinstance(label, dict) else {} for label in labels]
    if not any("readable" in entry for entry in entries):
        return NOTHING
    names = {
        number: as_name(entry.get("readable")) or as_name(entry.get("name")) for number, entry in enumerate(entries)
    }
    colours = {
        packed(*colour): number
        for number, entry in enumerate(entries)
        if (colour := _rgb(map(str, as_list(entry.get("color")))))
    }
    return LabelMap(names, colours, False, file)


def _of_json(text: str, file: str) -> LabelMap:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return NOTHING
    if isinstance(content, dict):
        content = [{"name": name, "color": colour} for name, colour in content.items()]
    entries = [entry for entry in as_list(content) if isinstance(entry, dict) and as_name(entry.get("name"))]
    found = [(as_name(entry["name"]), _rgb(map(str, as_list(entry.get("color"))))) for entry in entries]
    if not entries or not all("id" in entry for entry in entries):
        return _numbered([one for one in found if one[1] is not None], file)
    numbers = [as_int(entry["id"]) for entry in entries]
    pairs = [(number, *one) for number, one in zip(numbers, found, strict=True) if number is not None]
    colours = {packed(*colour): number for number, _, colour in pairs if colour is not None}
    return LabelMap({number: name for number, name, _ in pairs}, colours, True, file)


def _object_info(text: str, file: str) -> LabelMap:
    rows = [line.split("\t") for line in text.splitlines()]
    names = {number: row[-1].strip() for row in rows if (number := as_int(row[0])) is not None and len(row) > 1}
    return LabelMap(names, {}, True, file)


def _classes(text: str, file: str) -> LabelMap:
    rows = [[word.strip() for word in row] for row in csv.reader(tables.wide(text.splitlines()))]
    if not rows or [word.lower() for word in rows[0]] != ["pixel value", "class"]:
        return NOTHING
    found = {number: row[1] for row in rows if len(row) == 2 and (number := as_int(row[0])) is not None}
    return LabelMap({number: name for number, name in found.items() if number}, {}, True, file)


READERS: dict[str, Callable[[str, str], LabelMap]] = {
    "labelmap.txt": _labelmap,
    "class_dict.csv": _class_dict,
    "label_colors.txt": _label_colors,
    "config_v1.2.json": _mapillary,
    "config_v2.0.json": _mapillary,
    "config.json": _mapillary,
    "objectInfo150.txt": _object_info,
    "_classes.csv": _classes,
}
TABLES = (_labelmap, _class_dict, _label_colors, _object_info)
OF_MAPS = ("labelmap.txt", "class_dict.csv", "label_colors.txt", "_classes.csv")
"""Names of label maps that lie beside no other kind of masks than class maps."""
