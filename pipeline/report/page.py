"""A result -> the audit page: one HTML file, nothing loaded from anywhere.

Whatever comes from the data (category names, paths, ids) is escaped where it stands in HTML, and reaches the script
only as JSON that the script puts into text nodes. A strict Content-Security-Policy stands behind that: no network,
and no script or style but the page's own, by hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from pipeline.dataset import verdicts
from pipeline.dataset.failures import failures
from pipeline.dataset.result import Result, open_result
from pipeline.errors import REASONS
from pipeline.report import charts, coverage, risk, suspects
from pipeline.report.document import Page, document, zoom_dialog
from pipeline.report.gallery import gallery, unread
from pipeline.report.survey import STRATA, Category, Survey, survey
from pipeline.review.verdicts import judged
from pipeline.storage import Access
from pipeline.words import plural
from schemas.manifest import Counts

DECISIONS = {
    "corrected": ("Corrected", "a person's mask"),
    "refined": ("Refined", "the refined mask is the one to train on"),
    "kept_coarse": ("Kept coarse", "the gate did not trust the refined mask"),
    "review": ("Review", "a person should look"),
    "failed": ("Failed", "no mask to train on"),
}
MAX_CATEGORIES = 200
PER_STRATUM = 60
DASH = "–"
WIPE = (
    '<div class="wipe-row"><label class="check"><input type="checkbox" id="wipe">Before and after</label>'
    '<input type="range" id="wipe-at" min="0" max="1" step="0.01" value="0.5" hidden '
    'aria-label="Where coarse ends and refined begins"></div>'
)
JUDGE = '<div class="judge" role="group" aria-label="Verdict" id="zoom-judge"></div>'
ZOOM_SIDE = f'{WIPE}\n{JUDGE}\n<dl id="zoom-facts"></dl>'


def report(
    output: str,
    *,
    access: Access | None = None,
    ground_truth: str | None = None,
    images_root: str | None = None,
    per_stratum: int = PER_STRATUM,
) -> Page:
    """The page of an output's current result.

    ground_truth: COCO JSON of true masks, for measured figures. images_root: where the images are now. Raises
    RefusedError when there is no result, or the truth does not fit it.
    """
    access = access or Access()
    result = open_result(output, access)
    found = survey(result, per_stratum)
    truth = risk.by_truth(result, ground_truth, access) if ground_truth else None
    curve = truth.curve if truth else risk.by_verdicts(judged(result))
    curve = curve or risk.by_estimate(found.quality, result.manifest.calibration_id)
    items = gallery(result, found.shown, images_root)
    earlier = {mask_id: one.verdict for mask_id, (one, _) in verdicts.standing(result).items()}
    suspected = suspects.section(result, images_root)
    html = render(result, found, truth, curve, items, earlier, suspected.html)
    return Page(html, unread(items) | suspected.unread)


def render(
    result: Result,
    found: Survey,
    truth: risk.Truth | None,
    curve: risk.Curve | None,
    items: Sequence[Mapping[str, Any]],
    earlier: Mapping[str, str],
    suspected: str,
) -> str:
    """Everything gathered -> HTML. suspected: the section of findings, as HTML."""
    manifest = result.manifest
    data = {
        "kind": verdicts.KIND,
        "schema_version": verdicts.VERSION,
        "fingerprint": manifest.fingerprint,
        "generation": manifest.generation,
        "output": result.store.uri,
        "strata": [[stratum.name, stratum.title] for stratum in STRATA],
        "decisions": {name: title for name, (title, _) in DECISIONS.items()},
        "reasons": REASONS,
        "verdicts": dict(earlier),
        "items": list(items),
    }
    body = "\n".join(
        [
            _header(result, bool(suspected)),
            "<main>",
            _totals(result, found, truth),
            coverage.section(result.scan(), failures(result)),
            _decisions(manifest.counts),
            _quality(found, curve, manifest.calibration_id),
            _categories(found.categories),
            suspected,
            _asset("gallery.html"),
            "</main>",
            zoom_dialog("mask", ZOOM_SIDE),
        ]
    )
    return document(f"Audit of {result.store.uri}", body, data, _asset("before_after.js") + _asset("page.js"))


def _header(result: Result, with_findings: bool) -> str:
    manifest = result.manifest
    facts = [
        ("Method", manifest.fingerprint),
        ("Generation", manifest.generation),
        ("Calibration", manifest.calibration_id or DASH),
        ("Images", manifest.images_root),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    findings = '<a href="#findings">Findings</a>' if with_findings else ""
    return (
        f'<header><p class="mark">relabel <span>audit</span></p><h1>{escape(result.store.uri)}</h1>'
        f'<dl class="facts">{listed}</dl>'
        '<nav aria-label="Sections"><a href="#overview">Overview</a><a href="#quality">Quality</a>'
        '<a href="#categories">Categories</a>'
        f'{findings}<a href="#gallery">Gallery</a></nav></header>'
    )


def _totals(result: Result, found: Survey, truth: risk.Truth | None) -> str:
    counts = result.manifest.counts
    images = sum(counts.images.values())
    known = sum(category.quality_known for category in found.categories.values())
    mean = sum(category.quality_sum for category in found.categories.values()) / known if known else None
    tiles = [
        (f"{found.masks:,}", "masks", f"on {plural(images, 'image')}"),
        (_share(counts.decisions.get("refined", 0), found.masks), "refined", "the model’s mask was taken"),
        (_share(_kept(counts.decisions), found.masks), "kept coarse", "the gate held the model’s mask back"),
        (_share(counts.decisions.get("failed", 0), found.masks), "failed", "no mask to train on"),
        (DASH if mean is None else f"{mean:.3f}", "mean quality", "estimated IoU with the truth"),
    ]
    if truth is not None:
        told = f"true IoU; {truth.coarse_iou:.3f} as it came in, {plural(truth.masks, 'mask')}"
        tiles.append((f"{truth.mask_iou:.3f}", "mean IoU", told))
    drawn = "".join(
        f"<li><strong>{escape(value)}</strong><span class=name>{escape(name)}</span><small>{escape(what)}</small></li>"
        for value, name, what in tiles
    )
    heading = '<section id="overview" aria-labelledby="t-overview"><h2 id="t-overview">Overview</h2>'
    return f'{heading}<ul class="tiles">{drawn}</ul></section>'


def _decisions(counts: Counts) -> str:
    decisions = [(name, counts.decisions.get(name, 0)) for name in DECISIONS]
    decisions = [(name, count) for name, count in decisions if count]
    total = sum(count for _, count in decisions)
    label = ", ".join(f"{DECISIONS[name][0]} {_share(count, total)}" for name, count in decisions)
    legend = "".join(
        f'<li><i class="dot {name}"></i><b>{DECISIONS[name][0]}</b> {count:,}<small>{DECISIONS[name][1]}</small></li>'
        for name, count in decisions
    )
    reasons = [("mask", *entry) for entry in counts.mask_reasons.items()]
    reasons += [("image", *entry) for entry in counts.image_reasons.items()]
    rows = "".join(
        f"<tr><th scope=row><code>{escape(code)}</code></th><td>{escape(REASONS.get(code, ''))}</td>"
        f"<td class=n>{count:,} {kind}{'' if count == 1 else 's'}</td></tr>"
        for kind, code, count in sorted(reasons, key=lambda reason: (-reason[2], reason[1]))
    )
    return (
        '<section aria-labelledby="t-decisions"><h2 id="t-decisions">Decisions and reasons</h2><div class="panel">'
        f'{charts.bar(decisions, label)}<ul class="legend">{legend}</ul>'
        f'<div class="scroll"><table><thead><tr><th scope=col>Reason</th><th scope=col>What it means</th>'
        f"<th scope=col class=n>Count</th></tr></thead><tbody>{rows}</tbody></table></div></div></section>"
    )


def _quality(found: Survey, curve: risk.Curve | None, calibration_id: str | None) -> str:
    if not found.quality.any():
        panel = "<div class=panel><p>No mask of this result has a quality: its refiner does not estimate one.</p></div>"
        return f'<section id="quality" aria-labelledby="t-quality"><h2 id="t-quality">Quality</h2>{panel}</section>'
    left = (
        '<figure class="panel"><figcaption><h3>Estimated quality</h3>'
        '<p><i class="dot kept"></i>masks kept <i class="dot line"></i>masks that came in</p></figcaption>'
        f"{charts.histogram(found.quality, found.quality_coarse)}"
        f"<p class=note>Estimates of the IoU with the truth, from {escape(str(calibration_id))}.</p></figure>"
    )
    right = ""
    if curve is not None:
        right = (
            '<figure class="panel"><figcaption><h3>Risk and coverage</h3>'
            f"<p>{escape(curve.risk_name)}, when only the surest masks are kept</p></figcaption>"
            f"{charts.curve(curve.coverage, curve.risk, curve.risk_name)}"
            f'<p class=note id="basis">Risk {escape(curve.basis)}.</p></figure>'
        )
    return (
        '<section id="quality" aria-labelledby="t-quality"><h2 id="t-quality">Quality</h2>'
        f'<div class="pair">{left}{right}</div></section>'
    )


def _categories(categories: Mapping[str | None, Category]) -> str:
    ranked = sorted(categories.items(), key=lambda entry: (-entry[1].masks, str(entry[0])))
    rows = [_category_row(escape(name or DASH), one) for name, one in ranked[:MAX_CATEGORIES]]
    if len(ranked) > MAX_CATEGORIES:
        rest = _sum([one for _, one in ranked[MAX_CATEGORIES:]])
        rows.append(_category_row(f"<em>{len(ranked) - MAX_CATEGORIES:,} more</em>", rest))
    heads = "".join(
        f"<th scope=col class=n>{name}</th>"
        for name in ("Masks", "Refined", "Kept", "Failed", "Quality", "IoU to coarse")
    )
    return (
        '<section id="categories" aria-labelledby="t-categories"><h2 id="t-categories">Categories'
        f' <span class="count">{len(ranked):,}</span></h2>'
        '<div class="panel scroll tall" tabindex="0" role="region" aria-label="Table of categories">'
        '<table class="stacked">'
        f"<thead><tr><th scope=col>Category</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "</section>"
    )


def _category_row(name: str, one: Category) -> str:
    """name: already HTML."""
    shares = (one.decisions.get("refined", 0), _kept(one.decisions), one.decisions.get("failed", 0))
    cells = [f"{one.masks:,}", *(_share(count, one.masks) for count in shares)]
    cells.append(f"{one.quality_sum / one.quality_known:.3f}" if one.quality_known else DASH)
    cells.append(f"{one.coarse_iou_sum / one.coarse_iou_known:.3f}" if one.coarse_iou_known else DASH)
    return f"<tr><th scope=row>{name}</th>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>"


def _sum(several: Sequence[Category]) -> Category:
    total = Category()
    for one in several:
        total.masks += one.masks
        total.quality_sum += one.quality_sum
        total.quality_known += one.quality_known
        total.coarse_iou_sum += one.coarse_iou_sum
        total.coarse_iou_known += one.coarse_iou_known
        for name, count in one.decisions.items():
            total.decisions[name] = total.decisions.get(name, 0) + count
    return total


def _kept(decisions: Mapping[str, int]) -> int:
    return decisions.get("kept_coarse", 0) + decisions.get("review", 0)


def _share(part: int, whole: int) -> str:
    """A percentage that says 0 % only of nothing, and 100 % only of everything."""
    if not whole or part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(99.9, max(0.1, part / whole * 100)):.1f} %"


def _asset(name: str) -> str:
    return (resources.files("pipeline.report") / "assets" / name).read_text(encoding="utf-8")
