"""Sealing: parts -> calibration, gate -> training-ready shards -> manifest -> the switch.

Chunks in plan order are grouped by the size of their parts; each group becomes one shard of masks and one of images,
named by the hash of their content; a group that the last seal had is not read again (`shard_groups.py`). Grouping, gate
and sorting depend on plan, parts, gate and calibration alone, so a seal repeated anywhere gives the same bytes. Every
planned image and mask of a sealed chunk is checked to be there exactly once before the pointer is switched. What a
row becomes is `shard_rows.py`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import pyarrow as pa

from pipeline.calibration.apply import drifted
from pipeline.errors import JobError, RefusedError
from pipeline.masks import gate as mask_gate
from pipeline.output.corrected import lay_over, overlay_entries, with_changes
from pipeline.output.manifest import KEEP_ONE, Retention, Sealed, commit, intact, parts_listing, parts_table
from pipeline.output.shard_groups import Group, SealedGroup, group_parts, sealed_before
from pipeline.output.shard_rows import Row, add_counts, add_drift, count, seal_masks
from pipeline.planning.flow import Spread, in_turn
from pipeline.planning.increment import Plan, read_plan
from pipeline.planning.scans import scan_entry
from pipeline.progress.events import OnEvent, Sealing, nobody
from pipeline.refining.parts import FinishedPart, Parts, find_parts, read_part
from pipeline.refining.retry_rounds import read_rounds, rounds_done
from pipeline.storage import Store, parquet_bytes
from pipeline.storage.documents import REBUILD, Switch, read_switch, run_store
from pipeline.storage.lease import Hold, unguarded
from schemas import layout
from schemas.calibration import Calibration
from schemas.config import Gate, digest
from schemas.manifest import Manifest, PartsListing, PlannedTotals, Retries, SealedTotals, Shard
from schemas.records import IMAGES, MASKS, SCHEMA_VERSION

ROW_GROUP_ROWS = 16_384
SPREAD_GROUPS = 1024


@dataclass(frozen=True)
class SealRequest:
    """What a seal makes of the finished parts of one method.

    calibration: what turns scores into estimates; None: the fixed formula of masks/gate.py. images_root: for the
    manifest: where the run found the images. retention: what stays of earlier generations. given_up: names that no
    shard may have, as the pointer has them when the seal begins.
    """

    output: Store
    fingerprint: str
    gate: Gate
    calibration: Calibration | None
    shard_bytes: int
    images_root: str
    retention: Retention = KEEP_ONE
    given_up: frozenset[str] = frozenset()

    @property
    def run(self) -> Store:
        """The method's folder."""
        return run_store(self.output, self.fingerprint)


def seal(
    request: SealRequest,
    hold: Hold = unguarded,
    on_event: OnEvent = nobody,
    spread: Spread = in_turn,
    took_on: Mapping[str, int] = MappingProxyType({}),
) -> Sealed:
    """Seal every part that is finished by now. Raises JobError when the accounting does not come out.

    hold: takes the output's lease, whose fence is called before the switch. on_event: is sent `Sealing`. took_on: how
    many images of which chunks must be there (`pending.take_on`), unless they were replaced since.
    """
    with hold() as fence:
        switch = read_switch(request.output)  # before all that the result is made of
        request = replace(request, given_up=switch.given_up)
        plan = read_plan(request.output)
        _check_kept(request, switch, plan)
        parts = find_parts(request.run, plan, None if spread is in_turn else spread)
        if not parts:
            raise RefusedError(f"nothing to seal: {request.run.uri} has no finished part")
        _check_done(request, plan, parts, took_on)
        groups = dict(_sealed_groups(request, plan, parts, on_event, spread))
        listing = parts_listing([group.parts for group in groups.values()])
        draft = _manifest(request, plan, parts, groups, listing)
        return commit(request.output, draft, listing, request.retention, fence, switch)


def _check_kept(request: SealRequest, switch: Switch, plan: Plan) -> None:
    """The method's results were not removed under its run, and no increment of the last seal was lost."""
    if layout.run(request.fingerprint) in switch.given_up:
        raise JobError(f"`relabel gc --other-methods` removed {request.run.uri} while it was written. Run again")
    sealed = intact(request.output, switch.pointer)
    if sealed and sealed.fingerprint == request.fingerprint and plan.increments < sealed.increments:
        lost = layout.Increment(plan.increments).choice
        raise JobError(f"{request.output.uri}/{lost} was lost: the result was sealed from it; {REBUILD}")


def _check_done(request: SealRequest, plan: Plan, parts: Parts, took_on: Mapping[str, int]) -> None:
    """Every image that a run took on is in a part, refined or failed."""
    found = zip(plan.chunks, parts.done, strict=True)
    missing = (took_on.get(chunk.chunk_id, 0) - int(done) for chunk, done in found) if took_on else ()
    if images := sum(number for number in missing if number > 0):
        raise JobError(
            f"{images} images that this run has refined are not in {request.run.uri}/{layout.PARTS}: something removed "
            "them. Nothing was published; run again"
        )


def _sealed_groups(
    request: SealRequest, plan: Plan, parts: Sequence[FinishedPart], on_event: OnEvent, spread: Spread
) -> Iterator[tuple[str, SealedGroup]]:
    """Every group by its key, in order: as the last seal left it, or sealed now."""
    keyed = with_changes(request.output, plan, group_parts(parts, plan, request.shard_bytes))
    groups = {group.key(request.gate, request.calibration): group for group in keyed}
    known = sealed_before(request.run, request.given_up)
    new = [group for key, group in groups.items() if key not in known]
    fresh = _sealed_now(request, new, spread if len(new) > 1 else in_turn)
    done = 0
    on_event(Sealing(done, len(plan.chunks)))
    for key, group in groups.items():
        yield key, known.get(key) or next(fresh)
        done += len(group.parts)
        on_event(Sealing(done, len(plan.chunks)))
    next(fresh, None)  # there is none: whoever spread them is told that all were taken


def _sealed_now(request: SealRequest, groups: Sequence[Group], spread: Spread) -> Iterator[SealedGroup]:
    """Groups, sealed in order: what travels to those who seal them is that of SPREAD_GROUPS at a time."""
    for start in range(0, len(groups), SPREAD_GROUPS):
        yield from spread(partial(seal_group, request), groups[start : start + SPREAD_GROUPS])


def seal_group(request: SealRequest, group: Group) -> SealedGroup:
    """Write one shard of masks and one of images."""
    image_rows: list[Row] = []
    part_masks: list[tuple[Row, Row]] = []
    executions: set[str] = set()
    files = []
    for part in group.parts:
        content = read_part(request.run, part)
        executions |= content.executions
        files += content.files
        _check_accounting(request.output, part, content.rows)
        for row in content.rows:
            if (part.chunk.chunk_id, row["image_id"]) not in group.superseded:
                image_rows.append({"detail": None, "extra": None, **row, "masks": len(row["masks"])})
                part_masks += [(row, mask) for mask in row["masks"]]
    mask_rows, drift = seal_masks(part_masks, request.gate, request.calibration)
    image_rows, mask_rows = lay_over(group.changes, image_rows, mask_rows)
    return SealedGroup(
        masks=_put_shard(request, "masks", mask_rows, MASKS),
        images=_put_shard(request, "images", image_rows, IMAGES),
        parts=parts_table(files),
        execution_classes=sorted(executions),
        counts=count(image_rows, mask_rows),
        drift=drift,
    )


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


def _put_shard(request: SealRequest, kind: str, rows: list[Row], schema: pa.Schema) -> Shard:
    names = set(schema.names)
    table = pa.Table.from_pylist([{key: row[key] for key in row if key in names} for row in rows], schema)
    data = parquet_bytes(table, ROW_GROUP_ROWS)
    sha256 = hashlib.sha256(data).hexdigest()
    path = layout.shard(kind, sha256, lambda path: layout.in_run(request.fingerprint, path) in request.given_up)
    if not _is_there(request.run, path, len(data)):
        request.run.put(path, data)
    path = layout.in_run(request.fingerprint, path)
    return Shard(path=path, rows=table.num_rows, bytes=len(data), sha256=sha256)


def _is_there(run: Store, path: str, size: int) -> bool:
    try:
        return run.size(path) == size
    except FileNotFoundError:
        return False


def _manifest(
    request: SealRequest,
    plan: Plan,
    parts: Sequence[FinishedPart],
    groups: Mapping[str, SealedGroup],
    listing: bytes,
) -> Manifest:
    """All but the generation, which `commit` gives."""
    entries, calibration, rounds = list(groups.values()), request.calibration, read_rounds(request.run)
    gate = request.gate.model_dump(mode="json")
    counts = add_counts([entry.counts for entry in entries])
    images, masks = sum(counts.images.values()), sum(counts.decisions.values())
    if sum(entry.images.rows for entry in entries) != images:
        raise JobError("the shards' rows and the counted images differ")
    files = sum(entry.parts.num_rows for entry in entries)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint=request.fingerprint,
        generation=-1,
        gate=gate,
        gate_digest=digest(gate),
        calibration_id=calibration.calibration_id if calibration else mask_gate.UNCALIBRATED,
        calibration_digest=digest(calibration.model_dump(mode="json")) if calibration else None,
        drift=drifted(add_drift([entry.drift for entry in entries]), calibration),
        images_root=request.images_root,
        increments=plan.increments,
        plan=plan.markers,
        execution_classes=sorted({name for entry in entries for name in entry.execution_classes}),
        planned=PlannedTotals(images=plan.images, chunks=len(plan.chunks)),
        sealed=SealedTotals(images=images, masks=masks, chunks=len(parts)),
        counts=counts,
        masks=[entry.masks for entry in entries],
        images=[entry.images for entry in entries],
        groups=[entry.entry(key) for key, entry in groups.items()],
        parts=PartsListing(files=files, bytes=len(listing), sha256=hashlib.sha256(listing).hexdigest()),
        retries=Retries(done=rounds_done(rounds, plan, parts), sha256=[one.sha256 for one in rounds]),
        scan=scan_entry(request.output),
        overlays=overlay_entries(request.output),
        ranges=plan.ranges,
    )
