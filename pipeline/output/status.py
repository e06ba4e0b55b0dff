"""How far an output is: planned, done, failed, pending, sealed, for each method that was run on it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.errors import RefusedError
from pipeline.output.manifest import latest
from pipeline.planning.increment import Plan, read_plan
from pipeline.refining.parts import FinishedPart, best_attempts, find_parts
from pipeline.storage import Access, Store
from pipeline.storage.documents import read_current, read_manifest, read_pointed, run_store
from pipeline.storage.lease import uses
from schemas import layout
from schemas.manifest import Manifest, Pointer

Numbers = tuple[int, int]
"""Images and masks."""

READERS = 16


@dataclass(frozen=True)
class RunStatus:
    """Images and masks of one method, None where none was run yet. done counts failed rows too: they are finished, with
    a reason. refining: who is at it now. decisions, mask_reasons, image_reasons: masks and images of what is sealed, by
    the columns of these names.
    """

    fingerprint: str | None
    planned: Numbers
    done: Numbers
    failed: Numbers
    pending: Numbers
    sealed: Numbers
    generation: int | None
    is_current: bool
    refining: list[str]
    decisions: dict[str, int] = field(default_factory=dict)
    mask_reasons: dict[str, int] = field(default_factory=dict)
    image_reasons: dict[str, int] = field(default_factory=dict)


def read_status(output: str, access: Access) -> list[RunStatus]:
    """One entry for each method. Raises RefusedError when nothing was ever planned there."""
    store = Store(output, access)
    plan = read_plan(store)
    if not plan.chunks:
        raise RefusedError(f"{output} holds no plan; `relabel run --output {output} ...` makes one")
    names = {found[0] for file in store.list(layout.RUNS) if (found := layout.split_run(file.path))}
    current, busy = read_current(store), uses(store)
    if not names | busy.keys():
        planned = plan.images, plan.masks
        return [RunStatus(None, planned, (0, 0), (0, 0), planned, (0, 0), None, is_current=False, refining=[])]
    return [_status(store, plan, name, current, busy.get(name, [])) for name in sorted(names | busy.keys())]


def _status(store: Store, plan: Plan, name: str, current: Pointer | None, refining: list[str]) -> RunStatus:
    run = run_store(store, name)
    parts = find_parts(run, plan)
    generation = current.generation if current and current.fingerprint == name else latest(run)
    manifest = _manifest(store, run, generation, current if current and current.fingerprint == name else None)
    planned = plan.images, plan.masks
    files = sum(len(part.paths) for part in parts)
    if manifest and manifest.parts.files == files and manifest.increments == plan.increments:
        counts = manifest.counts
        done = manifest.sealed.images, manifest.sealed.masks
        failed = counts.images.get("failed", 0), counts.decisions.get("failed", 0)
    else:
        done, failed = _count(run, parts)
    return RunStatus(
        fingerprint=name,
        planned=planned,
        done=done,
        failed=failed,
        pending=(max(0, planned[0] - done[0]), max(0, planned[1] - done[1])),
        sealed=(manifest.sealed.images, manifest.sealed.masks) if manifest else (0, 0),
        generation=generation,
        is_current=current is not None and (current.fingerprint, current.generation) == (name, generation),
        refining=refining,
        **_sealed_as(manifest),
    )


def _sealed_as(manifest: Manifest | None) -> dict[str, dict[str, int]]:
    names = ("decisions", "mask_reasons", "image_reasons")
    return {name: dict(getattr(manifest.counts, name)) if manifest else {} for name in names}


def _manifest(store: Store, run: Store, generation: int | None, current: Pointer | None) -> Manifest | None:
    """The generation that readers see, or the last one of a method that they do not. Raises JobError."""
    if current is not None:
        return read_pointed(store, current)
    return read_manifest(run, generation) if generation is not None else None


def _count(run: Store, parts: Sequence[FinishedPart]) -> tuple[Numbers, Numbers]:
    def count(part: FinishedPart) -> tuple[int, int, int, int]:
        columns = ["image_id", "status", "masks.list.element.reason"]
        attempts = [run.read_parquet(path, columns).to_pylist() for path in part.paths]
        rows = best_attempts(attempts[0], attempts[1:], part)
        reasons = [mask["reason"] for row in rows for mask in row["masks"]]
        failed = sum(row["status"] == "failed" for row in rows)
        return len(rows), len(reasons), failed, sum(reason is not None for reason in reasons)

    with ThreadPoolExecutor(READERS) as pool:
        images, masks, failed_images, failed_masks = (
            sum(column) for column in zip((0, 0, 0, 0), *pool.map(count, parts), strict=True)
        )
    return (images, masks), (failed_images, failed_masks)
