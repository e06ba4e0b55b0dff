"""The recipe from end to end, on a few photographs of each source: every step is worth something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe import pair
from tests.recipe.__main__ import DATA, run


@pytest.mark.slow
def test_each_step_is_worth_something(tmp_path: Path) -> None:
    if not (DATA / "train2" / "gt.json").exists():
        pytest.skip(f"the photographs with accurate masks are not at {DATA}")
    pair.make([DATA / "train", DATA / "train2"], tmp_path, per_source=3)
    told = run(tmp_path)
    first, merged, refined, patched = told["stages"].values()
    assert merged["recall"] > first["recall"]
    assert refined["iou"] > merged["iou"] + 0.02
    assert patched["precision"] > refined["precision"]
    assert patched["recall"] >= refined["recall"] - 0.01
    assert told["merge"]["precision"] == 1.0
    assert told["findings"]["duplicate"]["precision"] > 0.8
    assert told["findings"]["duplicate"]["recall"] > 0.5
