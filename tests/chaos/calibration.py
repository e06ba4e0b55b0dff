"""What a model of planning's cost may say: nothing of more images than were measured, until it predicted ten million.

measured.jsonl has what `python -m tests.chaos.millions` printed, a line each, on the machine that RESULTS.md names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FITTED, CHECKED, WITHIN = 1_000_000, 10_000_000, 0.15
MEASURED = Path(__file__).with_name("measured.jsonl")


@dataclass(frozen=True)
class Measurement:
    """One plan that was made. peak_mb: resident memory of its largest process, None where it was not measured."""

    images: int
    cpu_s: float
    peak_mb: float | None = None


@dataclass(frozen=True)
class Line:
    """CPU seconds of planning: a + b x images."""

    start_s: float
    image_s: float

    def at(self, images: int) -> float:
        return self.start_s + self.image_s * images


def read_measured(paths: Sequence[Path]) -> list[Measurement]:
    """The plans among the lines of some files."""
    entries = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    plans = [entry for entry in entries if entry["what"] == "planned"]
    return [Measurement(entry["images"], entry["cpu_s"], entry.get("peak_rss_mb")) for entry in plans]


def fit(measured: Sequence[Measurement]) -> Line:
    """By plans of up to FITTED images. Relative errors are what is least. Raises SystemExit for too few."""
    known = [one for one in measured if one.images <= FITTED]
    if len({one.images for one in known}) < 2:
        raise SystemExit(f"two measurements of up to {FITTED} images, of different sizes, are needed to fit the model")
    sizes, seconds = np.array([one.images for one in known], float), np.array([one.cpu_s for one in known])
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    start_s, image_s = np.linalg.lstsq(design, np.ones_like(sizes), rcond=None)[0]
    return Line(float(start_s), float(image_s))


def errors(line: Line, measured: Sequence[Measurement]) -> dict[int, float]:
    """Of what the model was not fitted to, by images: predicted over measured, less one."""
    return {one.images: line.at(one.images) / one.cpu_s - 1 for one in measured if one.images > FITTED}


def is_checked(found: dict[int, float]) -> bool:
    """Whether ten million or more were predicted, and nothing was predicted wrongly."""
    large = [error for images, error in found.items() if images >= CHECKED]
    return bool(large) and all(abs(error) <= WITHIN for error in found.values())


def check(images: int, measured: Sequence[Measurement]) -> Line:
    """The model, where it may speak of so many images. Raises SystemExit that says why it may not."""
    line = fit(measured)
    found, largest = errors(line, measured), max(one.images for one in measured)
    if images > largest and not is_checked(found):
        said = ", ".join(f"{size} {100 * error:+.0f} %" for size, error in found.items()) or "none"
        raise SystemExit(
            f"the model says nothing of {images} images: {largest} were measured, and it was not checked against "
            f"{CHECKED} or more, to within {100 * WITHIN:.0f} % (errors beyond {FITTED}: {said}). Measure them "
            "(tests.chaos.millions) and add the line to measured.jsonl, or name a file of it: --measured"
        )
    return line
