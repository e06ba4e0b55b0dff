"""The chosen masks as what the page draws: a crop of the image, and both outlines as SVG paths over it."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.dataset.result import Result
from pipeline.dataset.samples import Photos, ahead
from pipeline.dataset.verdicts import digest, read_masks
from pipeline.errors import ImageError, MaskError
from pipeline.masks import binary, drawing
from pipeline.masks.binary import Mask

VIEW_PX = 560
"""Long side of a crop on the page; outlines are in these pixels, whatever the size of the object."""

WEBP_QUALITY = 72
TOLERANCE_PX = 0.7  # by which an outline may leave the mask's edge, in pixels of the view
NUMBERS = ("quality", "quality_coarse", "quality_refined", "coarse_iou", "area_ratio", "predicted_iou", "stability")

Item = dict[str, Any]


def gallery(result: Result, shown: dict[str, list[str]], images_root: str | None, threads: int = 4) -> list[Item]:
    """The masks in `shown` (id -> strata), as JSON-ready items in the order of `shown`.

    An image that cannot be read gives an item without a picture, and says why.
    """
    by_image: dict[str, list[Item]] = defaultdict(list)
    for row in read_masks(result, list(shown)):
        by_image[row["image_uri"]].append(row)
    photos = Photos.of(result, images_root)
    items = {
        item["id"]: item | {"strata": shown[item["id"]]}
        for drawn in ahead(lambda rows: draw_image(photos, rows), by_image.values(), threads)
        for item in drawn
    }
    return [items[mask_id] for mask_id in shown]


def draw_image(photos: Photos, rows: Sequence[Item]) -> list[Item]:
    """All chosen masks of one image."""
    try:
        photo = photos.read(rows[0]["image_uri"], (rows[0]["height"], rows[0]["width"]))
    except ImageError as error:
        return [{**describe(row), "problem": str(error.reason)} for row in rows]
    return [{**describe(row), **draw(photo, row)} for row in rows]


def unread(items: Sequence[Item]) -> dict[str, str]:
    """Image -> why there is no picture of it, where that is not what failed the mask."""
    without = [item for item in items if "problem" in item]
    return {one["image_uri"]: one["problem"] for one in without if not is_known(one, one["problem"])}


def is_known(row: Item, problem: str) -> bool:
    """Whether the row of a mask says itself that its image cannot be read."""
    return bool(row["decision"] == "failed" and row["reason"] == problem)


def describe(row: Item) -> Item:
    """What the page says of a mask; numbers rounded to what it shows."""
    said = {name: None if row[name] is None else round(float(row[name]), 4) for name in NUMBERS}
    names = ("image_uri", "source_mask_id", "category", "decision", "reason")
    return {"id": row["mask_id"], "digest": digest(row), **said, **{name: row[name] for name in names}}


def draw(photo: npt.NDArray[np.uint8], row: Item) -> Item:
    """photo (H, W, 3) -> {image: data URI, width, height: of the view, coarse, refined: SVG paths or null}."""
    drawn: dict[str, Mask] = {}
    for name in ("coarse", "refined"):
        try:
            if row[f"{name}_rle"] and tuple(row[f"{name}_rle"]["size"]) == photo.shape[:2]:
                drawn[name] = binary.decode(row[f"{name}_rle"])
        except MaskError:
            continue  # a failed row keeps what came in, readable or not
    crop = drawing.crop_around(list(drawn.values()), (photo.shape[0], photo.shape[1]))
    pixels = photo[crop]
    scale = VIEW_PX / max(pixels.shape[:2])
    width, height = (max(1, round(side * scale)) for side in pixels.shape[1::-1])
    if scale < 1:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    paths = {name: outline(mask[crop], (width, height)) for name, mask in drawn.items()}
    return {"image": as_webp(pixels), "width": width, "height": height, "coarse": None, "refined": None, **paths}


def as_svg(drawn: Item, label: str) -> str:
    """What `draw` gives as one SVG, for a page without a script: the picture and both outlines."""
    lines = "".join(
        f'<path class="halo" d="{drawn[side]}"/><path class="{side}-line" d="{drawn[side]}"/>'
        for side in ("coarse", "refined")
        if drawn[side]
    )
    width, height = drawn["width"], drawn["height"]
    return (
        f'<svg class="still" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f'<image width="{width}" height="{height}" href="{drawn["image"]}"/>{lines}</svg>'
    )


def outline(mask: Mask, size_wh: tuple[int, int]) -> str:
    """(h, w) {0, 1} -> an SVG path (even-odd) around its foreground, in a view of `size_wh`; "" for an empty mask."""
    scaled = cv2.resize(np.ascontiguousarray(mask), size_wh, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(scaled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, TOLERANCE_PX, closed=True)[:, 0]
        steps = np.diff(points, axis=0).tolist()
        line = "".join(f"l{dx} {dy}" for dx, dy in steps)
        parts.append(f"M{points[0][0]} {points[0][1]}{line}z")
    return "".join(parts)


def as_webp(pixels: npt.NDArray[np.uint8]) -> str:
    """(h, w, 3) uint8 RGB -> a data URI."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "WEBP", quality=WEBP_QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
