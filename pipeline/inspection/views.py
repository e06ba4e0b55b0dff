"""An image that was looked at, with its masks, as a picture. Pure.

A category has a colour of its own. Red is kept for what would fail: a mask of another frame is drawn stretched over the
image, so that a person sees which frame it is of.
"""

from __future__ import annotations

import colorsys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import MaskError
from pipeline.inspection.oddities import oddities
from pipeline.inspection.sample import Row, Seen
from pipeline.masks import binary, drawing
from pipeline.masks.binary import Mask

Colour = tuple[int, int, int]
Picture = npt.NDArray[np.uint8]

FAILED_RGB: Colour = (255, 45, 45)
GOLDEN = 0.6180339887
FIRST_HUE, HUES = 0.07, 0.86  # red is left out
VISIBLE_SHARE = 64
"""Of 255: a pixel of a smaller view shows a mask that covers a quarter of it, so that thin parts do not vanish."""


@dataclass(frozen=True)
class DrawnMask:
    """A mask in a view. mask: (H, W) {0, 1} in its own frame; problem: why a run would fail it, "" for nothing;
    colour_rgb: of its category, or of what fails.
    """

    mask: Mask
    source_mask_id: str
    category_id: int
    category: str
    crowd: bool
    problem: str
    colour_rgb: Colour


@dataclass(frozen=True)
class View:
    """An image as a person sees it. pixels: (h, w, 3) uint8 RGB, None where it failed; notes: what is odd about it;
    lost: masks that cannot be drawn, with the reason.
    """

    image_uri: str
    size_hw: tuple[int, int] | None
    pixels: Picture | None
    masks: list[DrawnMask] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    failed: bool = False


def views(seen: Sequence[Seen]) -> list[View]:
    """What is drawn of images that were looked at."""
    categories = sorted({mask["category_id"] for image in seen for mask in image.row["masks"]})
    colours = {category_id: _colour(number) for number, category_id in enumerate(categories)}
    return [_view(image, colours) for image in seen]


def _view(seen: Seen, colours: Mapping[int, Colour]) -> View:
    row = seen.row
    drawn = [(mask, _decoded(mask)) for mask in row["masks"]]
    return View(
        image_uri=row["image_uri"],
        size_hw=None if seen.pixels is None else (row["height"], row["width"]),
        pixels=seen.pixels,
        masks=[_drawn(mask, pixels, colours) for mask, pixels in drawn if pixels is not None],
        notes=[odd.what for odd in oddities([seen])],
        lost=[f"{mask['source_mask_id']}: {mask['reason']}" for mask, pixels in drawn if pixels is None],
        failed=seen.pixels is None or any(mask["reason"] for mask in row["masks"]),
    )


def _colour(number: int) -> Colour:
    """Neighbours in number are far apart in hue."""
    hue = FIRST_HUE + HUES * (number * GOLDEN % 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def drawn(image: View, side: int) -> Picture | None:
    """The image with its masks tinted and outlined, `side` pixels on the long side at most; None where it failed."""
    if image.pixels is None:
        return None
    height, width = image.pixels.shape[:2]
    scale = side / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    canvas: Picture = np.asarray(cv2.resize(image.pixels, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    by_colour: dict[Colour, list[Mask]] = defaultdict(list)
    for one in image.masks:
        by_colour[one.colour_rgb].append(scaled(one.mask, size_wh))
    for colour, masks in by_colour.items():
        canvas = drawing.draw_outlines(canvas, masks, colour, halo_px=1)
    return canvas


def scaled(mask: Mask, size_wh: tuple[int, int]) -> Mask:
    """(H, W) {0, 1} -> (h, w) {0, 1} of another size, in which thin parts stay visible."""
    shares = cv2.resize(mask * np.uint8(255), size_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(shares >= VISIBLE_SHARE, np.uint8)


def _decoded(mask: Row) -> Mask | None:
    """The mask in its own frame; None for one that cannot be read, or is empty."""
    if not mask["coarse_rle"]:
        return None
    try:
        pixels = binary.decode(mask["coarse_rle"])
    except MaskError:
        return None
    return pixels if pixels.any() else None


def _drawn(mask: Row, pixels: Mask, colours: Mapping[int, Colour]) -> DrawnMask:
    return DrawnMask(
        mask=pixels,
        source_mask_id=mask["source_mask_id"],
        category_id=mask["category_id"],
        category=mask["category"],
        crowd=mask["crowd"],
        problem=mask["reason"] or "",
        colour_rgb=FAILED_RGB if mask["reason"] else colours[mask["category_id"]],
    )
