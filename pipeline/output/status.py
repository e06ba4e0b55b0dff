"""How far an output is: planned, done, failed, pending, sealed, for each method that was run on it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.dataset import read_current
from pipeline.errors import RefusedError
from pipeline.output.manifest import latest, read_manifest
from pipeline.planning.increment import Plan, read_plan
from pipeline.refining.parts import FinishedPart, best_attempts, find_parts
from pipeline.storage import Access, Store

Numbers = tuple[int, int]
"""Images and masks."""

READERS = 16


@dataclass(frozen=True)
class RunStatus:
    """Images and masks of one method. done counts failed rows too: they are finished, with a reason."""

    fingerprint: str
    planned: Numbers
    done: Numbers
    failed: Numbers
    pending: Numbers
    sealed: Numbers
    generation: int | None
    is_current: bool


def read_status(output: str, access: Access) -> list[RunStatus]:
    """One entry for each method. Raises RefusedError when nothing was ever planned there."""
    store = Store(output, access)
    plan = read_plan(store)
    if not plan.chunks:
        raise RefusedError(f"{output} holds no plan; `relabel run --output {output} ...` makes one")
    names = sorted({file.path.split("/")[1] for file in store.list("runs")})
    return [_status(store, Store(f"{output.rstrip('/')}/runs/{name}", access), plan, name) for name in names]


def _status(store: Store, run: Store, plan: Plan, name: str) -> RunStatus:
    parts = find_parts(run, plan)
    generation = latest(run)
    manifest = read_manifest(run, generation) if generation is not None else None
    planned = plan.images, sum(chunk.masks for chunk in plan.chunks)
    files = sum(len(part.paths) for part in parts)
    if manifest and manifest["parts"]["files"] == files and manifest["increments"] == plan.increments:
        counts = manifest["counts"]
        done = manifest["sealed"]["images"], manifest["sealed"]["masks"]
        failed = counts["images"].get("failed", 0), counts["decisions"].get("failed", 0)
    else:
        done, failed = _count(run, parts)
    current = read_current(store) or {}
    return RunStatus(
        fingerprint=name,
        planned=planned,
        done=done,
        failed=failed,
        pending=(max(0, planned[0] - done[0]), max(0, planned[1] - done[1])),
        sealed=(manifest["sealed"]["images"], manifest["sealed"]["masks"]) if manifest else (0, 0),
        generation=generation,
        is_current=current.get("fingerprint") == name and current.get("generation") == generation,
    )


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
