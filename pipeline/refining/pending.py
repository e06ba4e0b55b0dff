"""What is left to refine: chunks without a finished part."""

from __future__ import annotations

from pipeline.planning.increment import Plan
from pipeline.refining.chunk import Task
from pipeline.refining.parts import find_parts
from pipeline.storage import Store


def take_on(planned: Plan, limit: int | None) -> dict[str, int]:
    """How many images of each chunk a run answers for, done or not: all, or the plan's first `limit`."""
    left = sum(chunk.images for chunk in planned.chunks) if limit is None else limit
    taken = {}
    for chunk in planned.chunks:
        taken[chunk.chunk_id] = max(0, min(chunk.images, left))
        left -= chunk.images
    return taken


def pending(planned: Plan, run: Store, limit: int | None) -> list[Task]:
    """The chunks without a finished part, in plan order; with a limit, those of the plan's first `limit` images."""
    done = {part.chunk.chunk_id: part.images for part in find_parts(run, planned)}
    taken = take_on(planned, limit)
    return [
        Task(chunk, taken[chunk.chunk_id])
        for chunk in planned.chunks
        if taken[chunk.chunk_id] > done.get(chunk.chunk_id, 0)
    ]
