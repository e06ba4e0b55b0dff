"""Checking an output from its files alone: the chain of hashes, the accounting, and every row.

The pointer names the manifest by its hash, the manifest the shards, the parts and the plan's increments by theirs,
an increment its files (`files.py`). What the plan has and what the shards hold are compared image by image and
mask by mask (`accounting.py`), and every row with what it claims (`rows.py`). Files that nobody names are findings.

Rows pass through in batches, and ids through files on disk, so memory does not grow with the result. Not here: results
of other methods beside the current one, and what waits for a seal.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.overlays import ids_after
from pipeline.errors import RefusedError
from pipeline.masks.gate import tenth
from pipeline.planning.attempts import increments
from pipeline.planning.increment import Chunk, Plan, read_plan
from pipeline.planning.rows import chunk_digest
from pipeline.sources import mask_id
from pipeline.storage import Access, Store
from pipeline.storage.disk_table import scratch_folder
from pipeline.verify.accounting import Ledger
from pipeline.verify.coverage import check_scans
from pipeline.verify.files import Check, Current, Report, check_extra, check_manifest, check_parts, check_run_files
from pipeline.verify.increments import check_increments
from pipeline.verify.overlays import check_overlays
from pipeline.verify.rows import check_image, check_mask
from schemas import layout
from schemas.manifest import Manifest
from schemas.records import IMAGES, MASKS, PLAN, is_version_of

BATCH_ROWS = 1024

Row = dict[str, Any]


def verify(uri: str, access: Access, on_file: Callable[[int, int], None] = lambda _count, _total: None) -> Report:
    """Check the current result of an output. Raises RefusedError where nothing was ever sealed.

    on_file: called with 1 and the number of files for each file checked, for progress.
    """
    output = Store(uri, access)
    files = {file.path: file for file in output.list()}
    if not any(path == layout.CURRENT or _is_sealed(path) for path in files):
        raise RefusedError(f"{uri} holds no sealed result: there is nothing to verify")
    report = Report(uri)
    with scratch_folder("verify") as folder:
        check = Check(output, files, folder, report, on_file)
        current = check_manifest(check)
        if current is not None:
            _check_result(check, current)
    report.files = len(check.named)
    return report.close()


def _is_sealed(path: str) -> bool:
    within = layout.split_run(path)
    return within is not None and layout.sealed_number(within[1]) is not None


def _check_result(check: Check, current: Current) -> None:
    manifest = current.manifest
    sealed = check_parts(check, current)
    check_run_files(check, manifest)
    check_scans(check, manifest)
    chunks = check_increments(check, manifest.plan)
    ledger = Ledger(check.folder)
    plan = _read_plan(check, manifest)
    changes = check_overlays(check, manifest)
    if plan is not None:
        _note_planned(check, plan, chunks, sealed or {}, ledger, changes)
    counts = check_shards(check, manifest, ledger)
    if _plan_is_damaged(check.report) or sealed is None:
        check.report.add("accounting", layout.PLAN, "what must be in the shards is not known: see the findings above")
    else:
        for kind, sentence in ledger.compare():
            check.report.add("accounting", layout.in_run(manifest.fingerprint, kind), sentence)
        _check_numbers(check.report, current, counts, len(sealed))
    check_extra(check, manifest, {chunk.chunk_id for group in chunks.values() for chunk in group})


def _plan_is_damaged(report: Report) -> bool:
    return any(layout.numbered(layout.PLAN, finding.path) is not None for finding in report.findings)


def _read_plan(check: Check, manifest: Manifest) -> Plan | None:
    """The plan as it was sealed; None when one of its files is not what it was."""
    if _plan_is_damaged(check.report):
        return None
    plan = read_plan(check.output, [marker.increment for marker in manifest.plan])
    said = manifest.planned
    if (said.images, said.chunks) != (plan.images, len(plan.chunks)):
        check.report.add("accounting", layout.PLAN, f"has {plan.images} images, the manifest {said.as_dict()}")
    return plan


def _note_planned(
    check: Check,
    plan: Plan,
    chunks: Mapping[str, Sequence[Chunk]],
    sealed: Mapping[str, int],
    ledger: Ledger,
    changes: Mapping[str, Sequence[Row]],
) -> None:
    """Check the plan's rows, and enter in the ledger those that were sealed, with what overlays add and remove; the
    others are pending.
    """
    live = {chunk.chunk_id for chunk in plan.chunks}
    hashes = {
        one.files.file(name): digest
        for one in increments(check.output, [marker.increment for marker in plan.markers])
        for name, digest in one.marker.sha256.items()
    }
    for path in (path for path in sorted(hashes) if layout.bucket_range(path)):
        local = check.fetch(path, hashes[path])
        if local is None:
            continue
        for chunk, rows in chunk_rows(check, path, local, chunks.get(path, [])):
            for place, row in enumerate(rows):
                if chunk.chunk_id not in live or (chunk.chunk_id, row["image_id"]) in plan.superseded:
                    continue
                ids = ids_after((mask["mask_id"] for mask in row["masks"]), changes.get(row["image_id"], ()))
                count(check.report.planned, len(ids))
                if place < sealed.get(chunk.chunk_id, 0):
                    ledger.planned(row["image_id"], ids)
                else:
                    count(check.report.pending, len(ids))


def chunk_rows(check: Check, path: str, local: Path, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Row]]]:
    """A plan file's chunks with their rows, each checked against the chunk's id and counts."""
    file = pq.ParquetFile(local)
    if not is_version_of(file.schema_arrow, PLAN):
        check.report.add("schema", path, "has other columns than documented")
        return
    rows = _rows(file)
    for chunk in sorted(chunks, key=lambda chunk: chunk.row_start):
        members = list(islice(rows, chunk.images))
        if {row["chunk_id"] for row in members} != {chunk.chunk_id} or len(members) != chunk.images:
            check.report.add("accounting", path, f"does not hold the rows of chunk {chunk.chunk_id}")
        elif not chunk.chunk_id.endswith(chunk_digest(members)):
            check.report.add("accounting", path, f"holds other rows than chunk {chunk.chunk_id} was named after")
        elif sum(len(row["masks"]) for row in members) != chunk.masks:
            check.report.add("accounting", path, f"does not hold the {chunk.masks} masks of chunk {chunk.chunk_id}")
        for row in members:
            _check_mask_ids(check, path, row)
        yield chunk, members
    if next(rows, None) is not None:
        check.report.add("accounting", path, "holds rows of no chunk")


def _check_mask_ids(check: Check, path: str, row: Row) -> None:
    seen: Counter[str] = Counter()
    for mask in row["masks"]:
        source_id = mask["source_mask_id"]
        if mask["mask_id"] != mask_id(row["image_id"], source_id, seen[source_id]):
            check.report.add("row", path, f"mask {mask['mask_id']} of {row['image_id']} has an id that is not its own")
        seen[source_id] += 1


def check_shards(check: Check, manifest: Manifest, ledger: Ledger) -> dict[str, Counter[str]]:
    """Every live shard: hash, schema, rows. Returns the counts that the manifest has, recomputed."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, schema in (("images", IMAGES), ("masks", MASKS)):
        for shard in manifest.shards(kind):
            local = check.fetch(shard.path, shard.sha256, shard.bytes)
            if local is None:
                continue
            try:
                file = pq.ParquetFile(local)
            except pa.ArrowInvalid:
                check.report.add("schema", shard.path, "is no Parquet file")
                continue
            if file.metadata.num_rows != shard.rows:
                detail = f"has {file.metadata.num_rows} rows, the manifest {shard.rows}"
                check.report.add("accounting", shard.path, detail)
            if not is_version_of(file.schema_arrow, schema):
                check.report.add("schema", shard.path, "has other columns than documented")
                continue
            for row in _rows(file):
                (_take_image if kind == "images" else _take_mask)(check.report, shard.path, row, ledger, counts)
    return counts


def _take_image(report: Report, path: str, row: Row, ledger: Ledger, counts: dict[str, Counter[str]]) -> None:
    for sentence in check_image(row):
        report.add("row", path, f"image {row['image_id']} {sentence}")
    count(report.failed if row["status"] == "failed" else report.done, 0)
    counts["images"][row["status"]] += 1
    if row["reason"]:
        counts["image_reasons"][row["reason"]] += 1
    ledger.image(str(row["image_id"]), row["masks"], row["status"])


def _take_mask(report: Report, path: str, row: Row, ledger: Ledger, counts: dict[str, Counter[str]]) -> None:
    for sentence in check_mask(row):
        report.add("row", path, f"mask {row['mask_id']} {sentence}")
    (report.failed if row["decision"] == "failed" else report.done)["masks"] += 1
    counts["decisions"][row["decision"]] += 1
    counts["mask_reasons"][row["reason"]] += 1
    if row["quality"] is not None and math.isfinite(row["quality"]):
        counts["quality"][tenth(row["quality"])] += 1
    ledger.mask(str(row["image_id"]), str(row["mask_id"]), row["decision"] == "failed")


def _check_numbers(report: Report, current: Current, counts: Mapping[str, Mapping[str, int]], parts: int) -> None:
    """What the manifest says of the whole against what was counted."""
    if any(finding.kind in ("missing", "truncated", "altered", "schema") for finding in report.findings):
        return  # the counts lack what could not be read
    manifest, path = current.manifest, layout.in_run(current.manifest.fingerprint, current.seal.manifest)
    said = {kind: numbers for kind, numbers in manifest.counts.as_dict().items() if numbers}
    found = {kind: dict(sorted(numbers.items())) for kind, numbers in counts.items() if numbers}
    if said != found:
        report.add("accounting", path, f"counts {said}, the shards hold {found}")
    sealed = {kind: report.done[kind] + report.failed[kind] for kind in ("images", "masks")}
    if (told := manifest.sealed.as_dict()) != {**sealed, "chunks": parts}:
        report.add("accounting", path, f"says {told} are sealed, found {sealed} of {parts} chunks")
    for kind, number in sealed.items():
        if report.planned[kind] != number + report.pending[kind]:
            left = f"{report.planned[kind]} planned, {number} done or failed, {report.pending[kind]} pending"
            report.add("accounting", path, f"{kind}: {left}")


def _rows(file: pq.ParquetFile) -> Iterator[Row]:
    for batch in file.iter_batches(BATCH_ROWS):
        yield from pa.Table.from_batches([batch]).to_pylist()


def count(numbers: dict[str, int], masks: int) -> None:
    numbers["images"] += 1
    numbers["masks"] += masks
