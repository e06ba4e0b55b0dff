"""Findings as a table for a terminal, and as a file of patches to edit."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from pipeline.corrections import patch_file
from pipeline.corrections.patch_file import NO, YES
from pipeline.dataset.findings import RIGHT
from pipeline.findings.find import Looked, open_findings
from pipeline.findings.kinds import ADD, CLASS, KINDS
from pipeline.words import plural

EXAMPLES = 2
_CARRIED = ("action", "image_id", "mask_id", "category", "rle", "finding_id", "kind", "other_mask_id", "other_category")


def table(looked: Looked) -> Table:
    """How many of each kind, and the most certain ones."""
    shown = Table(
        title=f"findings in {plural(looked.masks, 'mask')} on {plural(looked.images, 'image')}", title_justify="left"
    )
    shown.add_column("kind")
    for head in ("found", "not judged"):
        shown.add_column(head, justify="right")
    shown.add_column("what it is, and the most certain")
    for name, kind in KINDS.items():
        own = looked.table.filter(pc.equal(looked.table["kind"], name))
        waiting = open_findings(own)
        said = [kind.title, *(_example(row) for row in waiting.slice(0, EXAMPLES).to_pylist())]
        shown.add_row(name, f"{own.num_rows:,}", f"{waiting.num_rows:,}", "\n".join(said))
    return shown


def as_patches(found: pa.Table, uri: str, min_certainty: float = 0.0, accept_above: float | None = None) -> bytes:
    """The findings as the file of patches that `uri` is, each with a `verdict` to fill in.

    accept_above: certainty from which on one that nobody has judged, and that has a cure, is given the verdict yes; but
    no mask is added without a person.
    """
    rows = found.filter(pc.greater_equal(found["certainty"], min_certainty)).to_pylist()
    return patch_file.write([_patch(row, accept_above) for row in rows], uri)


def _patch(row: dict[str, Any], accept_above: float | None) -> dict[str, Any]:
    verdict = {None: "", RIGHT: YES}.get(row["verdict"], NO)
    if accept_above is not None and not verdict and row["action"] not in (patch_file.LOOK, ADD):
        verdict = YES if row["certainty"] >= accept_above else ""
    carried = {name: row[name] for name in _CARRIED}
    if row["action"] == CLASS:  # what the mask is to become, and what it is
        carried |= {"category": row["other_category"], "other_category": row["category"]}
    return {"verdict": verdict, **carried, "certainty": round(row["certainty"], 4), "detail": row["detail"]}


def _example(row: dict[str, Any]) -> str:
    mask = f", {row['category'] or 'mask'} {row['mask_id']}" if row["mask_id"] else ""
    return f"  {row['image_uri']}{mask}: {row['detail']}"
