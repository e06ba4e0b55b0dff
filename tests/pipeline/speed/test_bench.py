"""`relabel bench`: the stages add up, and the estimate is arithmetic."""

import json
from functools import partial

import numpy as np
import pytest

from pipeline.configuration import resolve
from pipeline.masks import binary
from pipeline.speed.bench import Ceiling, against_ceiling, bench, discs, estimate
from tests.conftest import DEMO, Cli
from tests.fakes import FakeModel


def test_stages_add_up_to_the_whole() -> None:
    photos = [path.read_bytes() for path in sorted((DEMO / "images").glob("*.jpg"))[:2]]
    method = resolve("default", None, {"method": {"iterations": 2}}).method
    result = bench(FakeModel(), partial(int), photos, 3, method)
    assert (result["images"], result["masks"]) == (2, 6)
    assert sum(stage["share"] for stage in result["stages"].values()) == pytest.approx(1)
    assert all(stage["seconds"] > 0 for stage in result["stages"].values())
    assert result["masks_per_s"] == pytest.approx(3 * result["images_per_s"])
    found = against_ceiling(result, Ceiling(2.0, 0.5))
    assert found["encoder_share"] == pytest.approx(result["encoder_images_per_s"] * 0.5 / 2.0)


def test_the_estimate() -> None:
    assert estimate(10.0, 360_000, 5, 2.0) == {"images": 360_000, "devices": 5, "hours": 2.0, "cost": 20.0}


def test_discs_are_the_same_each_time() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    assert discs(image, 4) == discs(image, 4)
    assert all(binary.decode(rle).any() for rle in discs(image, 4))


def test_the_command(relabel: Cli) -> None:
    done = relabel("bench", "--images", "2", "--masks-per-image", "1", "--corpus", "1000", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["estimate"]["hours"] == pytest.approx(1000 / result["images_per_s"] / 3600)
    assert 0 < result["encoder_share"] < 1
