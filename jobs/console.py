"""What the command line shows: progress bars on stderr, tables on stdout, one line for an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.calibration.apply import DRIFT_LIMIT
from pipeline.errors import REASONS
from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import Breakdown
from pipeline.sources import scan_table

MAX_EXAMPLES = 10
"""Failed rows that are told while a run goes on; the others stand in `status` and in the shards."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class RichProgress:
    """pipeline.progress.events.Progress drawn on stderr; on a terminal live, elsewhere a line now and then."""

    @contextmanager
    def planning(self) -> Iterator[Callable[[int], None]]:
        columns = (SpinnerColumn(), TextColumn("planning: {task.completed} images read"))
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("plan", total=None)
            yield lambda count: bar.advance(task, count)

    def planned(self, planned: Planned) -> None:
        new = f"{planned.images} new or changed images with {planned.masks} masks in {planned.chunks} chunks"
        err.print(f"plan: {new}; {planned.unchanged} images were planned before")

    def covered(self, scan: Mapping[str, Any]) -> None:
        for line in scan_table.lines(scan):
            err.print(line, markup=False)

    @contextmanager
    def refining(self, images: int, actors: tuple[int, int]) -> Iterator[Callable[[dict[str, Any]], None]]:
        if not images:
            err.print("refine: nothing pending")
            yield lambda _status: None
            return
        low, high = actors
        err.print(f"refine: {images} images with {low if low == high else f'{low} to {high}'} model actors")
        rates = _Rates(images)
        columns = (
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images · {task.fields[masks_per_s]:.1f} masks/s · {task.fields[failures]} failed · left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
            task = bar.add_task("refine", total=images, masks_per_s=0.0, failures=0)

            shown = 0

            def on_status(status: dict[str, Any]) -> None:
                nonlocal shown
                rates.add(status)
                for example in status["examples"][: max(0, MAX_EXAMPLES - shown)]:
                    err.print(f"failed: {example}", markup=False)
                    shown += 1
                bar.update(task, advance=status["images"], masks_per_s=rates.masks_per_s, failures=rates.failures)
                if not err.is_terminal and rates.due():
                    err.print(rates.line())

            yield on_status
        err.print(rates.line())

    def refined(self, spent: Breakdown) -> None:
        if spent.chunks:
            for line in spent.lines():
                err.print(line)

    def retrying(self, number: int | None, images: int) -> None:
        what = "no failed row" if number is None else f"round {number}, {images} images left"
        err.print(f"retry: {what}")

    def waiting(self, line: str) -> None:
        err.print(line)

    @contextmanager
    def sealing(self, parts: int) -> Iterator[Callable[[int], None]]:
        columns = (SpinnerColumn(), TextColumn("sealing"), BarColumn(), MofNCompleteColumn(), TextColumn("chunks"))
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("seal", total=parts)
            yield lambda count: bar.advance(task, count)


class _Rates:
    """Counts and rates of the refine phase, start-up of the workers included."""

    LINE_EVERY_S = 15.0

    def __init__(self, images: int) -> None:
        self.total = images
        self.images = self.masks = self.failures = 0
        self._started = self._printed = time.monotonic()

    def add(self, status: dict[str, Any]) -> None:
        self.images += status["images"]
        self.masks += status["masks"]
        self.failures += status["failed_images"] + status["failed_masks"]

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
        return (
            f"refine: {self.images} of {self.total} images, {self.masks} masks, {self.masks_per_s:.1f} masks/s, "
            f"{self.failures} failed, {elapsed:.0f} s so far, {left:.0f} s left"
        )


def summary(manifest: dict[str, Any], output: str) -> None:
    """The table at the end of a run or seal."""
    counts = manifest["counts"]
    table = Table(title=f"{output} · generation {manifest['generation']} of {manifest['fingerprint']}")
    for column in ("", "count", "what it means"):
        table.add_column(column, justify="right" if column == "count" else "left")
    table.add_row("images ok", str(counts["images"].get("ok", 0)), f"of {manifest['planned']['images']} planned")
    for reason, number in counts["image_reasons"].items():
        table.add_row(f"  failed: {reason}", str(number), REASONS[reason])
    for decision in ("refined", "kept_coarse", "review", "failed"):
        if number := counts["decisions"].get(decision, 0):
            table.add_row(f"masks {decision}", str(number), DECISIONS[decision])
    for reason, number in counts["mask_reasons"].items():
        table.add_row(f"  {reason}", str(number), REASONS[reason])
    out.print(table)
    if drift := manifest["drift"]:
        named = ", ".join(f"{name} ({index:.2f})" for name, index in drift.items())
        err.print(
            f"relabel: scores have drifted from what calibration {manifest['calibration_id']} was fitted to; its "
            f"qualities may be off: {named} (population stability index; above {DRIFT_LIMIT} counts). "
            "`relabel calibrate` fits one to your data",
            markup=False,
        )


DECISIONS = {
    "refined": "mask_rle is the refined mask",
    "kept_coarse": "mask_rle is the coarse mask: the gate did not trust the refined one",
    "review": "a person should look; mask_rle is the mask that seems better",
    "failed": "no mask to train on; see reason",
}
