"""Chunks that the first pass could not finish, run alone in fresh processes until it is known what is to blame.

A chunk is left over when its worker died (a segmentation fault, the memory), when the code raised an error, or when
the store gave none of its files; or when its node was lost, which is no fault of the chunk. So it is run again, alone;
where that fails, its halves are, down to single images. An image is blamed when it failed three times by itself while
a known-good image, in the same conditions, did not. Where no image survives, none is blamed: the job fails.

Blamed images become rows `failed` with a reason; the rest of the chunk is then refined together, as if they had never
been readable. No Ray here: `refining/ray_pipeline.py` decides where this runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError
from pipeline.planning.increment import read_chunk, read_plan
from pipeline.storage import Store
from schemas import layout

TRIES_ALONE = 3
GOOD_IMAGES, GOOD_SOUGHT = 4, 100
"""So many known-good images are shown to a suspect's fresh process, from so many parts at most."""


@dataclass(frozen=True)
class Outcome:
    """How one fresh process ended. part: PARTS rows, or None and then `reason` (of errors.REASONS) and `detail`."""

    part: pa.Table | None
    reason: str = ""
    detail: str = ""


Run = Callable[[pa.Table], Outcome]
"""PLAN rows -> how loading and refining them ended in a process of its own."""


def good_images(output: Store, run: Store) -> pa.Table | None:
    """Plan rows of a few images that were refined by now, to compare others with; None when there are none."""
    chunks = read_plan(output).chunks
    found: list[pa.Table] = []
    for file in run.list(layout.PARTS)[:GOOD_SOUGHT]:
        name = layout.part_name(file.path)
        place = chunks.place_of(name.chunk_id) if name else None
        part: list[dict[str, str]] = []
        with suppress(JobError):  # damaged: sealing says so
            part = run.read_parquet(file.path, ["image_id", "status"]).to_pylist()
        good = next((row["image_id"] for row in part if row["status"] == "ok"), None)
        if place is not None and good is not None:
            planned = read_chunk(output, chunks[place])
            found.append(planned.filter(pc.equal(planned["image_id"], good)))
        if len(found) == GOOD_IMAGES:
            break
    return pa.concat_tables(found) if found else None


@dataclass
class _Case:
    run: Run
    good: pa.Table | None
    survivors: list[pa.Table] = field(default_factory=list)

    def attempt(self, rows: pa.Table) -> Outcome:
        outcome = self.run(rows)
        if outcome.part is not None:
            self.survivors += [rows.slice(index, 1) for index, ok in enumerate(_ok(outcome)) if ok]
        return outcome

    def check_conditions(self, failed: Outcome) -> None:
        """Raise JobError unless known-good images survive where the others do not."""
        good = self.good if self.good is not None else next(iter(self.survivors), None)
        if good is None:
            raise JobError(f"{failed.detail}; no known-good image exists to compare with; nothing was committed")
        outcome = self.run(good)
        if not any(_ok(outcome)):  # of several, some may have been deleted since
            raise JobError(
                f"{failed.detail}; so do images that worked before ({outcome.detail}): nothing was committed"
            )


def _ok(outcome: Outcome) -> list[bool]:
    return [] if outcome.part is None else [status == "ok" for status in outcome.part["status"].to_pylist()]


def isolate(planned: pa.Table, run: Run, good: pa.Table | None) -> pa.Table:
    """PLAN rows of one chunk -> its PARTS rows, culprits failed. `good`: PLAN rows of images that have worked.

    Raises JobError when not even a known-good image survives.
    """
    case = _Case(run, good)
    first = case.attempt(planned)
    if first.part is not None:
        return first.part
    if good is not None:  # the machine or the model may be broken: find out before a hundred processes do
        case.check_conditions(first)
    blamed = {index: _verdict(planned.slice(index, 1), case, last) for index, last in _suspects(planned, case, first)}
    reasons = {index: reason for index, reason in blamed.items() if reason}
    together = case.attempt(_without(planned, reasons))
    if together.part is not None:
        return together.part
    return pa.concat_tables(_pieces(_without(planned, reasons), case, together))


def _suspects(rows: pa.Table, case: _Case, failed: Outcome, offset: int = 0) -> list[tuple[int, Outcome]]:
    """Indices of the single images that failed by themselves, found by halving."""
    if rows.num_rows == 1:
        return [(offset, failed)]
    half = rows.num_rows // 2
    found = []
    for start, part in ((0, rows.slice(0, half)), (half, rows.slice(half))):
        outcome = case.attempt(part)
        if outcome.part is None:
            found += _suspects(part, case, outcome, offset + start)
    return found


def _verdict(row: pa.Table, case: _Case, failed: Outcome) -> str | None:
    """The reason why a single image is to fail, or None when it did not fail each time."""
    tries = 1 if failed.reason == "storage" else TRIES_ALONE  # a store was asked many times already
    for _ in range(tries - 1):
        failed = case.attempt(row)
        if failed.part is not None:
            return None
    case.check_conditions(failed)
    return failed.reason


def _without(planned: pa.Table, reasons: dict[int, str]) -> pa.Table:
    """The rows with a `problem` where there is a reason: such images are not looked at, and fail with it."""
    problems = [reasons.get(index, known) for index, known in enumerate(planned["problem"].to_pylist())]
    return planned.set_column(planned.schema.get_field_index("problem"), "problem", pa.array(problems, pa.string()))


def _pieces(rows: pa.Table, case: _Case, failed: Outcome) -> list[pa.Table]:
    """Parts of ever smaller pieces: nothing is to blame but how much there is at once."""
    if rows.num_rows == 1:
        raise JobError(f"{rows['image_id'][0].as_py()} fails now and then: {failed.detail}")
    half = rows.num_rows // 2
    parts = []
    for piece in (rows.slice(0, half), rows.slice(half)):
        outcome = case.attempt(piece)
        parts += [outcome.part] if outcome.part is not None else _pieces(piece, case, outcome)
    return parts
