"""What the command line shows of a run: progress bars on stderr, tables on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from jobs import console
from jobs.console import Pulse
from pipeline.calibration.apply import DRIFT_LIMIT
from pipeline.errors import REASONS
from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import ChunkFinished
from pipeline.progress.events import (
    Covered,
    Event,
    Planning,
    Refined,
    Refining,
    Retrying,
    Sealing,
    Starting,
    Waiting,
)
from pipeline.sources import scan_table
from pipeline.words import plural
from schemas.manifest import Manifest

MAX_EXAMPLES = 10
"""Failed rows that are told while a run goes on; the others stand in `status` and in the shards."""


class Drawing:
    """A listener that draws on stderr: on a terminal live, elsewhere a line now and then. One bar at a time."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._pulse: Pulse | None = None
        self._rates = _Rates(0)
        self._told = 0

    def __call__(self, event: Event) -> None:
        """Draw it."""
        draw: dict[type[Event], Callable[[Any], None]] = {
            Planning: self._planning,
            Covered: self._covered,
            Planned: self._planned,
            Starting: self._starting,
            Refining: self._refining,
            ChunkFinished: self._chunk,
            Refined: self._refined,
            Retrying: self._retrying,
            Sealing: self._sealing,
            Waiting: lambda event: console.err.tell(event.message),
        }
        draw[type(event)](event)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None

    def _begin(self, phase: str, *columns: ProgressColumn, total: int | None, **fields: Any) -> None:
        """Begin a phase: a bar on a terminal, where it moves by itself; elsewhere a line a minute."""
        self.end()
        if not console.err.is_terminal:
            self._pulse = Pulse(phase, console.err)
        self._bar = Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal)
        self._task = self._bar.add_task("", total=total, **fields)
        self._bar.start()

    def _update(self, completed: int, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=completed, **fields)

    def _planning(self, event: Planning) -> None:
        if event.images == 0:
            console.err.tell("plan: reading the input")
            self._begin("plan", SpinnerColumn(), TextColumn("images read: {task.completed:,.0f}"), total=None)
        self._update(event.images)

    def _covered(self, event: Covered) -> None:
        self.end()
        for line in scan_table.lines(event.scan):
            console.err.tell(line)
        if event.unmatched:
            console.err.tell(f"method.per_category: no mask has the category {', '.join(map(repr, event.unmatched))}")

    def _planned(self, event: Planned) -> None:
        self.end()
        before = f"{plural(event.unchanged, 'image')} {'was' if event.unchanged == 1 else 'were'} planned before"
        if not event.images:
            console.err.tell(f"plan: nothing new; {before}")
            return
        new, masks = plural(event.images, "new or changed image"), plural(event.masks, "mask")
        console.err.tell(f"plan: {new} with {masks} in {plural(event.chunks, 'chunk')}; {before}")

    def _starting(self, event: Starting) -> None:
        what = f"connecting to Ray at {event.address}" if event.address else "starting Ray"
        console.err.tell(f"{what}, which takes a few seconds")
        self._begin(what, SpinnerColumn(), TextColumn(f"{what}, {{task.elapsed:.0f}} s"), total=None)

    def _refining(self, event: Refining) -> None:
        self._rates, self._told = _Rates(event.images), 0
        if not event.images:
            console.err.tell("refine: nothing pending")
            return
        low, high = event.actors
        actors = str(low) if low == high else f"{low} to {high}"
        console.err.tell(f"refine: {plural(event.images, 'image')} with {actors} model actor{'s' * (high > 1)}")
        self._begin(
            "refine",
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images · {task.fields[doing]} · left"),
            TimeRemainingColumn(),
            total=event.images,
            doing="actors load the model",
        )

    def _chunk(self, event: ChunkFinished) -> None:
        rates = self._rates
        rates.add(event)
        for example in event.examples[: max(0, MAX_EXAMPLES - self._told)]:
            console.err.tell(f"failed: {example}")
            self._told += 1
        self._update(rates.images, doing=f"{rates.masks_per_s:.1f} masks/s · {plural(rates.failures, 'failed row')}")
        if not console.err.is_terminal and rates.due():
            console.err.tell(rates.line())
        if self._pulse is not None:
            self._pulse.restart()

    def _refined(self, event: Refined) -> None:
        self.end()
        if self._rates.total:
            console.err.tell(self._rates.line())
        if event.spent.chunks:
            for line in event.spent.lines():
                console.err.tell(line)

    def _retrying(self, event: Retrying) -> None:
        what = "no failed row" if event.round is None else f"round {event.round}, {plural(event.images, 'image')} left"
        console.err.tell(f"retry: {what}")

    def _sealing(self, event: Sealing) -> None:
        if event.done == 0:
            columns = (SpinnerColumn(), TextColumn("sealing"), BarColumn(), MofNCompleteColumn(), TextColumn("chunks"))
            self._begin("seal", *columns, total=event.chunks)
        self._update(event.done)


@contextmanager
def drawing() -> Iterator[Drawing]:
    """A listener for one run; no bar is left when the context ends, however it does."""
    draw = Drawing()
    try:
        yield draw
    finally:
        draw.end()


class _Rates:
    """Counts and rates of the refine phase, start-up of the workers included."""

    LINE_EVERY_S = 15.0

    def __init__(self, images: int) -> None:
        self.total = images
        self.images = self.masks = self.failures = 0
        self._started = self._printed = time.monotonic()

    def add(self, chunk: ChunkFinished) -> None:
        self.images += chunk.images
        self.masks += chunk.masks
        self.failures += chunk.failed

    @property
    def masks_per_s(self) -> float:
        return self.masks / max(1e-9, time.monotonic() - self._started)

    def due(self) -> bool:
        if self.images >= self.total or time.monotonic() - self._printed < self.LINE_EVERY_S:
            return False
        self._printed = time.monotonic()
        return True

    def line(self) -> str:
        elapsed = time.monotonic() - self._started
        left = elapsed / max(1, self.images) * (self.total - self.images)
        more = f"so far, {left:.0f} s left" if left else "in all"
        return (
            f"refine: {self.images:,} of {plural(self.total, 'image')}, {plural(self.masks, 'mask')}, "
            f"{self.masks_per_s:.1f} masks/s, {plural(self.failures, 'failed row')}, {elapsed:.0f} s {more}"
        )


def summary(manifest: Manifest, output: str) -> None:
    """The table at the end of a run or seal."""
    counts = manifest.counts
    table = Table(title=f"{output} · generation {manifest.generation} of {manifest.fingerprint}", title_justify="left")
    for column in ("", "count", "what it means"):
        table.add_column(column, justify="right" if column == "count" else "left")
    table.add_row("images ok", f"{counts.images.get('ok', 0):,}", f"of {manifest.planned.images:,} planned")
    for reason, number in counts.image_reasons.items():
        table.add_row(f"  failed: {reason}", f"{number:,}", REASONS[reason])
    table.add_section()
    for decision, meaning in DECISIONS.items():
        if number := counts.decisions.get(decision, 0):
            table.add_row(f"masks {decision}", f"{number:,}", meaning)
    table.add_section()
    for reason, number in counts.mask_reasons.items():
        table.add_row(f"  because {reason}", f"{number:,}", REASONS[reason])
    console.out.show(table)
    if drift := manifest.drift:
        named = ", ".join(f"{name} ({index:.2f})" for name, index in drift.items())
        console.err.tell(
            f"relabel: scores have drifted from what calibration {manifest.calibration_id} was fitted to; its "
            f"qualities may be off: {named} (population stability index; above {DRIFT_LIMIT} counts). "
            "`relabel calibrate` fits one to your data"
        )


DECISIONS = {
    "corrected": "mask_rle is a person's (`relabel review --from`)",
    "refined": "mask_rle is the refined mask",
    "kept_coarse": "mask_rle is the coarse mask: the gate did not trust the refined one",
    "review": "a person should look; mask_rle is the mask that seems better",
    "failed": "no mask to train on; see reason",
}
