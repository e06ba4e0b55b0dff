"""Views -> a contact sheet: one PNG, with what is wrong in red. Pure."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.inspection.views import FAILED_RGB, Picture, View, drawn
from pipeline.words import one_line, plural

TILE_PX = 300
CAPTION_PX = 46
GAP_PX = 8
LEGEND_PX = 30
MAX_COLUMNS = 6
FAILED_HEIGHT_PX = 120
MAX_LEGEND_LINES = 3
GROUND, INK, QUIET = (24, 26, 28), (235, 236, 238), (160, 166, 172)
FONT_PX = 13
SQUARE_PX = 12

Tile = tuple[View, Picture | None]


def contact_sheet(title: str, views: Sequence[View]) -> bytes:
    """PNG bytes: the title, which colour is which category, and the views in rows."""
    columns = max(1, min(MAX_COLUMNS, math.ceil(math.sqrt(len(views)))))
    tiles = [(image, drawn(image, TILE_PX)) for image in views]
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    width = max(640, GAP_PX + columns * (TILE_PX + GAP_PX))
    legend = _legend_lines(views, width)
    top = GAP_PX + LEGEND_PX * (1 + len(legend))
    sheet = Image.new("RGB", (width, top + sum(_height(row) + CAPTION_PX + GAP_PX for row in rows)), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP_PX, GAP_PX), _fitting(pen, title, width - 2 * GAP_PX), fill=INK, font=_font())
    for number, line in enumerate(legend, 1):
        _draw_legend(pen, line, GAP_PX + LEGEND_PX * number)
    for row in rows:
        for number, tile in enumerate(row):
            _draw_tile(sheet, tile, (GAP_PX + number * (TILE_PX + GAP_PX), top), _height(row))
        top += _height(row) + CAPTION_PX + GAP_PX
    data = io.BytesIO()
    sheet.save(data, "PNG")
    return data.getvalue()


def _height(row: list[Tile]) -> int:
    """Of the pictures in a row."""
    return max(FAILED_HEIGHT_PX if picture is None else picture.shape[0] for _, picture in row)


def _draw_tile(sheet: Image.Image, tile: Tile, at: tuple[int, int], height: int) -> None:
    pen = ImageDraw.Draw(sheet)
    image, picture = tile
    if picture is None:
        pen.rectangle((*at, at[0] + TILE_PX, at[1] + height), fill=(44, 47, 50))
        pen.text((at[0] + GAP_PX, at[1] + height // 2), "no picture", fill=FAILED_RGB, font=_font())
    else:
        sheet.paste(Image.fromarray(picture), (at[0], at[1] + height - picture.shape[0]))
    for line, (text, colour) in enumerate(_caption(image)):
        place = at[0], at[1] + height + 3 + line * (FONT_PX + 1)
        pen.text(place, _fitting(pen, text, TILE_PX), fill=colour, font=_font())


def _caption(image: View) -> list[tuple[str, tuple[int, int, int]]]:
    """Up to three lines: the path; size and masks; what is odd, red where something would fail."""
    size = "" if image.size_hw is None else f"{image.size_hw[1]}x{image.size_hw[0]}, "
    masks = len(image.masks) + len(image.lost)
    lines = [(image.image_uri, INK), (f"{size}{plural(masks, 'mask')}", QUIET)]
    notes = "; ".join(note.partition(": ")[0] for note in image.notes)
    return [*lines, (notes, FAILED_RGB if image.failed else QUIET)] if notes else lines


Legend = list[tuple[str, tuple[int, int, int], int]]
"""Text, colour, and how far to the right."""


def _legend_lines(views: Sequence[View], width: int) -> list[Legend]:
    """The categories on the sheet, as far as a few lines hold them."""
    masks = [mask for image in views for mask in image.masks]
    known = {(mask.category_id, mask.category): mask.colour_rgb for mask in masks if not mask.problem}
    entries = [(one_line(name) or f"category {number}", colour) for (number, name), colour in sorted(known.items())]
    entries += [("would fail", FAILED_RGB)] if any(mask.problem for mask in masks) else []
    lines: list[Legend] = [[]]
    left = GAP_PX
    for text, colour in entries:
        room = SQUARE_PX + 6 + round(_font().getlength(text)) + 16
        if left + room > width and lines[-1]:
            lines.append([])
            left = GAP_PX
        lines[-1].append((text, colour, left))
        left += room
    return [line for line in lines[:MAX_LEGEND_LINES] if line]


def _draw_legend(pen: ImageDraw.ImageDraw, line: Legend, top: int) -> None:
    for text, colour, left in line:
        pen.rectangle((left, top + 3, left + SQUARE_PX, top + 3 + SQUARE_PX), fill=colour)
        pen.text((left + SQUARE_PX + 6, top), text, fill=INK, font=_font())


def _fitting(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, cut in its middle where it is too long: both ends of a path tell something."""
    text = one_line(text)
    if pen.textlength(text, font=_font()) <= width:
        return text
    kept = len(text)
    while kept > 2 and pen.textlength(_cut(text, kept), font=_font()) > width:
        kept -= max(1, kept // 20)
    return _cut(text, kept)


def _cut(text: str, kept: int) -> str:
    return f"{text[: kept // 2]}…{text[len(text) - kept // 2 :]}"


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_PX)
