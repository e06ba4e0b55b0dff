"""Images and masks that were taken, as one COCO file: entries one after another, so that memory does not grow.

An annotation keeps its geometry as it came where COCO has a form for it, else it is RLE. `source` and `source_id` say
where it comes from. Ids of the first annotation stay; those of the second are hashes of theirs, so that they are the
same whenever the two are merged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.decoding.coarse import coarse_rle, frame_of_masks, mask_file
from pipeline.errors import MaskError
from pipeline.masks import binary
from pipeline.merging.reading import Row
from pipeline.merging.rule import FIRST
from pipeline.sources.fields import as_int
from pipeline.storage import STORE_ERRORS, Store, brief

NOT_EXHAUSTIVE = "not_exhaustive_category_ids"
OF_ITS_OWN = ("neg_category_ids", NOT_EXHAUSTIVE)
"""Of LVIS's images: lists of its own class numbers, which mean nothing in those of the merged file."""

HASHED_FROM = 1 << 40
"""Ids that are hashes are above it, and below 2**53: every JSON reader holds them."""


def image_entry(image: Row, side: int, name: str) -> Row:
    """An entry of `images`."""
    extra = {key: value for key, value in parsed(image["extra"]).items() if key not in OF_ITS_OWN}
    size = {} if image["hw"] is None else {"height": image["hw"][0], "width": image["hw"][1]}
    own_id = stable_id(image["source_image_id"], side, name)
    return {**extra, "id": own_id, "file_name": image["uri"], **size}


def annotation(mask: Row, image: Row, image_id: int, side: int, name: str, files: Store | None) -> tuple[Row, str]:
    """An entry of `annotations`, and what is wrong with its mask, "" for nothing. files: masks that are files."""
    segmentation, measures, problem = _segmentation(mask["geometry"], image["hw"], files)
    entry = {
        **parsed(mask["extra"]),
        "id": stable_id(mask["source_id"], side, name),
        "image_id": image_id,
        "category_id": mask["category_id"],
        "segmentation": segmentation,
        **measures,
        "iscrowd": int(mask["crowd"]),
        "source": name,
        "source_id": as_number(mask["source_id"]),
    }
    return entry, problem


def stable_id(source_id: str, side: int, name: str) -> int:
    """The first's own number; else a hash of the id and of which annotation it is of."""
    own = as_int(source_id)
    if side == FIRST and own is not None and 0 <= own < HASHED_FROM:
        return own
    digest = hashlib.sha256(f"{name}\0{source_id}".encode()).digest()
    return HASHED_FROM + int.from_bytes(digest[:8], "big") % ((1 << 53) - HASHED_FROM)


def as_number(source_id: str) -> int | str:
    """As the file that it comes from most likely had it."""
    own = as_int(source_id)
    return source_id if own is None or str(own) != source_id else own


def assemble(sink: BinaryIO, head: Row, lists: Iterable[tuple[str, Path]]) -> None:
    """The file, of its first keys and of lists whose entries are lines of files."""
    sink.write(json.dumps(head, separators=(",", ":")).encode()[:-1])
    for name, path in lists:
        sink.write(f',\n"{name}": ['.encode())
        with path.open("rb") as lines:
            for number, line in enumerate(lines):
                sink.write((b",\n" if number else b"\n") + line.rstrip(b"\n"))
        sink.write(b"]")
    sink.write(b"}\n")


def _segmentation(geometry: str, hw: list[int] | None, files: Store | None) -> tuple[Any, Row, str]:
    """(COCO's segmentation, area and bbox, what is wrong). One that cannot be read stays as it is, to fail where it is
    used and be counted there.
    """
    content: Any = None
    with suppress(ValueError, RecursionError):
        content = json.loads(geometry)
    is_coco = isinstance(content, list) or (isinstance(content, dict) and content.keys() <= {"size", "counts"})
    if is_coco and hw is None and isinstance(content, list):
        return content, {}, ""  # polygons know no size
    try:
        rle = _drawn(geometry, hw, files)
    except MaskError as error:
        return content if is_coco else None, {}, error.detail or error.reason
    return content if is_coco else rle, {"area": binary.area(rle), "bbox": binary.bbox_xywh(rle)}, ""


def _drawn(geometry: str, hw: list[int] | None, files: Store | None) -> binary.Rle:
    path = mask_file(geometry)
    contents: dict[str, bytes | MaskError] = {}
    if path is not None:
        try:
            contents[path] = files.read(path) if files is not None else MaskError("mask_missing", path)
        except STORE_ERRORS as error:
            contents[path] = MaskError("mask_missing", brief(error))
    size = (hw[0], hw[1]) if hw else frame_of_masks([geometry], contents)
    if size is None:
        raise MaskError("mask_unreadable", "the size of its image is not known")
    return coarse_rle(geometry, size, size, contents)


def parsed(extra: str) -> dict[str, Any]:
    """Fields that a source carried."""
    return dict(json.loads(extra)) if extra else {}


def lines(entries: Iterable[Row]) -> Iterator[bytes]:
    """Each entry as a line."""
    return (json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries)
