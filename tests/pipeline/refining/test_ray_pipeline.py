"""The actor by itself, called from several threads as Ray calls it. With Ray around it: tests/jobs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.models import Candidates, PromptBatch
from pipeline.planning.increment import read_plan
from pipeline.refining import chunk as chunk_work
from pipeline.refining.busy_time import BusyClock, Spent
from pipeline.refining.carried import Carried, from_row, to_row
from pipeline.refining.chunk import Job, Task
from pipeline.refining.ray_pipeline import _Refine
from schemas.config import Method
from tests.fakes import FakeModel
from tests.pipeline.whole import demo_job

METHOD = Method(iterations=1)


class WatchedModel(FakeModel):
    """Notes the threads that made and used it; cannot be used twice at once, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.threads, self.fails = {threading.get_ident()}, False
        self._in_use = threading.Lock()

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        assert self._in_use.acquire(blocking=False), "two chunks at the model at once"
        self.threads.add(threading.get_ident())
        try:
            if self.fails:
                raise ValueError("no more")
            return super().predict(embedding, prompts)
        finally:
            self._in_use.release()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return demo_job(tmp_path, lambda *_: WatchedModel(), lambda *_: "test")


def loaded(job: Job) -> list[Carried]:
    tasks = [Task(chunk, chunk.images) for chunk in read_plan(job.output).chunks]
    side, threads = job.input_side, job.fetch_threads
    return [
        Carried(task, chunk_work.load(task.rows(job.output), job.inputs, METHOD, side, threads), {}) for task in tasks
    ]


def test_chunks_at_an_actor_take_turns_at_the_model_in_one_thread(job: Job) -> None:
    given = loaded(job)
    assert len(given) > 3
    actor = _Refine(job)
    with ThreadPoolExecutor(3) as pool:
        answers = [from_row(row) for row in pool.map(actor, map(to_row, given))]
    assert len(actor._model.threads) == 1
    assert threading.get_ident() not in actor._model.threads
    for before, after in zip(given, answers, strict=True):
        assert after.error is None
        assert after.task == before.task
        assert after.images.equals(chunk_work.refine(before.images, FakeModel(), METHOD))
        assert after.seconds["refine_s"] > 0
        assert after.seconds["wait_s"] >= 0


def test_an_error_at_the_model_is_its_chunk_s_alone(job: Job) -> None:
    first, second = loaded(job)[:2]
    model = WatchedModel()
    actor = _Refine(replace(job, loader=lambda *_: model))
    model.fails = True
    failed = from_row(actor(to_row(first)))
    model.fails = False
    fine = from_row(actor(to_row(second)))
    assert failed.error is not None
    assert failed.error.endswith("ValueError: no more")
    assert failed.images.num_rows == 0
    assert fine.error is None
    assert fine.images.num_rows == second.task.images


def test_time_at_an_actor_is_shared_out_once() -> None:
    now = 0.0
    clock = BusyClock(lambda: now)
    first, second, third = (clock.task() for _ in range(3))
    now = 1
    one = first.__enter__()
    now = 2
    two = second.__enter__()
    assert clock.idle_s() == 0
    now = 5
    first.__exit__(None, None, None)
    now = 6
    second.__exit__(None, None, None)
    now = 9
    assert clock.idle_s() == 3
    three = third.__enter__()
    now = 10
    third.__exit__(None, None, None)
    assert one == Spent(idle_s=1, busy_s=4)
    assert two == Spent(idle_s=0, busy_s=1)
    assert three == Spent(idle_s=3, busy_s=1)
