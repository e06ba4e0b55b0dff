"""What a look found -> one HTML file: facts, and images with their masks to zoom into. Nothing loaded from anywhere.

Whatever comes from the data is escaped, or reaches the script as JSON that it puts into text nodes; a strict
Content-Security-Policy stands behind that.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

from pipeline.inspection import words
from pipeline.inspection.look import Found
from pipeline.inspection.views import DrawnMask, View
from pipeline.report.document import document, zoom_dialog
from pipeline.report.gallery import as_webp, outline

ZOOM_SIDE = '<ul class="said" id="zoom-notes"></ul>\n<ul class="masks" id="zoom-masks"></ul>'


def page(found: Found, views: Sequence[View], max_unread: int) -> str:
    """The page as HTML."""
    parts = (_header(found), "<main>", _facts(found, max_unread), _asset("sheet.html"), "</main>")
    body = "\n".join([*parts, zoom_dialog("image", ZOOM_SIDE)])
    data = {"items": [_item(view) for view in views]}
    return document(f"Inspection of {found.masks_uri}", body, data, _asset("inspection.js"), _asset("inspection.css"))


def _header(found: Found) -> str:
    facts = [("Format", f"{found.source} ({found.format})" if found.source else "-"), ("Images", found.images_uri)]
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return (
        f'<header><p class="mark">relabel <span>inspect</span></p><h1>{escape(found.masks_uri)}</h1>'
        f'<dl class="facts">{listed}</dl></header>'
    )


def _facts(found: Found, max_unread: int) -> str:
    *facts, verdict = words.lines(found, max_unread)
    bad = found.refused is not None or found.unread > max_unread
    return (
        '<section aria-labelledby="t-facts"><h2 id="t-facts">What planning would read</h2><div class="panel">'
        f'<p class="verdict{" bad" if bad else ""}">{escape(verdict.partition(": ")[2])}</p>'
        f"<pre>{escape(chr(10).join(facts))}</pre></div></section>"
    )


def _item(view: View) -> dict[str, Any]:
    item: dict[str, Any] = {
        "uri": view.image_uri,
        "size": "" if view.size_hw is None else f"{view.size_hw[1]}x{view.size_hw[0]}",
        "notes": view.notes,
        "lost": view.lost,
        "failed": view.failed,
        "image": None,
        "masks": [],
    }
    if view.pixels is None:
        return item
    height, width = view.pixels.shape[:2]
    masks = [_mask(mask, (width, height)) for mask in view.masks]
    return {**item, "image": as_webp(view.pixels), "width": width, "height": height, "masks": masks}


def _mask(mask: DrawnMask, size_wh: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": mask.source_mask_id,
        "category": mask.category or f"category {mask.category_id}",
        "crowd": mask.crowd,
        "problem": mask.problem,
        "colour": "#{:02x}{:02x}{:02x}".format(*mask.colour_rgb),
        "path": outline(mask.mask, size_wh),
    }


def _asset(name: str) -> str:
    return (resources.files("pipeline.inspection") / "assets" / name).read_text(encoding="utf-8")
