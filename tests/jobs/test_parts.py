"""Several drivers on one output, each with a part of the plan: the result is that of one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.options import parse_part
from jobs.run import run as command
from pipeline import job
from pipeline.errors import RefusedError
from pipeline.refining.pending import Share, Unsealed
from pipeline.request import Request, Wanted, make_request
from tests.conftest import DEMO, Cli
from tests.jobs.test_recovery import shard_hashes, tripled_demo

IMAGES, MASKS = str(DEMO / "images"), str(DEMO / "coarse.json")


def request_of(output: Path, address: str) -> Request:
    overrides = {"method": {"refiner": "none"}, "operation": {"chunk_images": 1, "actors_min": 1, "actors_max": 1}}
    return make_request(Wanted(masks=MASKS, output=str(output), images=IMAGES, overrides=overrides), address=address)


def test_two_at_once_make_what_one_makes(
    tmp_path: Path, cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    alone, parts = (request_of(tmp_path / name, cluster["RAY_ADDRESS"]) for name in ("alone", "parts"))
    with ThreadPoolExecutor(3) as pool:  # each has a process of its own for Ray's driver
        one = pool.submit(job.run, alone)
        several = [pool.submit(job.run_share, parts, Share(number, 2)) for number in (1, 2)]
        ended = [future.result(300) for future in several]
        one.result(300)
    assert not all(isinstance(end, Unsealed) for end in ended), "whoever ended last sealed"
    assert shard_hashes(tmp_path / "parts") == shard_hashes(tmp_path / "alone")


@pytest.mark.slow
def test_one_after_the_other_and_what_each_says(tmp_path: Path, relabel: Cli, cluster: dict[str, str]) -> None:
    corpus, output = tripled_demo(tmp_path), tmp_path / "out"
    given = [*corpus.arguments(output, "--refiner", "none", "--actors", "2")]
    assert relabel("plan", *given[1:9], **cluster).returncode == 0
    first = relabel(*given, "--part", "1/3", "--no-plan", **cluster)
    assert (first.returncode, "plan:" in first.stderr) == (0, False), first.stderr
    assert "part 1/3 is done; not sealed yet: 10 chunks (10 images) left to parts 2, 3 of 3" in first.stdout
    assert not (output / "current.json").exists()
    again = relabel(*given, "--part", "1/3", "--no-plan", **cluster)
    assert (again.returncode, "nothing pending" in again.stderr) == (0, True)
    [status] = json.loads(relabel("status", output, "--json").stdout)
    assert (status["done"][0], status["pending"][0], status["generation"]) == (5, 10, None)
    assert relabel(*given, "--part", "3/3", "--no-plan", **cluster).returncode == 0
    last = relabel(*given, "--part", "2/3", "--no-plan", **cluster)
    assert (last.returncode, "images ok" in last.stdout) == (0, True), last.stderr
    alone = corpus.arguments(tmp_path / "alone", "--refiner", "none", "--actors", "2")
    assert relabel(*alone, **cluster).returncode == 0
    assert shard_hashes(output) == shard_hashes(tmp_path / "alone")


def test_parts_are_numbers_of_numbers() -> None:
    assert parse_part("2/4") == (2, 4)
    for wrong in ("5/4", "0/4", "a/4", "2", "-1/4", "1/2/3", ""):
        with pytest.raises(RefusedError, match="--part takes K/N with K from 1 to N, not"):
            parse_part(wrong)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"part": "5/4"}, "--part takes K/N with K from 1 to N, not 5/4"),
        ({"part": "1/2", "retry_failed": True}, "--retry-failed is for a run without --part"),
        ({"no_plan": True, "prune": True}, "--no-plan reads no input, so --prune would do nothing"),
        ({"no_plan": True}, "holds no plan: `relabel plan` makes one"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        command(masks=MASKS, output=str(tmp_path / "out"), images=IMAGES, refiner="none", **more)
    assert not (tmp_path / "out" / "runs").exists()
