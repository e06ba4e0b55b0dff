"""What is left to refine: chunks without a finished part."""

from __future__ import annotations

from pipeline.planning.increment import Plan
from pipeline.refining.chunk import Task
from pipeline.refining.parts import find_parts
from pipeline.storage import Store


def pending(planned: Plan, run: Store, limit: int | None) -> list[Task]:
    """The chunks without a finished part, in plan order; with a limit, those of the plan's first `limit` images."""
    done = {part.chunk.chunk_id: part.images for part in find_parts(run, planned)}
    left = sum(chunk.images for chunk in planned.chunks) if limit is None else limit
    tasks = []
    for chunk in planned.chunks:
        images = min(chunk.images, left)
        if images > done.get(chunk.chunk_id, 0):
            tasks.append(Task(chunk, images))
        left -= images
    return tasks
