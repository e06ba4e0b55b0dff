"""The figures and examples as one HTML file: nothing loaded from anywhere, every string escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from pipeline.comparison import show
from pipeline.comparison.compare import Difference, Example
from pipeline.comparison.measure import ADDED, CHANGED, REMOVED, STATES, Tally
from pipeline.comparison.sides import Side
from pipeline.dataset.samples import Photos, ahead
from pipeline.errors import ImageError
from pipeline.report import charts
from pipeline.report.document import Page, document
from pipeline.report.gallery import as_svg, draw, is_known

THREADS = 4
MOST_CATEGORIES = 200
TITLES = {
    CHANGED: "Changed, the lowest IoU first",
    ADDED: "Added, a random choice",
    REMOVED: "Removed, a random choice",
}
STYLE = ".keyed { margin: 0 0 12px; } .narrow { max-width: 620px; }"


def page(found: Difference, before: Side, after: Side, images_root: str | None) -> Page:
    """images_root: where the images are now."""
    unread: dict[str, str] = {}
    parts = [_header(found), "<main>", _totals(found), _outlines(found)]
    parts += [_groups(title, kind, show.ranked(found, kind)) for kind, title in show.KINDS.items()]
    parts += [
        _examples(state, some, Photos.of((before if state == REMOVED else after).result, images_root), unread)
        for state, some in found.examples.items()
        if some
    ]
    html = document(f"{found.names[0]} and {found.names[1]}", "\n".join([*parts, "</main>"]), {}, "", STYLE)
    return Page(html, unread)


def _header(found: Difference) -> str:
    facts = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
        for name, value in zip(("Before", "After"), found.names, strict=True)
    )
    return (
        '<header><p class="mark">relabel <span>diff</span></p><h1>What changed</h1>'
        f'<dl class="facts">{facts}</dl></header>'
    )


def _totals(found: Difference) -> str:
    said = {
        "same": "mask, class and crowd alike",
        "changed": "another outline, class or crowd",
        "added": "after alone",
        "removed": "before alone",
    }
    tiles = "".join(
        f"<li><strong>{found.all.states[state]:,}</strong><span class=name>{state}</span>"
        f"<small>{said[state]}</small></li>"
        for state in STATES
    )
    lines = "\n".join(show.sentences(found)[1:])
    return (
        '<section aria-labelledby="t-totals"><h2 id="t-totals">Masks</h2>'
        f'<ul class="tiles">{tiles}</ul><pre class="panel note">{escape(lines)}</pre></section>'
    )


def _outlines(found: Difference) -> str:
    counts = np.asarray(show.differing(found.all), np.int64)
    if not counts.any():
        return ""
    chart = charts.histogram(counts, np.zeros_like(counts), "IoU of before and after")
    return (
        '<section aria-labelledby="t-iou"><h2 id="t-iou">Masks that differ, by IoU</h2>'
        f'<figure class="panel narrow">{chart}</figure></section>'
    )


def _groups(title: str, kind: str, groups: Sequence[tuple[str, Tally]]) -> str:
    heads = "".join(f"<th scope=col class=n>{head}</th>" for head in show.HEADS)
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th>{''.join(f'<td class=n>{cell}</td>' for cell in show.cells(tally))}</tr>"
        for name, tally in groups[:MOST_CATEGORIES]
    )
    more = f" (the {MOST_CATEGORIES} that differ most)" if len(groups) > MOST_CATEGORIES else ""
    return (
        f'<section aria-labelledby="t-{kind}"><h2 id="t-{kind}">{title} '
        f'<span class="count">{len(groups):,}{more}</span></h2>'
        f'<div class="panel scroll tall" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>'
        f"<th scope=col>{kind}</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _examples(state: str, some: Sequence[Example], photos: Photos, unread: dict[str, str]) -> str:
    """unread: gains the images that cannot be shown."""
    cards = "".join(ahead(lambda one: _card(photos, one, unread), some, THREADS))
    return (
        f'<section aria-labelledby="t-{state}"><h2 id="t-{state}">{TITLES[state]} '
        f'<span class="count">{len(some)}</span></h2><p class="keyed outlines"><span><i class="dot coarse"></i>before'
        f'</span><span><i class="dot refined"></i>after</span></p><ul class="cards">{cards}</ul></section>'
    )


def _card(photos: Photos, one: Example, unread: dict[str, str]) -> str:
    row, iou = one.change.row, one.change.iou
    figures = [str(row["decision"] or ""), "" if iou is None else f"IoU {iou:.3f}"]
    figures += [] if one.change.area_ratio is None else [f"area {100 * (one.change.area_ratio - 1):+.0f} %"]
    said = "".join(f"<span>{escape(text)}</span>" for text in figures if text)
    names = " -> ".join(dict.fromkeys(str(side["category"] or "") for side in (one.change.before, row) if side))
    return (
        f'<li class="card">{_picture(photos, one, unread)}<div class="what"><p class="name">{escape(names)}</p>'
        f'<p class="figures">{said}</p><p class="figures">{escape(one.image["image_uri"])} · '
        f"{escape(str(row['source_mask_id']))}</p></div></li>"
    )


def _picture(photos: Photos, one: Example, unread: dict[str, str]) -> str:
    image = one.image
    try:
        photo = photos.read(image["image_uri"], (image["height"], image["width"]))
    except ImageError as error:
        if not is_known(one.change.row, error.reason):
            unread[image["image_uri"]] = error.reason
        return f'<p class="what bad">no picture: {escape(str(error.reason))}</p>'
    before, after = one.change.before, one.change.after
    drawn = draw(photo, {"coarse_rle": before and before["rle"], "refined_rle": after and after["rle"]})
    return as_svg(drawn, "before, after")
