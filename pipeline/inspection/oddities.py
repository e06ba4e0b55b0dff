"""What is odd about images that were looked at. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.errors import REASONS
from pipeline.inspection.sample import Header, Row, Seen
from pipeline.masks import binary
from pipeline.masks.binary import Mask

OVERLAP_SHARE = 0.01
"""Of an image's mask pixels, so many in two masks or more are told."""
NEARLY_ALL = 0.95
TINY_PIXELS = 16
SWAPS_SIDES = (5, 6, 7, 8)


@dataclass
class Oddity:
    """Something odd; images: how many have it; example: the first of them, with what it is in its case."""

    what: str
    images: int
    example: str


def oddities(seen: Iterable[Seen]) -> list[Oddity]:
    """The oddities of the images, what concerns most of them first."""
    found: dict[str, Oddity] = {}
    for image in seen:
        for what, example in dict(reversed([*_of_image(image)])).items():
            name = f"{image.row['image_uri']}{f': {example}' if example else ''}"
            found.setdefault(what, Oddity(what, 0, name)).images += 1
    return sorted(found.values(), key=lambda odd: (-odd.images, odd.what))


def _of_image(image: Seen) -> Iterator[tuple[str, str]]:
    """What is odd, and what it is in this case."""
    row = image.row
    if row["status"] != "ok":
        yield f"{row['reason']}: {REASONS[row['reason']]}", row["detail"] or ""
        return
    if image.header:
        yield from _of_header(image.header, (row["height"], row["width"]))
    if row["detail"]:
        yield "more than 8 bits: scaled to 8", row["detail"]
    for mask in row["masks"]:
        yield from _of_mask(mask)
    yield from _together(row)


def _of_header(header: Header, size_hw: tuple[int, int]) -> Iterator[tuple[str, str]]:
    if header.orientation != 1:
        turned = header.orientation not in SWAPS_SIDES or size_hw != header.stored_hw or size_hw[0] == size_hw[1]
        done = "applied" if turned else "not applied: the masks are those of the stored pixels"
        yield f"EXIF rotation, {done}", f"orientation {header.orientation}"
    if header.mode in ("RGBA", "LA", "PA"):
        yield "transparency: laid on white", header.mode
    if header.mode == "CMYK":
        yield "CMYK colours: converted to RGB", ""


def _of_mask(mask: Row) -> Iterator[tuple[str, str]]:
    name = f"mask {mask['source_mask_id']}"
    if mask["reason"]:
        yield f"{mask['reason']}: {REASONS[mask['reason']]}", f"{name}{_detail(mask)}"
        return
    kind = (mask["detail"] or "").partition(":")[0]
    if kind:
        yield f"remark on masks, {kind}", f"{name}{_detail(mask)}"
    if mask["crowd"]:
        yield "crowd regions: kept as they came, not refined", name
    height, width = mask["coarse_rle"]["size"]
    area = binary.area(mask["coarse_rle"])
    if area >= NEARLY_ALL * height * width:
        yield "a mask covers nearly the whole image: is it the background, or inverted?", name
    if area < TINY_PIXELS:
        yield f"masks of fewer than {TINY_PIXELS} pixels", f"{name}, {area} pixels"


def _detail(mask: Row) -> str:
    return f": {mask['detail']}" if mask["detail"] else ""


def _together(row: Row) -> Iterator[tuple[str, str]]:
    """What masks are to each other; crowd regions lie over the objects in them by design."""
    masks = [mask for mask in row["masks"] if mask["reason"] is None and not mask["crowd"]]
    same = _first_twice(masks, lambda mask: str(mask["coarse_rle"]))
    if same:
        yield "the same mask twice", f"masks {same[0]['source_mask_id']} and {same[1]['source_mask_id']}"
    share = _overlap([binary.decode(mask["coarse_rle"]) for mask in masks])
    if share >= OVERLAP_SHARE:
        yield "masks overlap", f"{share:.0%} of the pixels are in two masks or more"


def _first_twice(masks: list[Row], key: Callable[[Row], str]) -> tuple[Row, Row] | None:
    seen: dict[str, Row] = {}
    for mask in masks:
        first = seen.setdefault(key(mask), mask)
        if first is not mask:
            return first, mask
    return None


def _overlap(masks: list[Mask]) -> float:
    """Of the pixels in any of (H, W) masks, the share that is in two or more."""
    if len(masks) < 2:
        return 0.0
    times = np.zeros(masks[0].shape, np.uint16)
    for mask in masks:
        times += mask
    covered = int(np.count_nonzero(times))
    return int(np.count_nonzero(times > 1)) / covered if covered else 0.0
