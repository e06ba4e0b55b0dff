"""Numbers -> inline SVG. Colours and type come from the page's style, by class. Pure; texts are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 38
PLOT_W, PLOT_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
CHART_BINS = 20


def bar(parts: Sequence[tuple[str, int]], label: str) -> str:
    """One bar cut into shares. parts: (class, count)."""
    total = sum(count for _, count in parts) or 1
    at, drawn = 0.0, []
    for name, count in parts:
        width = count / total * 1000
        drawn.append(f'<rect class="{escape(name)}" x="{at:.2f}" y="0" width="{width:.2f}" height="12"/>')
        at += width
    return (
        f'<svg class="bar" viewBox="0 0 1000 12" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{''.join(drawn)}</svg>"
    )


def histogram(kept: npt.NDArray[np.int64], coarse: npt.NDArray[np.int64], of: str = "quality") -> str:
    """Masks by quality, in CHART_BINS bins: those kept as bars, those that came in as a line. Counts over [0, 1].

    of: what the counts are over, where that is not quality.
    """
    bars, line = (values.reshape(CHART_BINS, -1).sum(axis=1) for values in (kept, coarse))
    top = _round_up(int(max(bars.max(), line.max(), 1)))
    step = PLOT_W / CHART_BINS
    drawn = [
        f'<rect class="kept" x="{LEFT + i * step + 1:.1f}" y="{_y(n / top):.1f}" width="{step - 2:.1f}" '
        f'height="{n / top * PLOT_H:.1f}"/>'
        for i, n in enumerate(bars.tolist())
    ]
    corners = [
        f"{LEFT + (i + side) * step:.1f},{_y(n / top):.1f}" for i, n in enumerate(line.tolist()) for side in (0, 1)
    ]
    if line.any():
        drawn.append(f'<polyline class="coarse" points="{" ".join(corners)}"/>')
    ticks = [(0.0, "0"), (0.5, f"{top // 2:,}"), (1.0, f"{top:,}")]
    label = f"Histogram of {of}: {int(bars.sum()):,} masks, half of them above {_median(kept):.2f}"
    return _chart(drawn, ticks, of, label)


def curve(coverage: npt.NDArray[np.float64], risk: npt.NDArray[np.float64], risk_name: str) -> str:
    """Risk against coverage, the surest masks at the left."""
    top = max(0.05, float(np.ceil(risk.max() * 20) / 20))
    points = [
        f"{LEFT + c * PLOT_W:.1f},{_y(r / top):.1f}" for c, r in zip(coverage.tolist(), risk.tolist(), strict=True)
    ]
    drawn = [f'<polyline class="risk" points="{" ".join(points)}"/>']
    drawn += [f'<circle class="risk" cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.5"/>' for p in points]
    ticks = [(share, f"{share * top:.3g}") for share in (0.0, 0.5, 1.0)]
    half = risk[len(risk) // 2 - 1]
    label = f"Risk and coverage: {risk_name} is {risk[-1]:.3f} for all masks, {half:.3f} for the surer half"
    return _chart(drawn, ticks, "share of masks kept, the surest first", label)


def _chart(drawn: Sequence[str], y_ticks: Sequence[tuple[float, str]], x_name: str, label: str) -> str:
    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(share):.1f}" y2="{_y(share):.1f}"/>'
        f'<text x="{LEFT - 7}" y="{_y(share) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        for share, text in y_ticks
    )
    across = "".join(
        f'<text x="{LEFT + share * PLOT_W:.1f}" y="{TOP + PLOT_H + 16}" text-anchor="middle">{share:g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    name = f'<text x="{LEFT + PLOT_W / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_name)}</text>'
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{grid}{across}{name}{''.join(drawn)}</svg>"
    )


def _y(share: float) -> float:
    return TOP + (1 - share) * PLOT_H


def _round_up(count: int) -> int:
    """To the next even number with one or two leading digits."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return max(2, -(-count // (2 * unit)) * 2 * unit)


def _median(counts: npt.NDArray[np.int64]) -> float:
    return float(np.searchsorted(np.cumsum(counts), counts.sum() / 2) / len(counts))
