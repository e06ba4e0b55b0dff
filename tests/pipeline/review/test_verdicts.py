"""Verdicts come back, hold for what was seen, and nothing else gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import Result
from pipeline.dataset.verdicts import digest, rejected
from pipeline.errors import RefusedError
from pipeline.report import risk
from pipeline.review import verdicts
from pipeline.storage import Access
from tests.pipeline.report.conftest import PHOTOS, rows_of
from tests.results import Row, write_result


@pytest.fixture
def judged(tmp_path: Path) -> Result:
    """As the session's result, one that a test may write to."""
    rows = [row for number in range(PHOTOS) for row in rows_of(number)]
    return write_result(tmp_path / "out", [rows[:7], rows[7:]], str(tmp_path))


def download(path: Path, said: list[tuple[Row, str]], **values: Any) -> str:
    entries = [
        {"mask_id": row["mask_id"], "digest": digest(row), "verdict": verdict, "strata": ["random"]}
        for row, verdict in said
    ]
    content = {"kind": "relabel-verdicts", "schema_version": 1, "output": "x", "verdicts": entries}
    path.write_text(json.dumps(content | values))
    return str(path)


def test_verdicts_are_kept_and_rejects_are_known(judged: Result, tmp_path: Path) -> None:
    rows = judged.masks().to_pylist()
    output = judged.store.uri
    assert rejected(output) == frozenset()
    said = [(rows[0], "better"), (rows[1], "worse"), (rows[3], "reject")]
    first = verdicts.review(output, download(tmp_path / "v.json", said))
    assert first.taken == {"better": 1, "reject": 1, "worse": 1}
    assert first.stale == 0
    assert rejected(output) == {rows[3]["mask_id"]}
    assert verdicts.review(output, str(tmp_path / "v.json")).path == first.path  # twice changes nothing
    assert len(judged.store.list("reviews")) == 1
    verdicts.review(output, download(tmp_path / "later.json", [(rows[3], "worse"), (rows[4], "reject")]))
    assert rejected(output) == {rows[4]["mask_id"]}  # the later word counts


def test_verdicts_are_calibration_data(judged: Result, tmp_path: Path) -> None:
    rows = judged.masks().to_pylist()
    assert verdicts.as_calibration(judged).num_rows == 0
    verdicts.review(judged.store.uri, download(tmp_path / "v.json", [(rows[0], "better"), (rows[1], "better")]))
    table = verdicts.as_calibration(judged)
    assert table.schema.equals(verdicts.TABLE)
    found = {row["mask_id"]: row for row in table.to_pylist()}
    assert found[rows[0]["mask_id"]]["coarse_iou"] == rows[0]["coarse_iou"]
    assert found[rows[0]["mask_id"]]["random"] is True
    # One was refined and is better; the other was kept coarse although the refined one is better.
    assert sorted(row["wrong"] for row in verdicts.judged(judged)) == [False, True]
    assert risk.by_verdicts(verdicts.judged(judged)) is None  # too few to draw a curve from
    many = [{"quality": n / 30, "wrong": n < 6, "random": True} for n in range(30)]
    curve = risk.by_verdicts(many)
    assert curve is not None
    assert curve.risk[-1] == pytest.approx(0.2)
    assert curve.risk[0] == 0
    assert "30 verdicts" in curve.basis


def test_a_verdict_does_not_outlive_the_masks_it_was_about(judged: Result, tmp_path: Path) -> None:
    rows = judged.masks().to_pylist()
    output = Path(judged.store.uri)
    verdicts.review(str(output), download(tmp_path / "v.json", [(rows[0], "reject"), (rows[3], "reject")]))
    changed = [{**rows[0], "refined_rle": rows[1]["refined_rle"]}, *rows[1:]]
    write_result(output, [changed], str(tmp_path))
    assert rejected(str(output)) == {rows[3]["mask_id"]}
    again = verdicts.review(str(output), str(tmp_path / "v.json"))
    assert (again.taken, again.stale) == ({"reject": 1}, 1)
    with pytest.raises(RefusedError, match="no verdict on a mask"):
        verdicts.review(str(output), download(tmp_path / "old.json", [(rows[0], "better")]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a file of verdicts"),
        ('{"kind": "relabel-verdicts", "schema_version": 2, "verdicts": []}', "not a file of verdicts"),
        ('{"kind": "relabel-verdicts", "schema_version": 1}', "no list `verdicts`"),
        ('{"kind": "relabel-verdicts", "schema_version": 1, "verdicts": ["x"]}', "not a verdict"),
        (
            '{"kind": "relabel-verdicts", "schema_version": 1, "verdicts": '
            '[{"mask_id": "a", "digest": "b", "verdict": "delete", "strata": []}]}',
            "not a verdict",
        ),
        (
            '{"kind": "relabel-verdicts", "schema_version": 1, "verdicts": '
            '[{"mask_id": ["a"], "digest": "b", "verdict": "better", "strata": []}]}',
            "not a verdict",
        ),
        ('{"kind": "relabel-verdicts", "schema_version": 1, "verdicts": []}', "nothing was stored"),
    ],
)
def test_other_files_are_refused(judged: Result, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "given.json"
    path.write_text(text)
    with pytest.raises(RefusedError, match=message):
        verdicts.review(judged.store.uri, str(path))
    assert judged.store.list("reviews") == []


def test_a_missing_file_is_refused(judged: Result, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="does not exist"):
        verdicts.read_file(str(tmp_path / "none.json"), Access())
