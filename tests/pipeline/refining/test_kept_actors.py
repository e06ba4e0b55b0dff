"""Actors of a real cluster that hold their model from segment to segment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.cluster.connection import connected
from pipeline.cluster.resources import Resources
from pipeline.planning.increment import read_plan
from pipeline.refining import kept_actors
from pipeline.refining.chunk import Job, Task, load, refinable
from pipeline.refining.kept_actors import Host
from tests.conftest import RayHead, ray_head
from tests.fakes import FakeModel
from tests.pipeline.refining.counted import CountedLoader, DeadlyLoader, execution
from tests.pipeline.whole import demo_job

ACTORS = 2
REFINE = "tests.pipeline.refining.counted:refine_tidily"


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(RAY_AUTH_MODE="disabled") as found:
        yield found


@pytest.fixture
def loads(tmp_path: Path) -> CountedLoader:
    return CountedLoader(tmp_path / "loads")


@pytest.fixture
def job(tmp_path: Path, loads: CountedLoader) -> Job:
    return demo_job(tmp_path, loads, execution)


def segments(job: Job, count: int) -> list[list[Task]]:
    """The demo's five chunks, each time as another retry round, so that each task has a part of its own."""
    chunks = read_plan(job.output).chunks
    ids = [tuple(Task(chunk, chunk.images).rows(job.output)["image_id"].to_pylist()) for chunk in chunks]
    return [
        [Task(chunk, chunk.images, number, some) for chunk, some in zip(chunks, ids, strict=True)]
        for number in range(1, count + 1)
    ]


def resources(actor_cpus: float = 0.5) -> Resources:
    return Resources((ACTORS, ACTORS), 0.0, actor_cpus, task_cpus=0.25, chunks_per_actor=1)


def is_gone(process: int, within_s: float = 30) -> bool:
    end = time.monotonic() + within_s
    while psutil.pid_exists(process) and time.monotonic() < end:
        time.sleep(0.1)
    return not psutil.pid_exists(process)


def test_a_model_is_loaded_once_an_actor_and_again_by_those_that_died(
    head: RayHead, job: Job, loads: CountedLoader
) -> None:
    work = segments(job, 4)
    with connected(head.address) as cluster:
        done = 0
        for _ in cluster.each(REFINE, job, resources(), True, items=work):
            done += 1
            if done == 12:  # of the third segment
                assert len(loads.processes()) == ACTORS
                for process in loads.processes():
                    os.kill(process, signal.SIGKILL)
        assert done == 20
        assert ACTORS < len(loads.processes()) <= 2 * ACTORS
        assert all(is_gone(process) for process in loads.processes()), "with the run"
    assert all(job.run.exists(task.part) for tasks in work for task in tasks)


def test_actors_end_with_their_driver(head: RayHead, job: Job, loads: CountedLoader) -> None:
    with connected(head.address) as cluster:
        found = cluster.each(REFINE, job, resources(), True, items=segments(job, 2))
        for _ in range(6):
            next(found)
        assert len(loads.processes()) == ACTORS
    assert all(is_gone(process) for process in loads.processes())


@pytest.mark.slow
def test_what_is_run_alone_finds_room_and_the_next_segment_new_actors(
    head: RayHead, job: Job, loads: CountedLoader
) -> None:
    """Of two CPUs the actors hold so much that a process beside them does not fit."""
    work = segments(job, 3)
    loaded = load(work[0][0].rows(job.output), job.inputs, job.method, job.input_side, 1)
    [image] = refinable(loaded, FakeModel())
    deadly = DeadlyLoader(loads.file, float(image.pixels.mean()))
    first: list[int] = []
    with connected(head.address) as cluster:
        given = replace(job, loader=deadly)
        for done, _ in enumerate(cluster.each(REFINE, given, resources(0.75), True, items=work), 1):
            if done == 5:
                first = loads.processes()
    assert done == 15
    assert not set(first) & set(loads.processes()[len(first) :])
    assert all(job.run.exists(task.part) for tasks in work for task in tasks)


def test_an_idle_actor_makes_room_for_one_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, there = 0.0, {"a", "b", "c", "d"}
    monkeypatch.setattr(kept_actors.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(kept_actors, "is_there", there.__contains__)
    host = Host()
    assert all(host.may_stay(name, idle_s=500) for name in "abcd"), "nobody is missing"
    now_s = 40
    assert all(host.may_stay(name, idle_s=540) for name in "cd")
    now_s = 70  # nothing was heard of a and b
    there.remove("a")  # it has ended for good
    assert host.may_stay("c", idle_s=570), "nobody waits for the room of one that has ended"
    assert host.may_stay("c", idle_s=0), "who is at work stays"
    assert not host.may_stay("d", idle_s=570), "b waits"
    assert host.may_stay("c", idle_s=570), "and has room now"
