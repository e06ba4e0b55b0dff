"""The section of the audit page that shows what `relabel findings` found: counts, and the most certain of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import findings
from pipeline.dataset.result import Result
from pipeline.dataset.samples import Photos, ahead
from pipeline.errors import ImageError
from pipeline.report.document import Page
from pipeline.report.gallery import as_svg, draw

PER_KIND = 8
THREADS = 4
STALE = "These are of an earlier generation: run `relabel findings` again."

Row = dict[str, Any]


def section(result: Result, images_root: str | None) -> Page:
    """Empty where nobody has looked for findings."""
    found = findings.latest(result)
    if found is None:
        return Page("", {})
    rows = found.rows.to_pylist()
    new = [row for row in rows if row["verdict"] is None] if found.current else []
    cards, unread = _cards(result, new, images_root)
    note = "" if found.current else f"<p class=note>{STALE}</p>"
    html = (
        f'<section id="findings" aria-labelledby="t-findings"><h2 id="t-findings">Findings <span class="count">'
        f'{len(rows):,}</span></h2><div class="panel">{_table(rows)}{note}</div>{cards}</section>'
    )
    return Page(html, unread)


def _table(rows: Sequence[Row]) -> str:
    counts, judged = Counter(row["kind"] for row in rows), Counter((row["kind"], row["verdict"]) for row in rows)
    lines = "".join(
        f"<tr><th scope=row>{escape(kind)}</th>"
        + "".join(f"<td class=n>{judged[kind, verdict]:,}</td>" for verdict in (None, findings.RIGHT, findings.WRONG))
        + f"<td class=n>{count:,}</td></tr>"
        for kind, count in sorted(counts.items())
    )
    heads = "".join(f"<th scope=col class=n>{name}</th>" for name in ("Not judged", "Right", "Wrong", "All"))
    head = f"<thead><tr><th scope=col>Kind</th>{heads}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{lines}</tbody></table></div>'


def _cards(result: Result, rows: Sequence[Row], images_root: str | None) -> Page:
    """The first of each kind: the table has the most certain ones first."""
    held: Counter[str] = Counter()
    shown = []
    for row in rows:
        held[row["kind"]] += 1
        if held[row["kind"]] <= PER_KIND:
            shown.append(row)
    ids = sorted({row[name] for row in shown for name in ("mask_id", "other_mask_id") if row[name]})
    columns = ["mask_id", "mask_rle", "height", "width"]
    masks = {
        one["mask_id"]: one
        for one in result.masks(pc.is_in(pc.field("mask_id"), pa.array(ids, pa.string())), columns).to_pylist()
    }
    photos = Photos.of(result, images_root)
    unread: dict[str, str] = {}
    drawn = "".join(ahead(lambda row: _card(photos, row, masks, unread), shown, THREADS))
    key = (
        '<p class="keys outlines"><span><i class="dot coarse"></i>the mask in question</span>'
        '<span><i class="dot refined"></i>the one that it collides with</span>'
        f"<span>{len(shown):,} of {len(rows):,} that nobody has judged: the most certain of each kind</span></p>"
    )
    return Page(f'{key}<ul class="cards">{drawn}</ul>' if drawn else "", unread)


def _card(photos: Photos, row: Row, masks: Mapping[str, Row], unread: dict[str, str]) -> str:
    """unread: gains the image, where it cannot be shown."""
    classes = " / ".join(dict.fromkeys(filter(None, (row["category"], row["other_category"]))))
    picture = _picture(photos, row, masks, unread)
    return (
        f'<li class="card">{picture}<div class="what"><p class="name">{escape(row["kind"])}'
        f"{f': {escape(classes)}' if classes else ''}</p>"
        f"<p class=figures>{escape(row['detail'])} · certainty {row['certainty']:.2f}</p>"
        f'<p class="figures">{escape(row["image_uri"])}</p></div></li>'
    )


def _picture(photos: Photos, row: Row, masks: Mapping[str, Row], unread: dict[str, str]) -> str:
    own, other = masks.get(row["mask_id"]), masks.get(row["other_mask_id"])
    rle = own["mask_rle"] if own else row["rle"]
    try:
        photo = photos.read(row["image_uri"], tuple(rle["size"]))
    except ImageError as error:
        unread[row["image_uri"]] = error.reason
        return f'<p class="what bad">no picture: {escape(str(error.reason))}</p>'
    return as_svg(draw(photo, {"coarse_rle": rle, "refined_rle": other and other["mask_rle"]}), row["kind"])
