"""Pictures for people: a mask as PNG, and image, coarse and refined outlines side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipeline.masks import binary
from pipeline.masks.binary import Mask

COARSE_RGB = (255, 59, 48)
REFINED_RGB = (0, 230, 118)
HALO_RGB = (16, 16, 16)
CAPTION_PX = 24
MAX_SIDE_PX = 900

Picture = npt.NDArray[np.uint8]


def write_mask(path: Path, mask: Mask) -> None:
    """(H, W) {0, 1} -> a black and white PNG of the same size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask > 0).astype(np.uint8) * 255).save(path, format="PNG")


def write_comparison(
    path: Path, image_rgb: Picture, coarse: list[Mask], refined: list[Mask], captions: tuple[str, str, str]
) -> None:
    """`compare`, written to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compare(image_rgb, coarse, refined, captions).save(path)


def compare(image_rgb: Picture, coarse: list[Mask], refined: list[Mask], captions: tuple[str, str, str]) -> Image.Image:
    """Photo, photo with coarse outlines, photo with refined outlines, side by side with captions."""
    panels = (
        image_rgb,
        draw_outlines(image_rgb, coarse, COARSE_RGB),
        draw_outlines(image_rgb, refined, REFINED_RGB),
    )
    return Image.fromarray(np.concatenate([_captioned(p, c) for p, c in zip(panels, captions, strict=True)], axis=1))


def of_row(image_rgb: Picture, row: Mapping[str, Any]) -> Image.Image:
    """`compare` for one row of a result, cropped to its masks with some of what is around them."""
    drawn = [binary.decode(row[name]) for name in ("coarse_rle", "refined_rle") if row[name]]
    crop = crop_around(drawn, (image_rgb.shape[0], image_rgb.shape[1]))
    coarse, refined = ([binary.decode(row[name])[crop]] if row[name] else [] for name in ("coarse_rle", "refined_rle"))
    quality = "" if row["quality"] is None else f" ({row['decision']}, quality {row['quality']:.2f})"
    captions = (str(row["category"] or row["mask_id"]), "coarse", f"refined{quality}" if refined else row["reason"])
    return compare(np.ascontiguousarray(image_rgb[crop]), coarse, refined, captions)


def crop_around(shown: Sequence[Mask], size_hw: tuple[int, int]) -> tuple[slice, slice]:
    """(rows, columns) around all masks, a third of their size (32 pixels at least) wider on each side.

    The whole image where there is nothing to show.
    """
    boxes = [cv2.boundingRect(mask) for mask in shown if mask.any()]
    if not boxes:
        return slice(0, size_hw[0]), slice(0, size_hw[1])
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    margin = max(32, round(max(right - left, bottom - top) / 3))
    return (
        slice(max(0, top - margin), min(size_hw[0], bottom + margin)),
        slice(max(0, left - margin), min(size_hw[1], right + margin)),
    )


def draw_outlines(image_rgb: Picture, shown: list[Mask], colour_rgb: tuple[int, int, int], halo_px: int = 0) -> Picture:
    """A copy of the photo, the inside of each mask tinted and its outline drawn, between dark lines of `halo_px`."""
    drawn = image_rgb.astype(np.float32)
    for mask in shown:
        drawn[mask > 0] = 0.75 * drawn[mask > 0] + 0.25 * np.array(colour_rgb, np.float32)
    canvas = np.ascontiguousarray(drawn.astype(np.uint8))
    thickness = max(1, round(max(image_rgb.shape[:2]) / 400))
    for mask in shown:
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        if halo_px:
            cv2.drawContours(canvas, contours, -1, HALO_RGB, thickness + 2 * halo_px)
        cv2.drawContours(canvas, contours, -1, colour_rgb, thickness)
    return canvas


def _captioned(panel: Picture, caption: str) -> Picture:
    scale = min(1.0, MAX_SIDE_PX / max(panel.shape[:2]))
    size = max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale))
    picture = Image.new("RGB", (size[0], size[1] + CAPTION_PX), (24, 24, 24))
    picture.paste(Image.fromarray(panel).resize(size), (0, CAPTION_PX))
    ImageDraw.Draw(picture).text((6, 6), caption, fill=(235, 235, 235))
    return np.asarray(picture, np.uint8)
