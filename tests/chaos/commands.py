"""The commands that may be held or overtaken, as the pure steps of each; and an output for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.dataset import open_result
from pipeline.exports.driver import export
from pipeline.exports.types import Options
from pipeline.output.garbage import collect
from pipeline.output.manifest import KEEP_ONE
from pipeline.planning.scans import record
from pipeline.review.verdicts import review
from pipeline.sources import SourceInput
from pipeline.sources.coverage import Coverage
from pipeline.storage import Access, Store
from pipeline.storage.lease import Patience, held
from schemas import layout
from schemas.config import Gate, Method
from tests.pipeline.outputs import Output

QUICK = Patience(ttl_s=0.2, wait_s=60)
STRICT = Gate(min_quality_gain=0.99)
OTHER = Method(iterations=2)
FIRST = dict.fromkeys(range(6), (2, ""))
CHANGED = {**FIRST, 0: (1, "redrawn"), 1: (2, "redrawn"), 2: (3, "redrawn")}
GROWN = {**CHANGED, 6: (1, ""), 7: (2, "")}


@dataclass(frozen=True)
class Place:
    """One output, on a disk or a store, and the folder of its export."""

    output: Output
    target: Store
    verdicts: str

    @property
    def hold(self) -> Any:
        return partial(held, self.output.store, QUICK)


def fails(what: str, attempt: int) -> str | None:
    """One image fails until it is retried."""
    return "storage" if what == "0003.jpg" and attempt == 0 else None


def do_plan(place: Place) -> None:
    place.output.plan(GROWN, hold=place.hold)
    coverage = Coverage()
    coverage.take_many("image", len(GROWN), "entries")
    given = SourceInput("masks", Access(), {}, coverage=coverage, images_uri="images")
    record(place.output.store, given, "coco", place.hold)


def do_refine(place: Place) -> None:
    place.output.refine(place.output.pending(), fails)


def do_seal(place: Place) -> None:
    place.output.seal(STRICT, hold=place.hold)


def do_gc(place: Place) -> None:
    collect(place.output.store, place.hold, KEEP_ONE, other_methods=True)


def do_retry(place: Place) -> None:
    with place.hold():
        tasks = place.output.retry_tasks()
    place.output.refine(tasks, fails)
    place.output.seal(hold=place.hold)


def do_run(place: Place) -> None:
    do_plan(place)
    do_refine(place)
    place.output.seal(hold=place.hold)


def do_switch(place: Place) -> None:
    """Another method becomes the current one."""
    output = place.output
    do_run(Place(Output(output.folder, method=OTHER, remote=output.remote), place.target, place.verdicts))


def do_export(place: Place) -> None:
    result = open_result(place.output.store.uri, place.output.store.access)
    export(result, place.target, Store("/nowhere"), "coco", Options(), overwrite=True)


def do_review(place: Place) -> None:
    review(place.output.store.uri, place.verdicts, place.output.store.access)


COMMANDS: dict[str, Callable[[Place], None]] = {
    "plan": do_plan,
    "seal": do_seal,
    "gc": do_gc,
    "retry": do_retry,
    "export": do_export,
    "review": do_review,
    "run": do_run,
    "switch": do_switch,
}
HELD = ("plan", "seal", "gc", "retry", "export", "review", "switch")


def make(output: Output) -> None:
    """An output with all that commands find: replaced chunks, failed rows, another method's result, and what killed
    commands of each kind have left.
    """
    other = Output(output.folder, method=OTHER, remote=output.remote)
    output.plan(FIRST)
    for one in (other, output):
        one.refine(one.pending(), fails)
        one.seal()
    output.plan(CHANGED)
    output.refine(output.pending(), fails)
    output.seal()
    unlisted = b"never listed"
    output.run.put(layout.shard("masks", hashlib.sha256(unlisted).hexdigest()), unlisted)
    output.run.put(layout.Seal(7, "a" * 32).parts, b"half")
    output.store.put(layout.Increment(2, "b" * 32).bucket(0, 1023), b"half")
    output.store.put(layout.scan("c" * 64, "d" * 32), b"{}")


def finish(output: Output) -> None:
    """The whole job, undisturbed."""
    output.plan(GROWN)
    output.refine(output.pending(), fails)
    output.seal()
    output.refine(output.retry_tasks(), fails)
    output.seal()
    collect(output.store, partial(held, output.store, QUICK), KEEP_ONE)
