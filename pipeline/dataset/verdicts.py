"""What people said of a result's masks, as it is kept beside the result: written by `review/`, read by whoever uses it.

    OUTPUT/reviews/<number>-<hash>.json     one file for each `relabel review`; immutable; later ones win

A verdict is of the pair of masks that was seen: better or worse (the refined one than the coarse one), or reject
(neither can be used). It carries a digest of the two, so it no longer counts once either is another. A new gate or
calibration changes neither mask, and verdicts stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.order import BLOCK_ROWS
from pipeline.dataset.overlays import CORRECTED
from pipeline.dataset.result import Result, open_result
from pipeline.errors import RefusedError
from pipeline.storage import Access, Store, brief
from schemas import layout

VERDICTS = ("better", "worse", "reject")
KIND = "relabel-verdicts"
VERSION = 1
MAX_BYTES = 64 << 20


SEEN = [
    *("mask_id", "image_uri", "source_mask_id", "category", "height", "width", "decision", "reason"),
    *("quality", "quality_coarse", "quality_refined", "coarse_iou", "area_ratio", "predicted_iou", "stability"),
    *("coarse_rle", "refined_rle"),
]
"""Columns of a mask that a person is shown."""

Row = dict[str, Any]


class Verdict(NamedTuple):
    """One mask's verdict. `strata`: what the mask was shown for."""

    mask_id: str
    digest: str
    verdict: str
    strata: tuple[str, ...]


def parse(data: bytes, where: str) -> list[Verdict]:
    """JSON -> verdicts, every field checked: the file comes from outside. Raises RefusedError."""
    if len(data) > MAX_BYTES:
        raise RefusedError(f"{where} is larger than {MAX_BYTES >> 20} MiB; a file of verdicts is not")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{where} is not valid JSON: {brief(error)}") from None
    if not isinstance(content, dict) or content.get("kind") != KIND or content.get("schema_version") != VERSION:
        raise RefusedError(f"{where} is not a file of verdicts, as the audit page downloads it")
    entries = content.get("verdicts")
    if not isinstance(entries, list):
        raise RefusedError(f"{where} has no list `verdicts`")
    return [_verdict(entry, where) for entry in entries]


def _verdict(entry: Any, where: str) -> Verdict:
    fields = [entry.get(name) if isinstance(entry, dict) else None for name in ("mask_id", "digest", "verdict")]
    strata = entry.get("strata", []) if isinstance(entry, dict) else None
    texts = [*fields, *(strata if isinstance(strata, list) else [None])]
    if not all(isinstance(text, str) for text in texts) or fields[2] not in VERDICTS:
        raise RefusedError(f"{where}: not a verdict ({', '.join(VERDICTS)}): {str(entry)[:100]}")
    mask_id, seen, verdict = (str(text) for text in fields)
    return Verdict(mask_id, seen, verdict, tuple(str(name) for name in strata or ()))


def stored(output: Store) -> dict[str, Verdict]:
    """All verdicts kept beside an output, by mask id; of several on one mask the latest."""
    found: dict[str, Verdict] = {}
    for file in output.list(layout.REVIEWS):
        if file.path.endswith(".json"):
            found |= {one.mask_id: one for one in parse(output.read(file.path), f"{output.uri}/{file.path}")}
    return found


def standing(result: Result) -> dict[str, tuple[Verdict, Row]]:
    """The verdicts that hold for the current result, each with the row of its mask."""
    kept = stored(result.store)
    rows = read_masks(result, list(kept)) if kept else []
    return {row["mask_id"]: (kept[row["mask_id"]], row) for row in rows if kept[row["mask_id"]].digest == digest(row)}


def rejected(output: str, access: Access | None = None) -> frozenset[str]:
    """Ids of the current result's masks that a person rejected, and nobody corrected: exports leave them out."""
    store = Store(output, access or Access())
    if not any(one.verdict == "reject" for one in stored(store).values()):
        return frozenset()
    found = standing(open_result(output, access))
    return frozenset(
        mask_id for mask_id, (one, row) in found.items() if one.verdict == "reject" and row["decision"] != CORRECTED
    )


def read_masks(result: Result, mask_ids: Sequence[str]) -> list[Row]:
    """The rows of a few masks. Ids are looked for first; of the rest only the row groups that hold one are read."""
    wanted = pa.array(mask_ids, pa.string())
    found = []
    for path in result.files():
        ids = result.store.scan(path, {"mask_id": pc.field("mask_id")})["mask_id"]
        rows = np.flatnonzero(pc.is_in(ids, wanted).to_numpy())
        for near in np.split(rows, np.flatnonzero(np.diff(rows // BLOCK_ROWS)) + 1) if len(rows) else []:
            first, count = int(near[0]), int(near[-1] - near[0] + 1)
            found += result.store.read_rows(path, first, count, SEEN).take(near - first).to_pylist()
    return found


def digest(row: Row) -> str:
    """Short hash of the two masks that a person sees: a verdict counts only for these."""
    parts = (row[name]["counts"] if row[name] else "" for name in ("coarse_rle", "refined_rle"))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
