"""Finding the image to blame: by a simulated process over many cases, then in real ones that really die."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.models.weights import Weights
from pipeline.refining.chunk import Inputs, Job
from pipeline.refining.isolate import TRIES_ALONE, Outcome, isolate
from pipeline.refining.subprocess_worker import run_fresh
from pipeline.storage import Access, Store
from schemas.config import Method
from schemas.records import PLAN
from tests.killers import KillerStore, load_killer, picture

MIB = 1 << 20


def planned(names: list[str]) -> pa.Table:
    mask = {"mask_id": "", "source_mask_id": "1", "category_id": 1, "category": ""}
    geometry = json.dumps([[5, 5, 40, 5, 40, 40, 5, 40]])
    row = {"chunk_id": "c", "source_image_id": "", "height": 48, "width": 48, "masks_digest": ""}
    return pa.Table.from_pylist(
        [
            {**row, "image_id": n, "image_uri": n, "masks": [{**mask, "mask_id": f"m-{n}", "geometry": geometry}]}
            for n in names
        ],
        PLAN,
    )


def answered(rows: pa.Table) -> Outcome:
    """As a process would that read every image that has no problem."""
    statuses = [
        {"image_id": row["image_id"], "status": "failed" if row["problem"] else "ok", "reason": row["problem"]}
        for row in rows.to_pylist()
    ]
    return Outcome(pa.Table.from_pylist(statuses))


def process_that(dies: Callable[[list[str]], bool]) -> tuple[Callable[[pa.Table], Outcome], list[list[str]]]:
    """A run that dies when `dies` says so of the images it is to look at; and the log of what it was given."""
    log: list[list[str]] = []

    def run(rows: pa.Table) -> Outcome:
        looked_at = [row["image_id"] for row in rows.to_pylist() if row["problem"] is None]
        log.append(looked_at)
        return Outcome(None, "killed_worker", "it was killed by signal 11") if dies(looked_at) else answered(rows)

    return run, log


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.data())
def test_exactly_the_culprits_fail_and_nothing_is_lost(size: int, data: st.DataObject) -> None:
    names = [f"{index:02d}" for index in range(size)]
    culprits = data.draw(st.sets(st.sampled_from(names)))
    run, log = process_that(lambda looked_at: bool(culprits & set(looked_at)))
    part = isolate(planned(names), run, planned(["known good"]))
    assert part["image_id"].to_pylist() == names
    assert {row["image_id"] for row in part.to_pylist() if row["reason"] == "killed_worker"} == culprits
    for culprit in culprits:
        assert log.count([culprit]) == TRIES_ALONE
    assert len(log) <= 3 + len(culprits) * (2 * 6 + TRIES_ALONE + 2)


def test_an_image_that_dies_only_sometimes_is_not_blamed() -> None:
    deaths = iter([True, True, True, False])
    run, _ = process_that(lambda looked_at: "b" in looked_at and next(deaths, False))
    part = isolate(planned(["a", "b"]), run, planned(["known good"]))
    assert part["status"].to_pylist() == ["ok", "ok"]


def test_too_much_at_once_is_done_in_pieces_and_nobody_is_blamed() -> None:
    run, _ = process_that(lambda looked_at: len(looked_at) > 5)
    names = [f"{index:02d}" for index in range(17)]
    part = isolate(planned(names), run, planned(["known good"]))
    assert part["image_id"].to_pylist() == names
    assert set(part["status"].to_pylist()) == {"ok"}


def test_where_not_even_a_good_image_survives_none_is_blamed() -> None:
    run, log = process_that(lambda _looked_at: True)
    with pytest.raises(JobError, match="so do images that worked before"):
        isolate(planned([f"{index:02d}" for index in range(64)]), run, planned(["known good"]))
    assert len(log) == 2  # found out before 64 images were tried
    with pytest.raises(JobError, match="no known-good image exists"):
        isolate(planned(["a", "b"]), run, None)


def test_an_image_of_the_chunk_serves_as_the_good_one() -> None:
    run, _ = process_that(lambda looked_at: "b" in looked_at)
    part = isolate(planned(["a", "b", "c"]), run, None)
    assert part["reason"].to_pylist() == [None, "killed_worker", None]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for index, name in enumerate(["a.png", "b.png", "c.png", "load-segfault.png", "load-exit.png", "load-memory.png"]):
        picture(index).save(tmp_path / name)
    for index, mark in enumerate(["segfault", "exit", "memory", "raise", "hang"], start=10):
        picture(index, mark).save(tmp_path / f"{mark}.png")
    store = Store(str(tmp_path))
    return Job(
        output=store,
        run=store,
        inputs=Inputs(KillerStore(str(tmp_path)), None),
        method=Method(refiner="torchscript"),
        weights=Weights("", "", Access()),
        input_side=0,
        threads=1,
        fetch_threads=2,
        device="cpu",
        attempt_log=None,
        memory_bytes=3072 * MIB,
        loader=load_killer,
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("load-segfault", "load-segfault.png: a worker was killed by signal 11"),
        ("load-exit", "ended with code 7"),
        ("load-memory", "ended with code 1"),
        ("segfault", "segfault.png: a worker was killed by signal 11"),
        ("exit", "ended with code 7"),
        ("memory", "ended with code 1"),
        ("raise", "raise.png: ValueError: this image is not to my taste"),
        ("hang", "did not come to an end in"),
    ],
)
def test_how_a_fresh_process_ends(name: str, words: str, job: Job) -> None:
    outcome = run_fresh(planned([f"{name}.png"]), job, limit_s=20 if name == "hang" else 300)
    assert outcome.part is None
    assert outcome.reason == ("model_failed" if name == "raise" else "killed_worker")
    assert words in outcome.detail


def test_a_culprit_among_good_images_in_real_processes(job: Job) -> None:
    names = ["a.png", "b.png", "c.png", "segfault.png"]
    part = isolate(planned(names), lambda rows: run_fresh(rows, job), None)
    assert part["image_id"].to_pylist() == names
    assert part["reason"].to_pylist() == [None, None, None, "killed_worker"]
    masks = [row["masks"][0] for row in part.to_pylist()]
    assert [mask["reason"] for mask in masks] == [None, None, None, "killed_worker"]
    alone = run_fresh(planned(names[:3]), job).part
    assert alone is not None
    assert alone.equals(part.slice(0, 3))  # as if the culprit had never been there


def test_what_is_reserved_and_not_used_does_not_count_as_a_workers_memory() -> None:
    """Arrow reserves a gigabyte at once; a limit of less must still leave what it says, and hold."""
    code = """
import mmap, numpy as np, pyarrow as pa
from pipeline.refining.subprocess_worker import limit_memory
reserved = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
pa.array(range(1000))
limit_memory(400 << 20)
held = [np.ones(1 << 24, np.uint8) for _ in range(10)]
try:
    held += [np.ones(1 << 24, np.uint8) for _ in range(100)]
except MemoryError:
    print("held")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "held\n", done.stderr
