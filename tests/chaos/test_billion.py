"""The simulator says nothing that it was not checked for, and behaves as what it stands for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.planning.spill import BUCKET_ROWS
from tests.chaos.billion import World, bucket_rows, drive, errors, fit, group, is_checked, make_chunks, refine
from tests.conftest import ROOT

MEASURED = [(100_000, 25.0), (1_000_000, 205.0)]  # 5 s, and 200 microseconds an image


def test_the_model_is_fitted_to_small_plans_and_checked_against_large_ones() -> None:
    line = fit(MEASURED)
    assert (line.start_s, line.image_s) == pytest.approx((5, 2e-4))
    assert not is_checked(errors(line, MEASURED))
    assert is_checked(errors(line, [*MEASURED, (10_000_000, 2300.0)]))
    assert not is_checked(errors(line, [*MEASURED, (10_000_000, 2800.0)]))
    assert not is_checked(errors(line, [*MEASURED, (4_000_000, 805.0)]))
    with pytest.raises(SystemExit):
        fit(MEASURED[:1])


def test_it_does_not_speak_unchecked(tmp_path: Path) -> None:
    lines = [json.dumps({"what": "planned", "images": images, "cpu_s": cpu_s}) for images, cpu_s in MEASURED]
    (tmp_path / "measured").write_text("\n".join(lines))
    command = [sys.executable, "-m", "tests.chaos.billion", "--measured", str(tmp_path / "measured")]
    silent = subprocess.run([*command, "--images", "20000000"], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (silent.returncode, silent.stdout) == (1, "")
    assert "was not checked against 10000000 measured images" in silent.stderr


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
    world = World(500_000, gpus=8, side=256, losses=0)
    few, more = refine(world), refine(World(500_000, gpus=64, side=256, losses=0))
    assert few["gpus_busy"] > 0.95
    assert few["refining_h"] == pytest.approx(500_000 / 8 / 92 / 3600, rel=0.02)
    assert few["refining_h"] / 8 < more["refining_h"] < few["refining_h"]
    slow = refine(World(500_000, gpus=64, side=256, losses=0, get_rate=1000))
    assert slow["refining_h"] >= 500_000 / 1000 / 3600
    assert slow["refused_503"] > 0 == few["refused_503"]
    assert refine(World(500_000, gpus=64, side=256, losses=50))["lost_chunks"] > 0


def test_the_driver_and_the_seal_are_the_real_ones() -> None:
    world = World(200_000, side=256)
    assert drive(world)["driver_multiplied_by"] == 1
    assert group(world)["shards"] == 2 * np.ceil(world.chunks / 170)  # parts of 1 MB, 1.5 times that in a shard
