"""Pictures for people: a mask as PNG; image, coarse and refined outlines side by side, or one after the other."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.masks.binary import Mask

COARSE_RGB = (255, 59, 48)
REFINED_RGB = (0, 230, 118)
HALO_RGB = (16, 16, 16)
CAPTION_PX = 26
FONT_SIZES_PX = (15, 13, 11, 9)
MIN_SIDE_PX, MAX_SIDE_PX = 320, 900
FRAME_MS = 1200
STILL = (".png", ".jpg", ".jpeg")
ANIMATED = (".gif", ".webp")

Picture = npt.NDArray[np.uint8]


class Judged(NamedTuple):
    """What a caption says of a mask: its decision, and the quality of the coarse and of the kept mask (None or NaN:
    not known).
    """

    decision: str
    coarse: float | None
    kept: float | None


def mask_bytes(mask: Mask) -> bytes:
    """(H, W) {0, 1} -> a black and white PNG of the same size, as its bytes."""
    data = io.BytesIO()
    Image.fromarray((mask > 0).astype(np.uint8) * 255).save(data, format="PNG")
    return data.getvalue()


def write_comparison(
    path: Path, image_rgb: Picture, coarse: list[Mask], refined: list[Mask], captions: tuple[str, str, str]
) -> None:
    """`compare`, written to a file; a .gif or .webp shows the three one after the other, again and again.

    Raises RefusedError for another suffix.
    """
    data = comparison_bytes(path, image_rgb, coarse, refined, captions)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def comparison_bytes(
    path: Path, image_rgb: Picture, coarse: list[Mask], refined: list[Mask], captions: tuple[str, str, str]
) -> bytes:
    """What `write_comparison` writes to a file of that name."""
    check_suffix(path)
    shown, data = panels(image_rgb, coarse, refined, captions), io.BytesIO()
    form = Image.registered_extensions()[path.suffix.lower()]
    if path.suffix.lower() in ANIMATED:
        shown[0].save(data, form, save_all=True, append_images=shown[1:], duration=FRAME_MS, loop=0)
    else:
        _side_by_side(shown).save(data, form)
    return data.getvalue()


def check_suffix(path: Path) -> None:
    """Raise RefusedError where `write_comparison` cannot write such a file."""
    if path.suffix.lower() not in (*STILL, *ANIMATED):
        known = ", ".join((*STILL, *ANIMATED))
        raise RefusedError(f"cannot write the picture {path}: its name has to end in one of {known}")


def compare(image_rgb: Picture, coarse: list[Mask], refined: list[Mask], captions: tuple[str, str, str]) -> Image.Image:
    """Photo, photo with coarse outlines, photo with refined outlines, side by side with captions."""
    return _side_by_side(panels(image_rgb, coarse, refined, captions))


def panels(
    image_rgb: Picture, coarse: list[Mask], refined: list[Mask], captions: tuple[str, str, str]
) -> list[Image.Image]:
    """Photo, photo with coarse outlines, photo with refined outlines, each below its caption and of one size.

    image_rgb: (H, W, 3) uint8; masks: (H, W) {0, 1}.
    """
    drawn = (
        image_rgb,
        draw_outlines(image_rgb, coarse, COARSE_RGB),
        draw_outlines(image_rgb, refined, REFINED_RGB),
    )
    return [_captioned(panel, caption) for panel, caption in zip(drawn, captions, strict=True)]


def captions(judged: Sequence[Judged]) -> tuple[str, str, str]:
    """What stands above image, coarse and refined: of one mask its decision, of several the counts; mean qualities."""
    counts = Counter(one.decision for one in judged)
    named = {name.replace("_", " "): number for name, number in counts.items()}
    decided = [f"{number} {name}" if len(judged) > 1 else name for name, number in named.items()]
    before, after = (_quality([one.coarse for one in judged]), _quality([one.kept for one in judged]))
    return "image", f"coarse{before}", ", ".join(decided) + after


def _quality(known: Sequence[float | None]) -> str:
    numbers = [one for one in known if one is not None and not math.isnan(one)]
    word = "quality" if len(known) == 1 else "mean quality"
    return f", {word} {sum(numbers) / len(numbers):.2f}" if numbers else ""


def of_row(image_rgb: Picture, row: Mapping[str, Any]) -> Image.Image:
    """`compare` for one row of a result, cropped to its masks with some of what is around them."""
    drawn = [binary.decode(row[name]) for name in ("coarse_rle", "refined_rle") if row[name]]
    crop = crop_around(drawn, (image_rgb.shape[0], image_rgb.shape[1]))
    coarse, refined = ([binary.decode(row[name])[crop]] if row[name] else [] for name in ("coarse_rle", "refined_rle"))
    _, before, after = captions([Judged(row["decision"], row["quality_coarse"], row["quality"])])
    told = (str(row["category"] or row["mask_id"]), before, after if refined else f"{row['decision']}: {row['reason']}")
    return compare(np.ascontiguousarray(image_rgb[crop]), coarse, refined, told)


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


def _captioned(panel: Picture, caption: str) -> Image.Image:
    side = max(panel.shape[:2])
    scale = min(max(side, MIN_SIDE_PX), MAX_SIDE_PX) / side
    size = max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale))
    picture = Image.new("RGB", (size[0], size[1] + CAPTION_PX), (24, 24, 24))
    picture.paste(Image.fromarray(panel).resize(size), (0, CAPTION_PX))
    font = _fitting(caption, size[0] - 12)
    ImageDraw.Draw(picture).text((6, CAPTION_PX // 2), caption, fill=(235, 235, 235), font=font, anchor="lm")
    return picture


def _fitting(caption: str, width: int) -> Any:
    """The largest font in which a caption has no more than `width` pixels, else the smallest."""
    fonts = [ImageFont.load_default(size) for size in FONT_SIZES_PX]
    return next((font for font in fonts if font.getlength(caption) <= width), fonts[-1])


def _side_by_side(shown: Sequence[Image.Image]) -> Image.Image:
    return Image.fromarray(np.concatenate([np.asarray(one) for one in shown], axis=1))
