"""`relabel plan`: commits the increment that a run goes on from, and says what the run will take."""

import json
from pathlib import Path

import pytest

from pipeline.planning.increment import read_plan
from pipeline.storage import Store
from tests.conftest import DEMO, Cli


def test_plan_then_estimate(tmp_path: Path, relabel: Cli) -> None:
    arguments = ["plan", "--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", tmp_path / "out"]
    done = relabel(*arguments, "--chunk-images", "2")
    assert done.returncode == 0, done.stderr
    assert "planned: 5 images with 10 masks in 3 chunks" in done.stdout
    assert "Traceback" not in done.stderr
    planned = read_plan(Store(str(tmp_path / "out")))
    assert (planned.increments, planned.images) == (1, 5)

    estimate = ["--estimate", "--sample", "3", "--machines", "4", "--price-per-machine-hour", "2"]
    again = relabel(*arguments, *estimate, "--json")
    assert again.returncode == 0, again.stderr
    assert "5 images were planned before" in again.stderr
    found = json.loads(again.stdout)["estimate"]
    assert (found["images"], found["masks"], found["sample"]["images"]) == (5, 10, 3)
    assert found["hours"] == pytest.approx(5 / found["images_per_s"] / 3600)
    assert found["cost"] == pytest.approx(found["hours"] * 4 * 2)
    assert 0 <= found["hours_low"] <= found["hours"] <= found["hours_high"]


def test_what_cannot_be_measured_here_is_refused(tmp_path: Path, relabel: Cli) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    arguments = ["--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", tmp_path / "out"]
    done = relabel("plan", *arguments, "--estimate", "--gpus", "8")
    assert done.returncode == 2
    assert "no GPU here to measure" in done.stderr
    assert len(done.stderr.splitlines()) == 1
