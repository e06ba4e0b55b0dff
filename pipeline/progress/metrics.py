"""Prometheus metrics of a run, served by the driver while it works (`operation.metrics_port`).

    MeteredProgress   wraps any Progress and counts what passes through it
    RunMetrics        the metrics themselves and their endpoint

All is counted on the driver, from the status rows that the workers send back (see chunk_rows.STATUS), so that one
endpoint has it all. Nothing here knows Ray, whose own metrics (nodes, object store, GPUs) have endpoints of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.errors import RefusedError
from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import Breakdown
from pipeline.progress.events import Progress

STAGE_BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
STAGES = ("load", "refine", "write")


class RunMetrics:
    """What a run has done so far, and what the result holds when it is sealed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to = self.registry
        self.chunks = Counter("relabel_chunks", "Chunks whose part was written", registry=to)
        self.images = Counter("relabel_images", "Images of finished chunks", ["status"], registry=to)
        self.masks = Counter("relabel_masks", "Masks of finished chunks", ["status"], registry=to)
        self.failures = Counter("relabel_failures", "Failed rows by reason", ["kind", "reason"], registry=to)
        self.stages = Histogram(
            "relabel_stage_seconds", "Time of a chunk in each stage", ["stage"], buckets=STAGE_BUCKETS_S, registry=to
        )
        self.wait = Counter(
            "relabel_gpu_wait_seconds", "Time that model actors, and their GPUs, waited for work", registry=to
        )
        self.pending = Gauge("relabel_pending_images", "Images of this run that are not done", registry=to)
        self.new = Gauge("relabel_new_images", "Images that this run's plan step added", registry=to)
        self.started = Gauge("relabel_start_timestamp_seconds", "When this run started", registry=to)
        self.progress = Gauge(
            "relabel_progress_timestamp_seconds", "When this run last got something done", registry=to
        )
        self.planned = Gauge(
            "relabel_dataset_planned_images", "Images of the whole plan, at the last seal", registry=to
        )
        self.sealed_images = Gauge("relabel_dataset_images", "Images of the sealed result", ["status"], registry=to)
        self.decisions = Gauge("relabel_dataset_masks", "Masks of the sealed result", ["decision"], registry=to)
        self.generation = Gauge("relabel_dataset_generation", "Generation of the sealed result", registry=to)
        self._quality = _Quality()
        self._answers = _Answers(self.registry)
        self.registry.register(self._quality)
        self.started.set_to_current_time()
        self.progress.set_to_current_time()
        for status in ("ok", "failed"):  # a series that is there from the start can be compared with zero
            self.images.labels(status)
            self.masks.labels(status)
        for stage in STAGES:
            self.stages.labels(stage)

    def serve(self, port: int) -> None:
        """Answer scrapes on every interface until the process ends. Raises RefusedError where the port is taken."""
        try:
            server = make_server("", port, self._answers, _Server, _Silent)
        except OSError as error:
            raise RefusedError(f"operation.metrics_port {port}: {error.strerror}; choose another one") from None
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def linger(self, limit_s: float) -> None:
        """Wait until one more scrape has been answered, so that the last numbers are seen; no longer than `limit_s`."""
        self._answers.last.clear()
        self._answers.lingering = True
        self._answers.last.wait(limit_s)

    def chunk(self, status: dict[str, Any]) -> None:
        """Count one row of chunk_rows.STATUS."""
        self.chunks.inc()
        for counter, kind in ((self.images, "images"), (self.masks, "masks")):
            counter.labels("ok").inc(status[kind] - status[f"failed_{kind}"])
            counter.labels("failed").inc(status[f"failed_{kind}"])
        for kind in ("image", "mask"):
            for reason, number in status[f"{kind}_reasons"]:
                self.failures.labels(kind, reason).inc(number)
        for stage in STAGES:
            self.stages.labels(stage).observe(status[f"{stage}_s"])
        self.wait.inc(status["wait_s"])
        self.pending.dec(status["images"])
        self.progress.set_to_current_time()

    def sealed(self, manifest: dict[str, Any]) -> None:
        """The numbers of the generation that readers now see."""
        counts = manifest["counts"]
        self.planned.set(manifest["planned"]["images"])
        self.generation.set(manifest["generation"])
        for status, number in counts["images"].items():
            self.sealed_images.labels(status).set(number)
        for decision, number in counts["decisions"].items():
            self.decisions.labels(decision).set(number)
        self._quality.tenths = counts.get("quality", {})  # sealed before there was one: no histogram


class MeteredProgress:
    """A Progress that counts, and passes everything on to another."""

    def __init__(self, inner: Progress, metrics: RunMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    def planning(self) -> AbstractContextManager[Callable[[int], None]]:
        return self._touching(self._inner.planning())

    def planned(self, planned: Planned) -> None:
        self._metrics.new.set(planned.images)
        self._inner.planned(planned)

    def covered(self, scan: Mapping[str, Any]) -> None:
        self._inner.covered(scan)

    @contextmanager
    def refining(self, images: int, actors: tuple[int, int]) -> Iterator[Callable[[dict[str, Any]], None]]:
        self._metrics.pending.set(images)
        self._metrics.progress.set_to_current_time()
        with self._inner.refining(images, actors) as draw:

            def on_status(status: dict[str, Any]) -> None:
                self._metrics.chunk(status)
                draw(status)

            yield on_status

    def refined(self, spent: Breakdown) -> None:
        self._inner.refined(spent)

    def retrying(self, number: int | None, images: int) -> None:
        self._inner.retrying(number, images)

    def waiting(self, line: str) -> None:
        self._inner.waiting(line)

    def sealing(self, parts: int) -> AbstractContextManager[Callable[[int], None]]:
        return self._touching(self._inner.sealing(parts))

    @contextmanager
    def _touching(self, phase: AbstractContextManager[Callable[[int], None]]) -> Iterator[Callable[[int], None]]:
        with phase as draw:

            def on_count(count: int) -> None:
                self._metrics.progress.set_to_current_time()
                draw(count)

            yield on_count


class _Quality(Collector):
    """The manifest's tenths of quality as a Prometheus histogram; absent until something is sealed."""

    def __init__(self) -> None:
        self.tenths: dict[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        if not self.tenths:
            return
        buckets: list[tuple[str, float]] = []
        total = 0
        for tenth in range(1, 11):
            total += self.tenths.get(f"{tenth / 10:.1f}", 0)
            buckets.append((f"{tenth / 10:.1f}", total))
        family = HistogramMetricFamily("relabel_dataset_quality", "Masks of the sealed result by quality")
        family.add_metric([], [*buckets, ("+Inf", total)], sum_value=None)
        yield family


class _Answers:
    """Prometheus' WSGI application; `last` is set when a request that came while `lingering` has got its answer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._application = make_wsgi_app(registry)
        self.lingering = False
        self.last = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        counts = self.lingering
        content = self._application(environ, start_response)
        return _Sent(content, self.last) if counts else content


class _Sent:
    """The body of an answer; the server calls `close` when it has been written."""

    def __init__(self, content: Iterable[bytes], sent: threading.Event) -> None:
        self._content = content
        self.close = sent.set

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._content)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass
