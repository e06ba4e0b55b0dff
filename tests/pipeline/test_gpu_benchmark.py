"""The GPU's benchmark keeps every line as it is measured, in the order of its steps, whatever ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.gpu import Clock, Options, Row, Step, all_steps, run_steps
from tests.benchmarks.gpu_models import SMALL
from tests.benchmarks.gpu_pack import RETURNED_BYTES, too_much_returned
from tests.benchmarks.gpu_rates import rates

ENDLESS = """
import time
from pathlib import Path
from tests.benchmarks.gpu import Options, Step, run_steps

def quick(options, clock):
    yield {"n": 1}
    yield {"n": 2}

def endless(options, clock):
    yield {"n": 3}
    time.sleep(600)

run_steps([Step("quick", 1, quick), Step("endless", 1, endless)], Options("cpu", True, False, [], Path(%r)), 9)
"""


def lines(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]


def options(folder: Path) -> Options:
    return Options("cpu", True, False, [folder / "no-pack"], folder)


def test_the_most_telling_step_comes_first() -> None:
    assert [step.name for step in all_steps()] == ["device", "parity", "rates", "train"]


def test_a_killed_run_has_told_what_it_measured(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS % str(tmp_path)])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "gpu.jsonl").exists() or len(lines(tmp_path)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert [(row["step"], row["n"]) for row in lines(tmp_path)] == [("quick", 1), ("quick", 2), ("endless", 3)]


def test_a_step_that_fails_leaves_its_error_and_the_next_begins(tmp_path: Path) -> None:
    def fails(_: Options, __: Clock) -> Iterator[Row]:
        yield {"n": 1}
        raise RuntimeError("no kernel image\nis available")

    def works(_: Options, __: Clock) -> Iterator[Row]:
        yield {"n": 2}

    assert not run_steps([Step("fails", 0.5, fails), Step("works", 1, works)], options(tmp_path), 1)
    assert [row.get("n") for row in lines(tmp_path)] == [1, None, 2]
    assert lines(tmp_path)[1]["error"] == "RuntimeError: no kernel image is available"


def test_a_step_is_dropped_when_its_time_is_up_and_says_so(tmp_path: Path) -> None:
    def slow(_: Options, __: Clock) -> Iterator[Row]:
        for n in range(1000):
            time.sleep(0.02)
            yield {"n": n}

    assert run_steps([Step("slow", 0.5, slow), Step("late", 1, slow)], options(tmp_path), 0.4 / 60)
    found = lines(tmp_path)
    assert [row["step"] for row in found if "cut" in row] == ["slow", "late"]
    assert 3 < len(found) < 30


def test_training_without_a_pack_says_what_is_missing(tmp_path: Path) -> None:
    step = next(step for step in all_steps() if step.name == "train")
    assert run_steps([step], options(tmp_path), 1)
    assert "gpu_pack" in lines(tmp_path)[0]["not_run"]


@pytest.mark.parametrize(("files", "size", "problems"), [(8, 10, 0), (9, 10, 1), (2, RETURNED_BYTES, 2)])
def test_what_comes_back_has_limits(tmp_path: Path, files: int, size: int, problems: int) -> None:
    for number in range(files):
        with (tmp_path / f"{number}.bin").open("wb") as sink:
            sink.truncate(size)
    assert len(too_much_returned(tmp_path)) == problems


def test_a_rehearsal_measures_the_rates_of_its_small_model(tmp_path: Path) -> None:
    first = next(rates(options(tmp_path), Clock(time.monotonic() + 60)))
    assert first["model"] == SMALL
    assert first["images_per_s"] > 0
