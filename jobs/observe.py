"""How a run is watched: drawn for people or logged for machines, and counted for Prometheus where a port is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs import console
from jobs.json_log import JsonProgress, run_id
from pipeline.errors import RelabelError
from schemas.config import Operation

if TYPE_CHECKING:
    from pipeline.progress.events import Progress
    from pipeline.progress.metrics import RunMetrics


@dataclass(frozen=True)
class Watch:
    """`progress` goes into the run; `sealed` takes what came out of it."""

    progress: Progress
    operation: Operation
    log: JsonProgress | None
    metrics: RunMetrics | None

    def sealed(self, manifest: dict[str, Any], output: str) -> None:
        """Say how it ended, and let the metrics be scraped once more: the process is about to end."""
        if self.log:
            self.log.sealed(manifest)
        else:
            console.summary(manifest, output)
            console.out.print(f"relabel files {output} lists its shards; relabel status {output} tells how far it is")
        if self.metrics:
            self.metrics.sealed(manifest)
            self.metrics.linger(self.operation.metrics_linger_s)


@contextmanager
def watch(operation: Operation) -> Iterator[Watch]:
    """Start logging and serving as `operation` says; an error is logged as an event too."""
    log = JsonProgress(run_id()) if operation.log_format == "json" else None
    progress: Progress = log or console.RichProgress()
    metrics = None
    if operation.metrics_port is not None:
        from pipeline.progress.metrics import MeteredProgress, RunMetrics

        metrics = RunMetrics()
        metrics.serve(operation.metrics_port)
        progress = MeteredProgress(progress, metrics)
    try:
        yield Watch(progress, operation, log, metrics)
    except RelabelError as error:
        if log:
            log.event("error", level="error", kind=type(error).__name__, message=str(error))
        raise
