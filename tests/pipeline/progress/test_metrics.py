"""What a run counts, over real HTTP."""

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline.errors import RefusedError
from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import Breakdown
from pipeline.progress.metrics import MeteredProgress, RunMetrics

STATUS = {
    "chunk_id": "0-00000",
    "images": 5,
    "masks": 9,
    "failed_images": 1,
    "failed_masks": 3,
    "image_reasons": [("image_truncated", 1)],
    "mask_reasons": [("image_truncated", 2), ("mask_empty", 1)],
    "load_s": 0.5,
    "wait_s": 2.0,
    "refine_s": 4.0,
    "write_s": 0.1,
}
MANIFEST = {
    "generation": 3,
    "planned": {"images": 7},
    "counts": {
        "images": {"ok": 4, "failed": 1},
        "decisions": {"refined": 5, "kept_coarse": 1, "failed": 3},
        "quality": {"0.5": 1, "0.9": 4, "1.0": 1},
    },
}


class Silent:
    """A Progress that draws nothing and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @contextmanager
    def planning(self) -> Iterator[Callable[[int], None]]:
        yield self.told.append

    def planned(self, planned: Planned) -> None:
        self.told.append(planned)

    @contextmanager
    def refining(self, images: int, actors: tuple[int, int]) -> Iterator[Callable[[dict[str, Any]], None]]:
        yield self.told.append

    def refined(self, spent: Breakdown) -> None:
        self.told.append(spent)

    def retrying(self, number: int | None, images: int) -> None:
        self.told.append(number)

    def covered(self, scan: Any) -> None: ...

    def waiting(self, line: str) -> None:
        self.told.append(line)

    @contextmanager
    def sealing(self, parts: int) -> Iterator[Callable[[int], None]]:
        yield self.told.append


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(port: int) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value, as Prometheus reads it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
        }


def test_a_run_is_counted_and_passed_on(port: int) -> None:
    metrics, inner = RunMetrics(), Silent()
    metrics.serve(port)
    before = scrape(port)
    assert before["relabel_images_total", "failed"] == 0
    assert not [key for key in before if key[0].startswith("relabel_dataset_quality")], "nothing is sealed yet"
    progress = MeteredProgress(inner, metrics)
    with progress.planning() as on_image:
        on_image(5)
    progress.planned(Planned(0, images=5, masks=9, chunks=1))
    with progress.refining(5, (1, 1)) as on_status:
        assert scrape(port)["relabel_pending_images",] == 5
        on_status(STATUS)
    progress.refined(Breakdown(chunks=1))
    with progress.sealing(1) as on_parts:
        on_parts(1)
    metrics.sealed(MANIFEST)
    after = scrape(port)
    assert after["relabel_pending_images",] == 0
    assert after["relabel_new_images",] == 5
    assert after["relabel_chunks_total",] == 1
    assert (after["relabel_images_total", "ok"], after["relabel_images_total", "failed"]) == (4, 1)
    assert (after["relabel_masks_total", "ok"], after["relabel_masks_total", "failed"]) == (6, 3)
    assert after["relabel_failures_total", "mask", "image_truncated"] == 2
    assert after["relabel_failures_total", "image", "image_truncated"] == 1
    assert after["relabel_stage_seconds_sum", "refine"] == 4
    assert after["relabel_gpu_wait_seconds_total",] == 2
    assert after["relabel_dataset_planned_images",] == 7
    assert after["relabel_dataset_masks", "refined"] == 5
    assert after["relabel_dataset_quality_bucket", "0.9"] == 5
    assert after["relabel_dataset_quality_bucket", "+Inf"] == 6
    assert after["relabel_progress_timestamp_seconds",] > before["relabel_progress_timestamp_seconds",]
    assert inner.told == [5, Planned(0, images=5, masks=9, chunks=1), STATUS, Breakdown(chunks=1), 1]


def test_the_last_numbers_wait_for_a_scrape_but_not_for_ever(port: int) -> None:
    metrics = RunMetrics()
    metrics.serve(port)
    scrape(port)  # an earlier one does not count
    threading.Timer(0.5, scrape, [port]).start()
    started = time.monotonic()
    metrics.linger(60)
    assert 0.3 < time.monotonic() - started < 30
    started = time.monotonic()
    metrics.linger(0.2)
    assert 0.1 < time.monotonic() - started < 30


class _Slow(Collector):
    def collect(self) -> Iterator[Metric]:
        time.sleep(1)
        return iter(())


def test_the_last_scrape_is_answered_before_the_process_may_end(port: int) -> None:
    metrics = RunMetrics()
    metrics.registry.register(_Slow())
    metrics.serve(port)
    early = threading.Thread(target=scrape, args=[port])
    early.start()
    time.sleep(0.5)  # this one began before the last numbers were there
    threading.Timer(1, scrape, [port]).start()
    started = time.monotonic()
    metrics.linger(60)
    assert 1.9 < time.monotonic() - started < 30


def test_a_taken_port_is_refused(port: int) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", port))
        holder.listen()
        with pytest.raises(RefusedError, match=f"metrics_port {port}"):
            RunMetrics().serve(port)
