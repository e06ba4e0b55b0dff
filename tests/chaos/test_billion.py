"""The simulator says nothing that it was not checked for, and behaves as what it stands for."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.planning.spill import BUCKET_ROWS
from tests.chaos import billion
from tests.chaos.billion import refine, simulate, table
from tests.chaos.calibration import MEASURED, Measurement, check, errors, fit, is_checked, read_measured
from tests.chaos.decisions import World, bucket_rows, drive, group, make_chunks
from tests.chaos.millions import Cost

SMALL = [Measurement(100_000, 25.0, 300.0), Measurement(1_000_000, 205.0)]  # 5 s, and 200 microseconds an image
RIGHT, WRONG = Measurement(10_000_000, 2300.0), Measurement(10_000_000, 2800.0)


def test_the_model_is_fitted_to_small_plans_and_checked_against_large_ones() -> None:
    line = fit(SMALL)
    assert (line.start_s, line.image_s) == pytest.approx((5, 2e-4))
    assert not is_checked(errors(line, SMALL))
    assert is_checked(errors(line, [*SMALL, RIGHT]))
    assert not is_checked(errors(line, [*SMALL, WRONG]))
    assert not is_checked(errors(line, [*SMALL, Measurement(4_000_000, 805.0)])), "four million are not ten"
    with pytest.raises(SystemExit, match="two measurements"):
        fit(SMALL[:1])


def test_it_speaks_of_what_was_measured_until_it_was_checked() -> None:
    assert check(1_000_000, SMALL).at(1_000_000) == pytest.approx(205)
    for measured in (SMALL, [*SMALL, WRONG]):
        with pytest.raises(SystemExit, match="says nothing of 10000001 images"):
            check(10_000_001, measured)
    assert check(10_000_000, [*SMALL, WRONG])
    assert check(10**9, [*SMALL, RIGHT]).at(10**9) == pytest.approx(2e5, rel=1e-4)


def test_the_committed_measurements_are_those_of_millions(tmp_path: Path) -> None:
    more = tmp_path / "measured.jsonl"
    more.write_text(json.dumps({"what": "planned", **asdict(Cost(10**7, 2000.0, 200.0, 500.0, 1.0, 1.0))}))
    before, after = read_measured([MEASURED]), read_measured([MEASURED, more])
    assert len(before) >= 5
    assert after[len(before) :] == [Measurement(10**7, 2000.0, 500.0)]


def test_a_run_of_ten_million_says_where_each_figure_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billion, "SAMPLE", 2000)
    world = World(10**7, gpus=64, head_us=7.2, task_share=1.5, driven=2000, grouped=2000)
    found = simulate(world, [*SMALL, RIGHT])
    assert found["planning_by_tasks_h"] == pytest.approx(found["planning_alone_h"] * 1.5 / 64 + 0.02)
    assert found["gpu_usd"] == pytest.approx(64 * found["refining_h"] * 2)
    told = found["from"]
    assert (told["planning_peak_mb"], told["refining_h"]) == (
        "measured, of fewer images",
        "simulated, in virtual time",
    )
    assert told["driver_held_mb"] == f"measured: real code on a part, times {found['driver_multiplied_by']:.0f}"
    head, line, row = table([*SMALL, RIGHT], [world])
    assert head.count("|") == line.count("|") == row.count("|") == 15
    assert found["bound_by"] in row
    assert found["bound_by"] == "driver", "38 ms for each chunk of 53 images"


@pytest.mark.parametrize("images", [1_000_000, 30_000_000, 1_000_000_000])
def test_no_bucket_grows_with_the_corpus(images: int) -> None:
    rows = list(bucket_rows(images, np.random.default_rng(0)))
    assert sum(rows) == images
    assert max(rows) <= 2 * BUCKET_ROWS
    assert len(rows) < 4 * images / BUCKET_ROWS + 1


def test_chunks_are_as_large_as_their_pixels_allow() -> None:
    assert [World(10**8, side=side).chunk_images for side in (1024, 512, 256)] == [53, 213, 512]
    assert World(10**6, side=256).chunk_images == 64
    assert [chunk.chunk_id[:12] for chunk in make_chunks(3, 1 << 20)] == [
        "0000-0000000",
        "0001-0000000",
        "0002-0000000",
    ]


def test_more_gpus_take_less_time_until_something_else_bounds() -> None:
    world = World(500_000, gpus=8, side=256, losses=0, load_s=0)
    few, more = refine(world), refine(replace(world, gpus=64))
    assert few["gpus_busy"] > 0.95
    assert few["refining_h"] == pytest.approx(500_000 / 8 / 92 / 3600, rel=0.02)
    assert few["refining_h"] / 8 < more["refining_h"] < few["refining_h"]
    slow = refine(replace(world, gpus=64, get_rate=1000))
    assert slow["refining_h"] >= 500_000 / 1000 / 3600
    assert slow["refused_503"] > 0 == few["refused_503"]
    assert refine(replace(world, gpus=64, losses=50))["lost_chunks"] > 0
    loading = refine(replace(world, load_s=90))
    assert loading["refining_h"] == pytest.approx(few["refining_h"] + 90 / 3600)
    assert billion.bound_by(loading, world) == "GPUs and loading the model"


def test_drivers_share_what_one_cannot_hand_out() -> None:
    world = World(500_000, gpus=64, losses=0, load_s=0, prefixes=16)
    one, three, many = (refine(replace(world, drivers=number)) for number in (1, 3, 16))
    assert one["driver_busy"] > 0.99
    assert three["refining_h"] == pytest.approx(one["refining_h"] / 3, rel=0.02)
    assert many["refining_h"] == pytest.approx(500_000 / 64 / 92 / 3600, rel=0.03)
    assert [billion.bound_by(found, world) for found in (one, three, many)] == ["driver", "driver", "GPUs"]
    slow = refine(replace(world, drivers=16, prefixes=1, get_rate=2000))
    assert slow["refining_h"] >= 500_000 / 2000 / 3600
    with pytest.raises(SystemExit, match="65 drivers share 64 GPUs"):
        refine(replace(world, drivers=65))


def test_the_driver_and_the_seal_are_the_real_ones() -> None:
    world = World(200_000, side=256)
    assert drive(world)["driver_multiplied_by"] == drive(replace(world, drivers=3))["driver_multiplied_by"] == 1
    assert group(world)["shards"] == 2 * np.ceil(world.chunks / 170)  # parts of 1 MB, 1.5 times that in a shard
