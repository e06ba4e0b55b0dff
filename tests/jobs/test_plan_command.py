"""`relabel plan`: commits the increment that a run goes on from, and says what the run will take."""

import json
from pathlib import Path

import pytest

from jobs.plan import _show
from pipeline.planning.increment import read_plan
from pipeline.speed import estimate
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

    measured = ["--estimate", "--sample", "3", "--machines", "4", "--price-per-machine-hour", "2"]
    again = relabel(*arguments, *measured, "--json")
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


def test_a_small_estimate_is_said_in_units_in_which_it_is_not_zero(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [estimate.Group(images=1, masks=1, fetch_s=0.001, decode_s=0.01, refine_s=0.2)]
    guess = estimate.project(groups, 1, 1, estimate.Machine(cores=2, gpus=0, threads=1), 1, price_per_hour=0.4)
    _show({"images": 1, "masks": 1, "chunks": 1, "estimate": guess})
    said = capsys.readouterr().out
    for words in ("planned: 1 image with 1 mask in 1 chunk\n", "on 1 machine like this one (2 cores)", "seconds"):
        assert words in said
    assert "0.00 " not in said
    _show({"images": 1, "masks": 1, "chunks": 1, "estimate": guess | {"price_per_device_hour": 0.0}})
    assert "--price-per-machine-hour" in capsys.readouterr().out
