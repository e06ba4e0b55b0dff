"""The person who judges findings, played by what is known of the faults: yes where a finding is of a planted one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pipeline

Row = dict[str, Any]


def planted(output: Path) -> dict[str, Row]:
    """Mask id -> what was planted with it: `planted` and `truth_id`, which travelled in `extra`."""
    rows = pipeline.open(str(output)).masks(columns=["mask_id", "extra", "image_id"]).to_pylist()
    return {row["mask_id"]: {**json.loads(row["extra"] or "{}"), "image_id": row["image_id"]} for row in rows}


def is_right(finding: Row, known: dict[str, Row]) -> bool:
    """Whether what a finding says is so."""
    own, other = (known.get(finding.get(name) or "", {}) for name in ("mask_id", "other_mask_id"))
    if finding["kind"] == "duplicate":
        return own.get("truth_id") is not None and own.get("truth_id") == other.get("truth_id")
    return own.get("planted") == finding["kind"]


def judge(patches: Path, output: Path) -> dict[str, int]:
    """Fill in the verdicts of a file of patches. Returns the counts."""
    known, content = planted(output), json.loads(patches.read_text())
    for patch in content["patches"]:
        patch["verdict"] = "yes" if is_right(patch, known) else "no"
    patches.write_text(json.dumps(content, indent=1))
    return {word: sum(one["verdict"] == word for one in content["patches"]) for word in ("yes", "no")}
