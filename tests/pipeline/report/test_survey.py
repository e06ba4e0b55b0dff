"""What is counted, and which masks are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset import Result
from pipeline.report.survey import survey
from tests.results import ellipse, mask_row, write_result


def test_everything_is_counted_and_each_stratum_has_its_masks(result: Result) -> None:
    found = survey(result, 3)
    rows = {row["mask_id"]: row for row in result.masks().to_pylist()}
    assert found.masks == len(rows) == 18
    assert int(found.quality.sum()) == 12
    assert sum(category.masks for category in found.categories.values()) == 18
    plain = found.categories["plain cat"]
    assert plain.decisions == {"refined": 2, "kept_coarse": 2, "failed": 2}
    assert plain.quality_sum / plain.quality_known == pytest.approx(0.485)

    def shown(name: str) -> list[dict[str, object]]:
        return [rows[mask_id] for mask_id, strata in found.shown.items() if name in strata]

    changes = sorted(row["coarse_iou"] for row in rows.values() if row["decision"] == "refined")
    assert sorted(row["coarse_iou"] for row in shown("changed")) == changes[:3]
    assert {row["decision"] for row in shown("kept")} == {"kept_coarse"}
    assert {row["decision"] for row in shown("failed")} == {"failed"}
    lowest = sorted(row["quality"] for row in rows.values() if row["quality"] is not None)
    assert sorted(row["quality"] for row in shown("lowest")) == lowest[:3]
    usable = sorted(mask_id for mask_id, row in rows.items() if row["decision"] != "failed")
    assert sorted(str(row["mask_id"]) for row in shown("random")) == usable[:3]
    assert survey(result, 0).shown == {}


def test_the_sample_does_not_depend_on_the_shards(tmp_path: Path) -> None:
    shape = ellipse((30, 20), 9)
    rows = [mask_row(f"{n}.png", n, shape, shape, quality=0.5) for n in range(20)]  # all alike: ties by id
    one = write_result(tmp_path / "one", [rows], str(tmp_path))
    many = write_result(tmp_path / "many", [rows[k : k + 3] for k in range(0, 20, 3)], str(tmp_path))
    assert survey(one, 4).shown == survey(many, 4).shown
