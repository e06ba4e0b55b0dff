"""`pipeline.run`, from Python, in a thread, as Airflow or a notebook calls it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.errors import RefusedError
from pipeline.planning.increment import Planned
from pipeline.progress.events import (
    ChunkFinished,
    Covered,
    Event,
    Planning,
    Refined,
    Refining,
    Retrying,
    Sealing,
    Starting,
)
from pipeline.storage import Access
from pipeline.verify.check import verify
from schemas.config import ConfigError
from tests.conftest import DEMO, RayHead, ray_head


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(RAY_AUTH_MODE="disabled") as found:
        yield found


def arguments(output: Path) -> dict[str, Any]:
    return {
        "masks": str(DEMO / "coarse.json"),
        "output": str(output),
        "images": str(DEMO / "images"),
        "method": {"refiner": "none"},
        "operation": {"chunk_images": 2},
    }


def in_a_thread(**given: Any) -> Any:
    with ThreadPoolExecutor(1, thread_name_prefix="of-a-scheduler") as pool:
        return pool.submit(pipeline.run, **given).result(300)


def test_a_run_in_a_thread_ends_in_a_sound_result_and_is_told_in_order(head: RayHead, tmp_path: Path) -> None:
    told: list[tuple[str, Event]] = []
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    given = {**arguments(tmp_path / "out"), "address": head.address}
    sealed = in_a_thread(**given, on_event=lambda event: told.append((threading.current_thread().name, event)))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (sealed.changed, sealed.manifest.sealed.images, sealed.manifest.counts.failed) == (True, 5, 0)
    assert pipeline.open(str(tmp_path / "out")).masks().num_rows == 10
    assert verify(str(tmp_path / "out"), Access()).findings == []
    assert {name for name, _ in told} == {"of-a-scheduler_0"}
    events = [event for _, event in told]
    assert [type(event) for event in events] == [
        *[Planning] * 2,
        Covered,
        Planned,
        Starting,
        Refining,
        *[ChunkFinished] * 3,
        Refined,
        *[Sealing] * 2,
    ]
    assert events[-2:] == [Sealing(0, 3), Sealing(3, 3)]
    assert sum(event.images for event in events if isinstance(event, ChunkFinished)) == 5
    again: list[Event] = []
    repeated = in_a_thread(**{**given, "address": None}, retry_failed=True, on_event=again.append)
    assert (repeated.changed, repeated.manifest) == (False, sealed.manifest), (
        "nothing is pending, no cluster is started"
    )
    assert Retrying(None, 0) in again


def test_a_listener_that_raises_ends_the_run_which_then_resumes(head: RayHead, tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, ChunkFinished):
            raise EnoughError

    given = {**arguments(tmp_path / "out"), "address": head.address}
    with pytest.raises(EnoughError):
        in_a_thread(**given, on_event=stop)
    done = len(list((tmp_path / "out").glob("runs/*/parts/[!.]*.parquet")))
    assert done >= 1
    assert in_a_thread(**given).manifest.sealed.images == 5


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"masks": "/nowhere.json"}, RefusedError, "do not exist"),
        ({"method": {"iteratoins": 1}}, ConfigError, "iteratoins"),
        ({"address": "127.0.0.1:1"}, RefusedError, "no Ray cluster at"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    change: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        in_a_thread(**{**arguments(tmp_path / "out"), **change})
    assert not list(tmp_path.glob("out/plan/*"))


def test_what_is_public_is_shown() -> None:
    assert {"open", "refine", "run"} <= set(dir(pipeline))


def test_the_library_says_nothing_unless_asked() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("pipeline").handlers)
