"""Sealing: parts -> calibration, gate -> training-ready shards -> manifest -> the switch.

Chunks in plan order are grouped by the size of their parts; each group becomes one shard of masks and one of images,
named by the hash of their content; a group that the last seal had is not read again (`shard_groups.py`). Grouping, gate
and sorting depend on plan, parts, gate and calibration alone, so a seal repeated anywhere gives the same bytes. Every
planned image and mask of a sealed chunk is checked to be there exactly once before `current.json` is switched. What a
row becomes is `shard_rows.py`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray

from pipeline.calibration.apply import drifted
from pipeline.errors import JobError, RefusedError
from pipeline.masks import gate as mask_gate
from pipeline.output.manifest import KEEP_ONE, Retention, Sealed, commit
from pipeline.output.shard_groups import Group, group_parts, sealed_before, to_manifest
from pipeline.output.shard_rows import Row, add_counts, add_drift, count, seal_masks
from pipeline.planning.increment import Plan
from pipeline.planning.scans import scan_entry
from pipeline.refining.parts import FinishedPart, PartFile, find_parts, read_part
from pipeline.refining.retry_rounds import read_rounds, rounds_done
from pipeline.storage import Store, parquet_bytes
from pipeline.storage.lease import Fence
from schemas.calibration import Calibration
from schemas.config import Gate, digest
from schemas.records import IMAGES, MASKS, SCHEMA_VERSION

ROW_GROUP_ROWS = 16_384
IN_FLIGHT = 16


def seal(
    output: Store,
    run: Store,
    fingerprint: str,
    plan: Plan,
    gate: Gate,
    *,
    calibration: Calibration | None = None,
    shard_bytes: int,
    images_root: str,
    retention: Retention = KEEP_ONE,
    fence: Fence = lambda: None,
    on_parts: Callable[[int], None] = lambda _count: None,
) -> Sealed:
    """Seal every finished part. Raises JobError when the accounting does not come out.

    calibration: what turns scores into estimates; None: the fixed formula of masks/gate.py.
    fence: called before the switch; raises when this process no longer may. on_parts: called with the number of parts
    of each shard written, for progress.
    """
    parts = find_parts(run, plan)
    if not parts:
        raise RefusedError(f"nothing to seal: {run.uri} has no finished part")
    groups = {group.key(gate, calibration): group for group in group_parts(parts, plan, shard_bytes)}
    known = sealed_before(run)
    fresh = _seal_groups(output, run, gate, calibration, [group for key, group in groups.items() if key not in known])
    entries = []
    for key, group in groups.items():
        entries.append({**(known.get(key) or next(fresh)), "key": key})
        on_parts(len(group.parts))
    files = [PartFile(*file) for entry in entries for file in entry["parts"]]
    manifest = _manifest(fingerprint, plan, gate, calibration, parts, entries, images_root)
    rounds = read_rounds(run)
    manifest["scan"] = scan_entry(output)
    manifest["retries"] = {"done": rounds_done(rounds, plan, parts), "sha256": [one.sha256 for one in rounds]}
    return commit(output, run, manifest, files, retention, fence)


def seal_group(output: Store, run: Store, gate: Gate, calibration: Calibration | None, group: Group) -> dict[str, Any]:
    """Write one shard of masks and one of images; returns their manifest entries and counts."""
    image_rows: list[Row] = []
    part_masks: list[tuple[Row, Row]] = []
    executions: set[str] = set()
    files: list[PartFile] = []
    for part in group.parts:
        content = read_part(run, part)
        executions |= content.executions
        files += content.files
        _check_accounting(output, part, content.rows)
        for row in content.rows:
            if (part.chunk.chunk_id, row["image_id"]) not in group.superseded:
                image_rows.append({"detail": None, "extra": None, **row, "masks": len(row["masks"])})
                part_masks += [(row, mask) for mask in row["masks"]]
    mask_rows, drift = seal_masks(part_masks, gate, calibration)
    return {
        "images": _put_shard(run, "images", image_rows, IMAGES),
        "masks": _put_shard(run, "masks", mask_rows, MASKS),
        "execution_classes": sorted(executions),
        "parts": [tuple(file) for file in files],
        "counts": count(image_rows, mask_rows),
        "drift": drift,
    }


def _check_accounting(output: Store, part: FinishedPart, rows: Sequence[Row]) -> None:
    """The part holds exactly the images and masks that the plan has for its chunk, in that order."""
    chunk = part.chunk
    columns = ["image_id", "masks.list.element.mask_id"]
    planned = output.read_rows(chunk.file, chunk.row_start, part.images, columns).to_pylist()
    expected = [(row["image_id"], [mask["mask_id"] for mask in row["masks"]]) for row in planned]
    found = [(row["image_id"], [mask["mask_id"] for mask in row["masks"]]) for row in rows]
    if expected != found:
        raise JobError(
            f"{part.path} does not hold what the plan has for chunk {chunk.chunk_id}; delete it and run again"
        )


def _put_shard(run: Store, kind: str, rows: list[Row], schema: pa.Schema) -> dict[str, Any]:
    names = set(schema.names)
    table = pa.Table.from_pylist([{key: row[key] for key in row if key in names} for row in rows], schema)
    data = parquet_bytes(table, ROW_GROUP_ROWS)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{kind}/{sha256[:32]}.parquet"
    if not run.exists(path):
        run.put(path, data)
    return {"path": path, "rows": table.num_rows, "bytes": len(data), "sha256": sha256}


def _seal_groups(
    output: Store, run: Store, gate: Gate, calibration: Calibration | None, groups: Sequence[Group]
) -> Iterator[dict[str, Any]]:
    """Seal groups as Ray tasks, a bounded number at a time; in this process when there is only one."""
    if len(groups) == 1 or not ray.is_initialized():
        yield from (seal_group(output, run, gate, calibration, group) for group in groups)
        return
    task = ray.remote(seal_group)
    pending: list[Any] = []
    for group in groups:
        pending.append(task.remote(output, run, gate, calibration, group))
        if len(pending) >= IN_FLIGHT:
            yield ray.get(pending.pop(0))
    yield from (ray.get(reference) for reference in pending)


def _manifest(
    fingerprint: str,
    plan: Plan,
    gate: Gate,
    calibration: Calibration | None,
    parts: Sequence[FinishedPart],
    entries: Sequence[dict[str, Any]],
    images_root: str,
) -> dict[str, Any]:
    folder = f"runs/{fingerprint}"
    counts = add_counts([entry["counts"] for entry in entries])
    sealed_images = sum(counts["images"].values())
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "gate": gate.model_dump(mode="json"),
        "gate_digest": digest(gate.model_dump(mode="json")),
        "calibration_id": calibration.calibration_id if calibration else mask_gate.UNCALIBRATED,
        "calibration_digest": digest(calibration.model_dump(mode="json")) if calibration else None,
        "drift": drifted(add_drift([entry["drift"] for entry in entries]), calibration),
        "images_root": images_root,
        "increments": plan.increments,
        "plan": plan.markers,
        "execution_classes": sorted({name for entry in entries for name in entry["execution_classes"]}),
        "planned": {"images": plan.images, "chunks": len(plan.chunks)},
        "sealed": {"images": sealed_images, "masks": sum(counts["decisions"].values()), "chunks": len(parts)},
        "counts": counts,
        "masks": [{**entry["masks"], "path": f"{folder}/{entry['masks']['path']}"} for entry in entries],
        "images": [{**entry["images"], "path": f"{folder}/{entry['images']['path']}"} for entry in entries],
        "groups": to_manifest(entries),
    }
    if sum(entry["rows"] for entry in manifest["images"]) != sealed_images:
        raise JobError("the shards' rows and the counted images differ")
    return manifest
