"""Presets: methods by name, as the keys that they set."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "fast": {"crop_ratio": 0.0, "mirror": False, "colour_vote": 0.0},
    "balanced": {"crop_ratio": 0.0, "mirror": True, "colour_vote": 0.4},
    "best": {"crop_ratio": 1.6, "crop_below": 0.5, "crop_sides": 4, "mirror": True, "colour_vote": 0.4},
    "published-code": {
        "elastic_threshold": 0.0,
        "gaussian_form": "code",
        "gaussian_gamma": 4.0,
        "gaussian_strength": 30.0,
        "iterations": 5,
    },
    "published-paper": {
        "elastic_threshold": 0.1,
        "gaussian_form": "paper",
        "gaussian_gamma": 4.0,
        "gaussian_strength": 15.0,
        "iterations": 5,
    },
}
"""Named methods. fast: one look at each mask; balanced: the mirror image and the colours too; best: small objects once
more, in a crop. What that gains stands in tests/benchmarks/RESULTS.md. The two published ones are SAMRefiner as its
code and as its paper have it."""
