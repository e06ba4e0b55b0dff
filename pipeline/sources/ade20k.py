"""ADE20K in full: `X_seg.png` and `X_parts_1.png`, ... beside `X.jpg`, with `X_atr.txt` (2017) or `X.json` (2021).

https://ade20k.csail.mit.edu. A pixel's class is R / 10 * 256 + G, and its category id; B tells the objects of an image
apart. One mask for each class and B; its source id is the file and its packed colour (R + 256 G + 65536 B). Names,
occlusion and attributes come from the text beside it: B's rank is the object's number there. Option of this source:
    parts=yes              parts of objects too, each level's from its own file (no: they are named, not read)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import files, png
from pipeline.sources.fields import as_flag, as_int, as_label, as_list, extra_of
from pipeline.sources.png import mask_of, read
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store

SEGMENTS = "_seg.png"
TEXT, DOCUMENT = "_atr.txt", ".json"
MAX_TEXT_BYTES = 1 << 24
_LEVEL = re.compile(r"_parts_(\d{1,3})\.png$")
_INSTANCE = re.compile(r"(^|/)instance_\d+_[^/]*\.png$")


@dataclass(frozen=True)
class _Objects:
    """What the text beside an image says. by_rank: of a level's objects in their order; names: of classes. problem: why
    nothing is said, where a text is there that cannot be read.
    """

    by_rank: Mapping[int, list[dict[str, Any]]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    problem: str = ""

    def of(self, level: int, rank: int, category: int) -> tuple[str, dict[str, Any]]:
        """Name and what else is said of an object; rank: from 0."""
        found = self.by_rank.get(level, [])
        said = found[rank] if rank < len(found) else {}
        return self.names.get(category) or str(said.get("name", "")), said


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a file of segments, then the files that belong to no image."""
    with_parts = parse(given.options)
    store = Store(given.masks_uri, given.access)

    def masks_of(path: str, data: bytes) -> list[PlannedMask]:
        return _masks(path, data, _objects(store, path))

    def beside(path: str) -> str | None:
        return _beside(path, with_parts)

    yield from files.scan(given, frozenset({".png"}), masks_of, images_without_files=False, beside=beside)


def parse(options: Mapping[str, str]) -> bool:
    """Whether parts are read. Raises RefusedError."""
    said = options.get("parts", "no")
    if not options.keys() <= {"parts"} or said not in ("yes", "no"):
        raise RefusedError(f"source ade20k takes parts=yes|no, not {dict(options)}")
    return said == "yes"


def is_segments(path: str, paths: frozenset[str]) -> bool:
    """Whether a file has the text beside it that ADE20K has."""
    own = path.removesuffix(SEGMENTS)
    return path.endswith(SEGMENTS) and (f"{own}{TEXT}" in paths or f"{own}{DOCUMENT}" in paths)


def _beside(path: str, with_parts: bool) -> str | None:
    if path.endswith((TEXT, DOCUMENT)):
        return "names and attributes of objects"
    if _INSTANCE.search(path):
        return "an object by itself, beside all of them in _seg.png"
    if _LEVEL.search(path) and not with_parts:
        return "parts of objects: ade20k:parts=yes reads them"
    return png.beside(path)


def _masks(path: str, data: bytes, objects: _Objects) -> list[PlannedMask]:
    image = read(path, data, packed=True)
    if isinstance(image, PlannedMask):
        return [image]
    level = int(found[1]) if (found := _LEVEL.search(path)) else 0
    values = [value for value in image.values if category_of(value)]
    ranks = {number: rank for rank, number in enumerate(sorted({value >> 16 for value in values if value >> 16}))}
    return [_mask(path, value, level, ranks, objects) for value in values]


def _mask(path: str, value: int, level: int, ranks: Mapping[int, int], objects: _Objects) -> PlannedMask:
    category = category_of(value)
    name, said = objects.of(level, ranks.get(value >> 16, len(ranks)), category)
    extra = {key: what for key, what in said.items() if what not in ("", [], None)}
    extra |= {"part_level": level} if level else {}
    mask = mask_of(path, value, packed=True)
    detail = "; ".join(filter(None, (mask.detail, objects.problem)))
    return replace(mask, category_id=category, category=name, extra=extra_of(extra, ("name",)), detail=detail)


def category_of(value: int) -> int:
    """Packed colour -> class."""
    return (value & 255) // 10 * 256 + (value >> 8 & 255)


def _objects(store: Store, path: str) -> _Objects:
    own = _LEVEL.sub("", path).removesuffix(SEGMENTS)
    for ending, parse_text in ((TEXT, _of_text), (DOCUMENT, _of_document)):
        try:
            return parse_text(store.read(f"{own}{ending}")[:MAX_TEXT_BYTES].decode("utf-8-sig", "replace"))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
    return _Objects()


def _of_text(text: str) -> _Objects:
    """Lines of: number # part level # occluded # class # raw name # "attributes"."""
    found: dict[int, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split("#")]
        level = as_int(words[1]) if len(words) >= 5 else None
        if level is not None:
            said = {"name": as_label(words[3]), "raw_name": words[4], "occluded": as_flag(words[2])}
            attributes = words[5].strip('"') if len(words) > 5 else ""
            found.setdefault(level, []).append({**said, "attributes": attributes})
    return _Objects(found)


def _of_document(text: str) -> _Objects:
    """{"annotation": {"object": [{"name", "name_ndx", "raw_name", "occluded", "attributes", "parts": {...}}]}}."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return _Objects(problem=f"the {DOCUMENT} beside its image is no JSON: names and attributes are not known")
    annotation = content.get("annotation") if isinstance(content, dict) else None
    entries = as_list(annotation.get("object")) if isinstance(annotation, dict) else []
    found: dict[int, list[dict[str, Any]]] = {}
    names: dict[int, str] = {}
    for entry in (entry for entry in entries if isinstance(entry, dict)):
        parts = entry.get("parts")
        level = as_int(parts.get("part_level")) if isinstance(parts, dict) else 0
        said = {"name": as_label(entry.get("name")), "raw_name": entry.get("raw_name")}
        said |= {"occluded": as_flag(_word(entry.get("occluded"))), "attributes": entry.get("attributes")}
        found.setdefault(level or 0, []).append(said)
        number = as_int(entry.get("name_ndx"))
        names |= {number: as_label(entry.get("name"))} if number is not None else {}
    return _Objects(found, names)


def _word(value: Any) -> Any:
    return value == "yes" if value in ("yes", "no") else value


def looks_like(paths: frozenset[str]) -> bool:
    """Whether paths of a folder are ADE20K's."""
    return any(is_segments(path, paths) for path in paths) or any(
        PurePosixPath(path).name.endswith(TEXT) for path in paths
    )
