"""Retry rounds: failed images done again, on request.

A round is committed, with its exact images, before any of them is done, and is finished (all its parts there, and
sealed) before another one starts. So a round that was killed goes on as it was, and ends as if it had not been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.errors import JobError
from pipeline.planning.increment import Plan
from pipeline.refining.chunk import Task
from pipeline.refining.parts import FinishedPart, Row, best_attempts, failures, find_parts
from pipeline.storage import Store
from pipeline.storage.documents import parse
from schemas import layout
from schemas.manifest import RetryRound, to_json

READERS = 16
COLUMNS = ["image_id", "status", "reason", "masks.list.element.reason"]


@dataclass(frozen=True)
class Round:
    """Round `number` (from 1): the image ids, by chunk, in plan order. `reasons` is what it was restricted to."""

    number: int
    reasons: list[str] | None
    images: dict[str, list[str]]
    sha256: str = ""  # of its file

    def tasks(self, plan: Plan, parts: Sequence[FinishedPart]) -> list[Task]:
        """What of the round has no part yet; chunks that later increments superseded are no longer work."""
        done = {path for part in parts for path in part.retries}
        tasks = [
            Task(chunk, len(ids), self.number, tuple(ids))
            for chunk in plan.chunks
            if (ids := self.images.get(chunk.chunk_id))
        ]
        return [task for task in tasks if task.part not in done]


def read_rounds(run: Store) -> list[Round]:
    """The committed rounds, in order."""
    found = (layout.numbered(layout.RETRIES, file.path) for file in run.list(layout.RETRIES))
    paths = [layout.retry_round(number) for number in sorted(number for number in found if number is not None)]
    return [_parse(run.read(path), f"{run.uri}/{path}") for path in paths]


def rounds_done(rounds: Sequence[Round], plan: Plan, parts: Sequence[FinishedPart]) -> int:
    """The number of the last round of which, and of all before it, every part is there; 0 for none."""
    done = 0
    for one in rounds:
        if one.tasks(plan, parts):
            break
        done = one.number
    return done


def next_round(run: Store, plan: Plan, sealed_round: int, reasons: Collection[str] | None) -> Round | None:
    """The round to work on: one that was started and not sealed, else a new one, committed here; None: nothing failed.

    sealed_round: the last round that the latest generation holds. reasons: retry only images with one of these.
    Call it under the output's lease.
    """
    rounds = read_rounds(run)
    if rounds and rounds[-1].number > sealed_round:
        return next(one for one in rounds if one.number > sealed_round)
    images = failed_images(run, plan, find_parts(run, plan), reasons)
    if not images:
        return None
    number = (rounds[-1].number if rounds else 0) + 1
    data = to_json(RetryRound(round=number, reasons=sorted(reasons) if reasons else None, images=images))
    where = f"{run.uri}/{layout.retry_round(number)}"
    if not run.create(layout.retry_round(number), data):
        raise JobError(f"another run wrote {where} at the same time; run again")
    return _parse(data, where)


def failed_images(
    run: Store, plan: Plan, parts: Sequence[FinishedPart], reasons: Collection[str] | None
) -> dict[str, list[str]]:
    """Image ids, by chunk, of live images that failed or have failed masks (for one of `reasons`, if given)."""

    def failed(part: FinishedPart) -> list[str]:
        tables = [run.read_parquet(path, COLUMNS).to_pylist() for path in part.paths]
        rows = best_attempts(tables[0], tables[1:], part)
        chunk_id = part.chunk.chunk_id
        return [
            row["image_id"]
            for row in rows
            if failures(row) and (chunk_id, row["image_id"]) not in plan.superseded and _wanted(row, reasons)
        ]

    with ThreadPoolExecutor(READERS) as pool:
        found = zip(parts, pool.map(failed, parts), strict=True)
        return {part.chunk.chunk_id: ids for part, ids in found if ids}


def _wanted(row: Row, reasons: Collection[str] | None) -> bool:
    return not reasons or bool({row["reason"], *(mask["reason"] for mask in row["masks"])} & set(reasons))


def _parse(data: bytes, where: str) -> Round:
    content = parse(RetryRound, data, where)
    return Round(content.round, content.reasons, content.images, hashlib.sha256(data).hexdigest())
