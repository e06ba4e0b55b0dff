"""How a run is watched: drawn for people or logged for machines, and counted for Prometheus where a port is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs import console, progress
from jobs.json_log import JsonLog, run_id
from pipeline.errors import RelabelError
from pipeline.progress.breakdown import ChunkFinished
from pipeline.progress.events import Event, OnEvent, everybody
from pipeline.refining.pending import Unsealed
from schemas.config import Operation
from schemas.manifest import Manifest

if TYPE_CHECKING:
    from pipeline.progress.metrics import RunMetrics


class RefinedRows:
    """A listener that counts rows, images and masks, of the chunks that a run refines."""

    refined = failed = 0

    def __call__(self, event: Event) -> None:
        """Count them."""
        if isinstance(event, ChunkFinished):
            self.refined += event.images + event.masks
            self.failed += event.failed


@dataclass(frozen=True)
class Watch:
    """`on_event` goes into the run; `sealed` or `unsealed` takes what came out of it."""

    on_event: OnEvent
    operation: Operation
    log: JsonLog | None
    metrics: RunMetrics | None
    draw: progress.Drawing
    rows: RefinedRows

    def sealed(self, manifest: Manifest, output: str) -> None:
        """Say how it ended, and let the metrics be scraped once more: the process is about to end."""
        if self.log:
            self.log.sealed(manifest)
        else:
            self.draw.end()
            progress.summary(manifest, output)
            console.out.offer(f"shards: relabel files {output}\naudit:  relabel report {output}")
        if self.metrics:
            self.metrics.sealed(manifest)
            self.metrics.linger(self.operation.metrics_linger_s)

    def unsealed(self, left: Unsealed) -> None:
        """Say what is left to others, where a run of a part ends before them."""
        if self.log:
            self.log.unsealed(left)
        else:
            self.draw.end()
            console.out.tell(
                f"{left.line()}", "whoever ends last seals; a run without --part does what is left, and seals"
            )
        if self.metrics:
            self.metrics.linger(self.operation.metrics_linger_s)


@contextmanager
def watch(operation: Operation) -> Iterator[Watch]:
    """Start logging and serving as `operation` says; an error is logged as an event too."""
    log = JsonLog(run_id()) if operation.log_format == "json" else None
    metrics = _serve(operation.metrics_port)
    with progress.drawing() as draw:
        rows = RefinedRows()
        listeners: list[OnEvent] = [log or draw, rows]
        if metrics:
            listeners.insert(0, metrics.on_event)
        try:
            yield Watch(everybody(*listeners), operation, log, metrics, draw, rows)
        except RelabelError as error:
            if log:
                log.event("error", level="error", kind=type(error).__name__, message=str(error))
            raise


def _serve(port: int | None) -> RunMetrics | None:
    if port is None:
        return None
    from pipeline.progress.metrics import RunMetrics

    metrics = RunMetrics()
    metrics.serve(port)
    return metrics
