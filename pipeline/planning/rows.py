"""Rows of the plan: from what a source says to what is written, and which of them an increment needs. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pyarrow as pa

from pipeline.planning.spill import Row
from pipeline.sources import PlannedImage, mask_id
from pipeline.storage import StoredFile
from schemas import secrets
from schemas.records import PLAN, conform

DIGESTED = ("source_mask_id", "category_id", "category", "geometry", "mask_id")
"""What of a mask tells whether it has changed. Carried fields do not: one more would refine every dataset again."""

_as_json = json.JSONEncoder(sort_keys=True).encode


def to_row(image: PlannedImage, file: StoredFile | None) -> Row:
    """What a source says of an image, with size and etag of its file; not numbered, not digested (see `finish`)."""
    height, width = image.declared_hw or (None, None)
    uri = as_text(image.image_uri)
    return {
        "chunk_id": "",
        "image_id": uri,
        "image_uri": uri,
        "source_image_id": as_text(image.source_image_id),
        "height": height,
        "width": width,
        "etag": tag(file) if file else None,
        "size_bytes": file.size if file else None,
        "problem": image.problem,
        "member": {**image.member, "container": as_text(image.member["container"])} if image.member else None,
        "masks": [
            {
                "source_mask_id": as_text(mask.source_mask_id),
                "category_id": mask.category_id,
                "category": as_text(mask.category),
                "geometry": as_text(mask.geometry),
                "detail": as_text(mask.detail) or None,
                "crowd": mask.crowd,
                "extra": as_text(mask.extra) or None,
            }
            for mask in image.masks
        ],
        "masks_digest": image.digest_extra,
        "detail": as_text(image.detail) or None,
        "extra": as_text(image.extra) or None,
    }


def as_text(name: str) -> str:
    """A name as rows keep it: no secret of a signed address, and what is no text written out, as in `\\udcff` (names
    of files may be any bytes, JSON any code) and `\\x00` (NUL stands between the parts that a mask's id is hashed of).
    """
    name = secrets.redacted(name).replace("\0", "\\x00")
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def finish(rows: list[Row]) -> list[Row]:
    """Merge rows of one image, give each mask its id, digest the masks, sort by image id."""
    merged: dict[str, Row] = {}
    for row in rows:
        first = merged.setdefault(row["image_id"], row)
        if first is not row:
            first["masks"] = first["masks"] + row["masks"]
            first["masks_digest"] += row["masks_digest"]
    for row in merged.values():
        seen: dict[str, int] = defaultdict(int)
        for mask in row["masks"]:
            source_id = mask["source_mask_id"]
            mask["mask_id"] = mask_id(row["image_id"], source_id, seen[source_id])
            seen[source_id] += 1
        masks = [{name: mask[name] for name in DIGESTED} for mask in row["masks"]]
        content = [masks, row["masks_digest"], row["height"], row["width"], row["problem"]]
        row["masks_digest"] = hashlib.sha256(_as_json(content).encode()).hexdigest()
    return sorted(merged.values(), key=lambda row: str(row["image_id"]))


def as_rows(images: Iterable[PlannedImage], listed: Mapping[str, StoredFile]) -> pa.Table:
    """Images as plan rows (schema PLAN) that belong to no plan, sorted by image id."""
    rows = finish([to_row(image, listed.get(image.image_uri)) for image in images])
    return conform(pa.Table.from_pylist(rows, PLAN), PLAN)


def difference(rows: list[Row], known: dict[str, Row], prune: bool) -> tuple[list[Row], list[dict[str, str]], int]:
    """Sorted new and changed rows, the known rows they replace (or that are gone, with `prune`), unchanged count."""
    found = {row["image_id"] for row in rows}
    fresh = [row for row in rows if _changed(row, known.get(row["image_id"]))]
    gone = {row["image_id"] for row in fresh} | ((known.keys() - found) if prune else set())
    replaced = [
        {"image_id": image_id, "chunk_id": known[image_id]["chunk_id"]} for image_id in sorted(gone & known.keys())
    ]
    return fresh, replaced, len(rows) - len(fresh)


_MTIME, _SHA256 = "mtime_ns=", " sha256="


def tag(file: StoredFile) -> str | None:
    """What tells a file from another one of its name and size: the store's etag, or the time of writing on a disk of
    this machine; and the hash of its content, where that was asked for. None where nothing is known.
    """
    first = file.etag or (f"{_MTIME}{file.mtime_ns}" if file.mtime_ns is not None else "")
    return (f"{first}{_SHA256}{file.sha256}" if file.sha256 else first) or None


def _is_another(tag: str | None, known: str | None) -> bool:
    """Whether two tags are of different files: by their content where both have it, else by what stands first, unless
    one is of a disk and the other of a store.
    """
    first, _, sha256 = (tag or "").partition(_SHA256)
    first_known, _, sha256_known = (known or "").partition(_SHA256)
    if sha256 and sha256_known:
        return sha256 != sha256_known
    comparable = first and first_known and first.startswith(_MTIME) == first_known.startswith(_MTIME)
    return bool(comparable) and first != first_known


def _changed(row: Row, known: Row | None) -> bool:
    if known is None or row["masks_digest"] != known["masks_digest"]:
        return True
    return bool(row["size_bytes"] != known["size_bytes"]) or _is_another(row["etag"], known["etag"])


def chunk_digest(rows: Iterable[Row]) -> str:
    """The last part of a chunk's id: 12 hex digits of what its rows are."""
    content = json.dumps([[row["image_id"], row["masks_digest"]] for row in rows])
    return hashlib.sha256(content.encode()).hexdigest()[:12]
