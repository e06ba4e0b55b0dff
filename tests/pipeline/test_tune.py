"""`relabel bench --tune`: the ways that are tried, and the one that is told."""

import json

import pytest
import yaml

from pipeline.errors import JobError
from pipeline.tune import Measured, Way, best_of, ways
from schemas.config import Operation
from tests.conftest import Cli


@pytest.mark.parametrize(("device", "cores", "gpus"), [("cpu", 1, 0), ("cpu", 16, 0), ("cuda", 16, 1), ("cuda", 64, 8)])
def test_ways_fit_the_machine_and_are_a_configuration(device: str, cores: int, gpus: int) -> None:
    found = ways(device, cores, gpus)
    assert len(set(found)) == len(found) > 0
    for way in found:
        assert way.actors * way.threads <= max(cores, way.actors)
        assert way.actors * way.gpus == pytest.approx(gpus)
        assert Operation(**way.operation()).threads_per_actor == way.threads


def test_more_processes_must_be_worth_it() -> None:
    rates = {1: 10.0, 2: 10.1, 4: 12.0}
    found = [Measured(Way(n, 1, 0.0, 1), rate) for n, rate in rates.items()]
    dead = Measured(Way(8, 1, 0.0, 1), 0.0, "out of memory, most likely")
    assert best_of([*found, dead]).way.actors == 4
    assert best_of([*found[:2], dead]).way.actors == 1
    with pytest.raises(JobError, match="no way of dividing this machine worked: out of memory"):
        best_of([dead])


@pytest.mark.slow
def test_the_command(relabel: Cli) -> None:
    done = relabel("bench", "--tune", "--images", "1", "--masks-per-image", "1", timeout=590)
    assert done.returncode == 0, done.stderr
    assert Operation(**yaml.safe_load(done.stdout)["operation"]).actors_max
    assert "images/s" in done.stderr
    told = relabel("bench", "--tune", "--images", "1", "--masks-per-image", "1", "--json", timeout=590)
    assert all(one["images_per_s"] > 0 for one in json.loads(told.stdout)["tried"])
