"""Sealing: parts -> gate -> training-ready shards -> manifest -> the switch.

Chunks in plan order are grouped by the size of their parts; each group becomes one shard of masks and one of images,
named by the hash of their content. Grouping, gate and sorting depend on plan, parts and gate alone, so a seal repeated
anywhere gives the same bytes. Every planned image and mask of a sealed chunk is checked to be there exactly once
before `current.json` is switched.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from pipeline import masks, quality
from pipeline.dataset import read_current
from pipeline.errors import JobError, RefusedError
from pipeline.plan import Chunk, Plan
from pipeline.storage import Store, parquet_bytes
from schemas.config import Gate, digest
from schemas.records import IMAGES, MASKS, SCHEMA_VERSION, SCORES

ROW_GROUP_ROWS = 16_384
PART_TO_SHARD = 1.5  # a shard is about this much larger than its parts: it adds the chosen mask
IN_FLIGHT = 16

Row = dict[str, Any]
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class SealedPart:
    """A part that goes into the seal, and how many of its chunk's images it holds (all, unless a limit cut it)."""

    chunk: Chunk
    path: str
    size: int
    images: int


@dataclass(frozen=True)
class Group:
    """The parts of one shard, and the image ids in them that later increments superseded."""

    parts: list[SealedPart]
    superseded: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Sealed:
    """The generation that readers now see."""

    generation: int
    manifest: dict[str, Any]
    changed: bool


def find_parts(run: Store, plan: Plan) -> list[SealedPart]:
    """The plan's finished chunks in order; of a chunk cut by several limits the longest part counts."""
    found: dict[str, tuple[int, str, int]] = {}
    by_id = {chunk.chunk_id: chunk for chunk in plan.chunks}
    for file in run.list("parts"):
        chunk_id, _, cut = PurePosixPath(file.path).stem.partition(".first")
        if chunk_id in by_id:
            images = int(cut) if cut else by_id[chunk_id].images
            found[chunk_id] = max(found.get(chunk_id, (0, "", 0)), (images, file.path, file.size))
    return [
        SealedPart(chunk, found[chunk.chunk_id][1], found[chunk.chunk_id][2], found[chunk.chunk_id][0])
        for chunk in plan.chunks
        if chunk.chunk_id in found
    ]


def seal(
    output: Store,
    run: Store,
    fingerprint: str,
    plan: Plan,
    gate: Gate,
    *,
    shard_bytes: int,
    images_root: str,
    on_parts: Callable[[int], None] = lambda _count: None,
) -> Sealed:
    """Seal every finished part. Raises JobError when the accounting does not come out.

    on_parts: called with the number of parts of each shard written, for progress.
    """
    parts = find_parts(run, plan)
    if not parts:
        raise RefusedError(f"nothing to seal: {run.uri} has no finished part")
    entries = []
    groups = list(group_parts(parts, plan, shard_bytes))
    for group, entry in zip(groups, _seal_groups(output, run, gate, groups), strict=True):
        entries.append(entry)
        on_parts(len(group.parts))
    manifest = _manifest(fingerprint, plan, gate, parts, entries, images_root)
    return _commit(output, run, fingerprint, manifest)


def group_parts(parts: Sequence[SealedPart], plan: Plan, shard_bytes: int) -> Iterator[Group]:
    """Consecutive parts of one increment, about `shard_bytes` of shard each."""
    held: list[SealedPart] = []
    size = 0.0

    def group() -> Group:
        ids = {part.chunk.chunk_id for part in held}
        return Group(held, frozenset(pair for pair in plan.superseded if pair[0] in ids))

    for part in parts:
        full = size + part.size * PART_TO_SHARD > shard_bytes
        if held and (full or _increment(held[-1].chunk) != _increment(part.chunk)):
            yield group()
            held, size = [], 0.0
        held.append(part)
        size += part.size * PART_TO_SHARD
    if held:
        yield group()


def seal_group(output: Store, run: Store, gate: Gate, group: Group) -> dict[str, Any]:
    """Write one shard of masks and one of images; returns their manifest entries and counts."""
    image_rows: list[Row] = []
    mask_rows: list[Row] = []
    executions = set()
    for part in group.parts:
        table = pq.read_table(pa.BufferReader(run.read(part.path)))
        executions.add((table.schema.metadata or {}).get(b"execution_class", b"").decode())
        rows = table.to_pylist()
        _check_accounting(output, part, rows)
        for row in rows:
            if (part.chunk.chunk_id, row["image_id"]) not in group.superseded:
                image_rows.append({**row, "masks": len(row["masks"])})
                mask_rows += [seal_mask(row, mask, gate) for mask in row["masks"]]
    return {
        "images": _put_shard(run, "images", image_rows, IMAGES),
        "masks": _put_shard(run, "masks", mask_rows, MASKS),
        "execution_classes": sorted(executions),
        "counts": count(image_rows, mask_rows),
    }


def seal_mask(image: Row, mask: Row, gate: Gate) -> Row:
    """A part's mask -> a row of the shard: decision, quality, and the geometry of the mask that was kept."""
    row = {name: mask[name] for name in ("mask_id", "source_mask_id", "category_id", "category")}
    row |= {name: image[name] for name in ("image_id", "image_uri", "source_image_id", "height", "width")}
    row |= {name: mask[name] for name in ("coarse_rle", "refined_rle", *(name for name, _ in SCORES))}
    row |= dict.fromkeys(["mask_rle", "bbox_xywh", "area", "quality", "quality_lower"])
    row |= {"quality_coarse": None, "quality_refined": None, "calibration_id": None}
    if mask["reason"] is not None:
        return {**row, "decision": "failed", "reason": mask["reason"]}
    estimated = quality.estimate(mask)
    decision, reason = quality.decide(mask, estimated, gate)
    kept = mask["refined_rle"] if decision == "refined" else mask["coarse_rle"]
    return {
        **row,
        "decision": decision,
        "reason": reason,
        "mask_rle": kept,
        "bbox_xywh": masks.bbox_xywh(kept),
        "area": masks.area(kept),
        "quality": _known(estimated.refined if decision == "refined" else estimated.coarse),
        "quality_coarse": _known(estimated.coarse),
        "quality_refined": _known(estimated.refined),
        "calibration_id": quality.UNCALIBRATED,
    }


def _known(value: float) -> float | None:
    """NaN as null: some readers sort NaN above every number, and would take it for the best quality."""
    return None if math.isnan(value) else value


def count(image_rows: Sequence[Row], mask_rows: Sequence[Row]) -> Counts:
    """Images by status, masks by decision, and rows of both by reason."""
    return {
        "images": dict(Counter(row["status"] for row in image_rows)),
        "decisions": dict(Counter(row["decision"] for row in mask_rows)),
        "image_reasons": dict(Counter(row["reason"] for row in image_rows if row["reason"])),
        "mask_reasons": dict(Counter(row["reason"] for row in mask_rows)),
    }


def add_counts(counts: Sequence[Counts]) -> Counts:
    """Sum of several counts, keys sorted."""
    total: dict[str, Counter[str]] = {}
    for one in counts:
        for kind, numbers in one.items():
            total.setdefault(kind, Counter()).update(numbers)
    return {kind: dict(sorted(numbers.items())) for kind, numbers in total.items()}


def _check_accounting(output: Store, part: SealedPart, rows: Sequence[Row]) -> None:
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


def _seal_groups(output: Store, run: Store, gate: Gate, groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Seal groups as Ray tasks, a bounded number at a time; in this process when there is only one."""
    if len(groups) == 1 or not ray.is_initialized():
        yield from (seal_group(output, run, gate, group) for group in groups)
        return
    task = ray.remote(seal_group)
    pending: list[Any] = []
    for group in groups:
        pending.append(task.remote(output, run, gate, group))
        if len(pending) >= IN_FLIGHT:
            yield ray.get(pending.pop(0))
    yield from (ray.get(reference) for reference in pending)


def _manifest(
    fingerprint: str,
    plan: Plan,
    gate: Gate,
    parts: Sequence[SealedPart],
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
        "calibration_id": quality.UNCALIBRATED,
        "images_root": images_root,
        "increments": plan.increments,
        "execution_classes": sorted({name for entry in entries for name in entry["execution_classes"]}),
        "planned": {"images": plan.images, "chunks": len(plan.chunks)},
        "sealed": {"images": sealed_images, "masks": sum(counts["decisions"].values()), "chunks": len(parts)},
        "counts": counts,
        "masks": [{**entry["masks"], "path": f"{folder}/{entry['masks']['path']}"} for entry in entries],
        "images": [{**entry["images"], "path": f"{folder}/{entry['images']['path']}"} for entry in entries],
    }
    if sum(entry["rows"] for entry in manifest["images"]) != sealed_images:
        raise JobError("the shards' rows and the counted images differ")
    return manifest


def _commit(output: Store, run: Store, fingerprint: str, manifest: dict[str, Any]) -> Sealed:
    """Write the manifest, switch `current.json`, and remove shards that no longer count."""
    current = read_current(output)
    if current and current["fingerprint"] == fingerprint:
        previous = json.loads(run.read(f"seals/{current['generation']}/manifest.json"))
        if {**previous, "generation": None} == {**manifest, "generation": None}:
            return Sealed(current["generation"], previous, changed=False)
    generations = {int(PurePosixPath(file.path).parts[1]) for file in run.list("seals")}
    generation = max(generations, default=-1) + 1
    manifest = {**manifest, "generation": generation}
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    run.put(f"seals/{generation}/manifest.json", data)
    run.put(f"seals/{generation}/_SUCCESS", b"")
    pointer = {
        "fingerprint": fingerprint,
        "generation": generation,
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
    }
    output.put("current.json", json.dumps(pointer).encode())
    _remove_unlisted(run, manifest)
    return Sealed(generation, manifest, changed=True)


def _remove_unlisted(run: Store, manifest: dict[str, Any]) -> None:
    """Delete the run's shards that the manifest does not list, so that a plain glob over them is right."""
    live = {entry["path"] for kind in ("masks", "images") for entry in manifest[kind]}
    for folder in ("masks", "images"):
        for file in run.list(folder):
            if f"runs/{manifest['fingerprint']}/{file.path}" not in live:
                run.delete(file.path)


def _increment(chunk: Chunk) -> str:
    return chunk.chunk_id.partition("-")[0]
