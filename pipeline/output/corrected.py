"""Overlays at the seal: what people sent back of masks (`dataset/overlays.py`), laid over the rows of shards.

A group knows the changes to its own images, and its key has them: other groups are taken over as they are, and a group
is again what it was once an overlay is undone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import overlays
from pipeline.dataset.overlays import ADDED, CORRECTED, KEPT, MARKED, REMOVED, Row
from pipeline.masks import binary
from pipeline.output.shard_groups import Group
from pipeline.planning.increment import Plan
from pipeline.planning.spill import hash_of
from pipeline.storage import Store
from schemas import layout
from schemas.manifest import AppliedOverlay
from schemas.records import MASKS

A_PERSONS_QUALITY = 1.0
"""A person's mask is the truth, as far as there is one."""


def with_changes(output: Store, plan: Plan, groups: Iterable[Group]) -> Iterator[Group]:
    """Groups of parts with the changes that the standing overlays make to their images."""
    changes = overlays.by_image(overlays.standing(output))
    of_chunk: dict[str, list[Row]] = defaultdict(list)
    for image_id, chunk_id in sorted(_chunks_of(output, plan, changes).items()):
        of_chunk[chunk_id] += changes[image_id]
    for group in groups:
        own = [change for part in group.parts for change in of_chunk.get(part.chunk.chunk_id, ())]
        yield replace(group, changes=tuple(own)) if own else group


def overlay_entries(output: Store) -> list[AppliedOverlay]:
    """The standing overlays as the manifest names them."""
    return [
        AppliedOverlay(
            name=one.name,
            path=one.place.path,
            sha256=one.sha256,
            changes=sum(row["action"] != KEPT for row in one.changes),
        )
        for one in overlays.standing(output)
    ]


def lay_over(changes: Sequence[Row], image_rows: list[Row], mask_rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of a shard of images, and of its masks in their order, with the changes made.

    A change that fits no mask, or an image of another size, changes nothing; the mask's `detail` says so.
    """
    if not changes:
        return image_rows, mask_rows
    of_image: dict[str, list[Row]] = defaultdict(list)
    for change in changes:
        of_image[change["image_id"]].append(change)
    masks: dict[str, list[Row]] = defaultdict(list)
    for row in mask_rows:
        masks[row["image_id"]].append(row)
    found = {row["image_id"]: _changed(row, masks[row["image_id"]], of_image[row["image_id"]]) for row in image_rows}
    images = [{**row, "masks": len(found[row["image_id"]])} for row in image_rows]
    return images, [mask for row in image_rows for mask in found[row["image_id"]]]


def _changed(image: Row, masks: list[Row], changes: Iterable[Row]) -> list[Row]:
    """The masks of one image."""
    by_id = {row["mask_id"]: row for row in masks}
    for change in changes:
        mask_id = change["mask_id"]
        if not overlays.fits(change, image):
            if mask_id in by_id:
                by_id[mask_id] = {**by_id[mask_id], "detail": _misfit(change, image)}
        elif change["action"] == REMOVED:
            by_id.pop(mask_id, None)
        elif change["action"] == ADDED:
            by_id[mask_id] = corrected(_new(image, change), change, "added")
        elif mask_id in by_id and change["action"] == MARKED:
            by_id[mask_id] = _marked(by_id[mask_id], change)
        elif mask_id in by_id:
            by_id[mask_id] = corrected(by_id[mask_id], change, "corrected")
    return list(by_id.values())


def corrected(row: Row, change: Row, reason: str) -> Row:
    """A row of MASKS with what a person made of it. What came in, what was refined and their scores stay."""
    rle: binary.Rle = change["rle"]
    return {
        **row,
        "category_id": change["category_id"],
        "category": change["category"],
        "crowd": change["crowd"],
        "decision": CORRECTED,
        "reason": reason,
        "mask_rle": rle,
        "bbox_xywh": binary.bbox_xywh(rle),
        "area": binary.area(rle),
        "quality": A_PERSONS_QUALITY,
        "quality_lower": A_PERSONS_QUALITY,
        "calibration_id": None,
        "detail": f"{change['action']} in overlay {change['overlay']}",
        "extra": _with_overlay(row["extra"], change["overlay"]),
    }


def _marked(row: Row, change: Row) -> Row:
    """Another category, or a crowd: the mask stays, and so does what is known of it. A crowd has no quality."""
    return {
        **row,
        "category_id": change["category_id"],
        "category": change["category"],
        "crowd": change["crowd"],
        **(dict.fromkeys(("quality", "quality_lower")) if change["crowd"] else {}),
        "detail": f"{change['action']} in overlay {change['overlay']}",
        "extra": _with_overlay(row["extra"], change["overlay"]),
    }


def _new(image: Row, change: Row) -> Row:
    names = ("image_id", "image_uri", "source_image_id", "height", "width")
    own = {name: change[name] for name in ("mask_id", "source_mask_id", "extra")}
    return {**dict.fromkeys(MASKS.names), **{name: image[name] for name in names}, **own}


def _with_overlay(extra: str | None, name: str) -> str:
    """The carried fields, and the overlay's name: exports write them all."""
    carried: dict[str, Any] = json.loads(extra) if extra else {}
    return json.dumps({**carried, "overlay": name}, separators=(",", ":"))


def _misfit(change: Row, image: Row) -> str:
    height, width = change["rle"]["size"] if change["rle"] else (0, 0)
    size = f"its mask is of {width}x{height}, the image of {image['width']}x{image['height']}"
    return f"overlay {change['overlay']} was not applied: {size if image['status'] == 'ok' else 'the image failed'}"


def _chunks_of(output: Store, plan: Plan, image_ids: Iterable[str]) -> dict[str, str]:
    """Image id -> the chunk that it is planned in."""
    wanted = sorted(image_ids)
    hashes = sorted({hash_of(image_id) for image_id in wanted})
    live = {chunk.chunk_id for chunk in plan.chunks}
    found: dict[str, str] = {}
    for path in sorted({chunk.file for chunk in plan.chunks}) if wanted else []:
        bucket = layout.bucket_range(path)
        if bucket and any(number in bucket.span for number in hashes):
            table = output.read_parquet(path, ["image_id", "chunk_id"])
            for row in table.filter(pc.is_in(table["image_id"], pa.array(wanted, pa.string()))).to_pylist():
                place = row["chunk_id"], row["image_id"]
                if place[0] in live and place not in plan.superseded:
                    found[row["image_id"]] = row["chunk_id"]
    return found
