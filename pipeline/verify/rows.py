"""What a row of a shard claims, checked against itself. Pure: a row in, what is wrong with it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.dataset.overlays import CORRECTED
from pipeline.errors import REASONS, MaskError
from pipeline.masks import binary

DECISIONS = ("refined", "kept_coarse", "review", "failed", CORRECTED)
QUALITIES = ("quality", "quality_lower", "quality_coarse", "quality_refined")
OF_THE_MASK = ("mask_rle", "bbox_xywh", "area")
ALWAYS = ("mask_id", "image_id", "image_uri", "source_mask_id", "decision", "reason")

Row = dict[str, Any]


def check_image(row: Row) -> Iterator[str]:
    """What is wrong with a row of IMAGES."""
    if row["image_id"] is None or row["image_uri"] is None:
        yield "has no id or uri"
    if row["status"] not in ("ok", "failed"):
        yield f"has the status {row['status']!r}"
    if (row["status"] == "failed") != (row["reason"] is not None):
        yield f"is {row['status']} with the reason {row['reason']!r}"
    if row["reason"] is not None and row["reason"] not in REASONS:
        yield f"has the unknown reason {row['reason']!r}"
    if row["status"] == "ok" and not ((row["height"] or 0) > 0 and (row["width"] or 0) > 0):
        yield f"is ok with the size {row['height']}x{row['width']}"
    if row["masks"] is None or row["masks"] < 0 or row["attempt"] is None or row["attempt"] < 0:
        yield f"has {row['masks']} masks after attempt {row['attempt']}"


def check_mask(row: Row) -> Iterator[str]:
    """What is wrong with a row of MASKS: codes, qualities, encodings, and what is derived from them."""
    if missing := [name for name in ALWAYS if row[name] is None]:
        yield f"has no {', '.join(missing)}"
    if row["decision"] not in DECISIONS:
        yield f"has the unknown decision {row['decision']!r}"
    if row["reason"] not in REASONS:
        yield f"has the unknown reason {row['reason']!r}"
    for name in QUALITIES:
        if row[name] is not None and not 0 <= row[name] <= 1:
            yield f"has {name} {row[name]}"
    unreadable = list(_check_encodings(row))
    yield from unreadable
    if row["decision"] == "failed":
        if filled := [name for name in (*OF_THE_MASK, "quality") if row[name] is not None]:
            yield f"failed, and has {', '.join(filled)}"
    elif row["mask_rle"] is None:
        yield f"is {row['decision']} and has no mask_rle"
    elif not unreadable:
        yield from _check_kept(row)


def _check_encodings(row: Row) -> Iterator[str]:
    """Every encoding decodes to its own size, and to the image's unless the mask failed."""
    for name in ("coarse_rle", "refined_rle", "mask_rle"):
        rle = row[name]
        if rle is None:
            continue
        try:
            binary.check(rle)
        except (MaskError, TypeError, ValueError) as error:
            yield f"has a {name} that does not decode: {error}"
            continue
        of_any_size = row["decision"] == "failed" or (row["decision"] == CORRECTED and name == "coarse_rle")
        if not of_any_size and list(rle["size"]) != [row["height"], row["width"]]:
            yield f"has a {name} of {rle['size']} for an image of {[row['height'], row['width']]}"


def _check_kept(row: Row) -> Iterator[str]:
    kept = row["mask_rle"]
    if row["bbox_xywh"] != binary.bbox_xywh(kept):
        yield f"has the box {row['bbox_xywh']}, its mask_rle {binary.bbox_xywh(kept)}"
    if row["area"] != binary.area(kept):
        yield f"has the area {row['area']}, its mask_rle {binary.area(kept)}"
    if row["decision"] == CORRECTED:
        return  # the mask is a person's
    choices = {"refined": ["refined_rle"], "kept_coarse": ["coarse_rle"]}.get(
        row["decision"], ["refined_rle", "coarse_rle"]
    )
    if kept not in [row[name] for name in choices]:
        yield f"is {row['decision']} and its mask_rle is not its {' or '.join(choices)}"
