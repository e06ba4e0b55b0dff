"""The overlays of an output: those that the manifest names are what they were, and what they change is known."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset import overlays
from pipeline.dataset.overlays import Row
from pipeline.verify.files import Check
from schemas import layout, records
from schemas.manifest import Manifest


def check_overlays(check: Check, manifest: Manifest) -> dict[str, list[Row]]:
    """Image id -> the changes made to its masks. Overlays that the manifest does not name wait, or were undone."""
    check.named.update(path for path in check.files if layout.overlay_name(path))
    changes: list[Row] = []
    for entry in manifest.overlays:
        local = check.fetch(entry.path, entry.sha256)
        if local is None:
            continue
        table = pq.read_table(local)
        if not records.is_version_of(table.schema, records.OVERLAY):
            check.report.add("schema", entry.path, "has other columns than documented")
            continue
        found = [row for row in table.to_pylist() if row["action"] != overlays.KEPT]
        if len(found) != entry.changes:
            check.report.add("accounting", entry.path, f"has {len(found)} changes, the manifest {entry.changes}")
        changes += found
    _note_others(check, manifest)
    return _fitting(check, manifest, changes)


def _note_others(check: Check, manifest: Manifest) -> None:
    applied = {entry.path for entry in manifest.overlays}
    for path in sorted(check.files):
        place = layout.overlay_name(path)
        if place is not None and place.path == path:
            undone = place.undone in check.files
            if undone and path in applied:
                check.report.notes.append(f"overlay {place.name} was undone and is sealed: `relabel seal` takes it out")
            elif not undone and path not in applied:
                check.report.notes.append(f"overlay {place.name} is not sealed yet: `relabel seal` applies it")


def _fitting(check: Check, manifest: Manifest, changes: list[Row]) -> dict[str, list[Row]]:
    """The changes of images that they fit."""
    sizes = dict(_images(check, manifest, {change["image_id"] for change in changes})) if changes else {}
    found: dict[str, list[Row]] = {}
    for change in changes:
        image = sizes.get(change["image_id"])
        if image is not None and overlays.fits(change, image):
            found.setdefault(change["image_id"], []).append(change)
    return found


def _images(check: Check, manifest: Manifest, image_ids: set[str]) -> Iterator[tuple[str, Row]]:
    wanted = pa.array(sorted(image_ids), pa.string())
    for shard in manifest.images:
        if shard.path not in check.files:
            continue
        columns = ["image_id", "status", "height", "width"]
        table = check.output.read_parquet(shard.path, columns)
        for row in table.filter(pc.is_in(table["image_id"], wanted)).to_pylist():
            yield row["image_id"], row
