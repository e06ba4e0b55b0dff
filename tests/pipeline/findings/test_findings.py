"""Faults planted in a result are found, and nothing is found where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.dataset import findings as stored
from pipeline.dataset import open_result
from pipeline.errors import RefusedError
from pipeline.findings import pairs
from pipeline.findings.find import Asked, find
from pipeline.report.page import report
from pipeline.storage import Access
from tests.results import Row, ellipse, mask_row, write_photo, write_result

SIZE_HW = (120, 160)
LEFT, RIGHT = ellipse((40, 60), 24, 0, SIZE_HW), ellipse((115, 60), 24, 0, SIZE_HW)
NEAR_LEFT = np.roll(LEFT, 2, 1)
SHIFTED = np.roll(LEFT, 24, 1)
SMALL = ellipse((40, 60), 9, 0, SIZE_HW)
NECK = (LEFT | RIGHT).copy()
NECK[58:62, 40:115] = 1


def relabel(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def both(image: str, number: int, mask: np.ndarray, **values: Any) -> Row:
    return mask_row(image, number, mask, mask, **values)


ROWS = [
    [both("clean.png", 0, LEFT), both("clean.png", 1, RIGHT, category="cup", category_id=2)],
    [both("twice.png", 0, LEFT, quality=0.9), both("twice.png", 1, NEAR_LEFT, quality=0.6, category="cup")],
    [both("crowd.png", 0, LEFT), both("crowd.png", 1, LEFT, crowd=True)],
    [both("pieces.png", 0, LEFT | RIGHT)],
    [both("union.png", 0, NECK), both("union.png", 1, LEFT), both("union.png", 2, RIGHT)],
    [both("inside.png", 0, LEFT), both("inside.png", 1, SMALL)],
    [both("worn.png", 0, LEFT), both("worn.png", 1, SMALL, category="button", category_id=3)],
    [both("overlap.png", 0, LEFT, quality=0.9), both("overlap.png", 1, SHIFTED, quality=0.5)],
    [mask_row("half.png", 0, SMALL, LEFT, decision="kept_coarse")],
    [mask_row("two.png", 0, NECK, LEFT, decision="review")],
    [mask_row("failed.png", 0, LEFT, LEFT, decision="failed"), both("failed.png", 1, LEFT)],
]
EXPECTED = {
    ("twice.png", "duplicate", "1", "remove"),
    ("pieces.png", "several", "0", "split"),
    ("union.png", "several", "0", "remove"),
    ("inside.png", "inside", "1", "remove"),
    ("overlap.png", "overlap", "1", "look"),
    ("half.png", "half", "0", "look"),
    ("two.png", "several", "0", "look"),
}


@pytest.fixture
def output(tmp_path: Path) -> str:
    write_photo(tmp_path / "photos" / "twice.png", [LEFT], 1)
    shards = [[row for image in part for row in image] for part in (ROWS[:5], ROWS[5:])]
    result = write_result(tmp_path / "out", shards, str(tmp_path / "photos"))
    return result.store.uri


EVERYTHING = Asked()


def said(output: str, asked: Asked = EVERYTHING) -> set[tuple[str, str, str, str]]:
    looked = find(output, asked, Access())
    ids = {row["mask_id"]: row["source_mask_id"] for row in open_result(output).masks().to_pylist()}
    rows = looked.table.to_pylist()
    return {(row["image_uri"], row["kind"], ids[row["mask_id"]], row["action"]) for row in rows}


def test_planted_faults_are_found_and_no_others(output: str) -> None:
    assert said(output) == EXPECTED
    assert said(output, Asked(("duplicate",))) == {one for one in EXPECTED if one[1] == "duplicate"}


@pytest.mark.parametrize(
    ("first", "second", "category", "duplicate_iou", "found"),
    [
        (slice(10, 30), slice(15, 35), "thing", 0.8, True),  # IoU 0.6 in one class
        (slice(10, 30), slice(18, 38), "thing", 0.8, False),  # 0.43
        (slice(10, 30), slice(15, 35), "thing", 0.99, False),
        (slice(10, 30), slice(13, 33), "other", 0.8, True),  # 0.74, neither in the other
        (slice(10, 30), slice(15, 35), "other", 0.8, False),
        (slice(10, 30), slice(10, 25), "other", 0.8, False),  # 0.75, one in the other
        (slice(10, 30), slice(10, 27), "other", 0.8, True),  # 0.85
    ],
)
def test_what_counts_as_drawn_twice(
    first: slice, second: slice, category: str, duplicate_iou: float, found: bool
) -> None:
    masks = np.zeros((2, 40, 40), np.uint8)
    masks[0, :, first] = masks[1, :, second] = 1
    rows = [both("a.png", 0, masks[0], category="thing"), both("a.png", 1, masks[1], category=category)]
    kinds = {finding.kind for finding in pairs.findings(rows, duplicate_iou)}
    assert ("duplicate" in kinds) == found


def test_what_comes_in_pieces_is_no_fault(tmp_path: Path) -> None:
    """Every third wall is in pieces, one of twenty cups, and one of two masks of a class that is rare."""
    walls = [[both(f"wall{n}.png", 0, LEFT | RIGHT if n % 3 == 0 else LEFT, category="wall")] for n in range(12)]
    cups = [[both(f"cup{n}.png", 0, LEFT | RIGHT if n == 3 else LEFT, category="cup")] for n in range(20)]
    rare = [[both(f"rare{n}.png", 0, LEFT | RIGHT if n else LEFT, category="rare")] for n in range(2)]
    rows = [row for image in (*walls, *cups, *rare) for row in image]
    result = write_result(tmp_path / "out", [rows], str(tmp_path / "photos"))
    found = find(result.store.uri, Asked(("several",)), Access()).table.to_pylist()
    assert [row["image_uri"] for row in found] == ["cup3.png"]
    alone = write_result(tmp_path / "alone", [[row for image in cups for row in image]], str(tmp_path / "photos"))
    [surer] = find(alone.store.uri, Asked(("several",)), Access()).table.to_pylist()
    assert surer["certainty"] > found[0]["certainty"] > 0


def test_boxes_that_are_not_their_masks(output: str, tmp_path: Path) -> None:
    boxes = tmp_path / "coco.json"
    entries = [{"id": 0, "image_id": None, "bbox": [16, 44, 49, 33]}, {"id": 1, "image_id": None, "bbox": [0, 0, 9, 9]}]
    for entry, image in zip(entries, ("clean.png", "clean.png"), strict=True):
        entry["image_id"] = image
    boxes.write_text(json.dumps({"annotations": [*entries, {"id": 2, "image_id": "clean.png", "bbox": [1]}]}))
    rows = [both("clean.png", n, mask, source_image_id="clean.png") for n, mask in enumerate((LEFT, RIGHT))]
    other = write_result(tmp_path / "boxes", [rows], str(tmp_path / "photos"))
    assert said(other.store.uri, Asked(("box",), boxes=str(boxes))) == {("clean.png", "box", "1", "look")}
    boxes.write_text(json.dumps({"annotations": [{"id": 1}]}))
    with pytest.raises(RefusedError, match="none of its annotations has a `bbox`"):
        find(output, Asked(boxes=str(boxes)), Access())


def test_the_table_is_kept_once_and_knows_its_generation(output: str) -> None:
    looked = find(output, Asked(), Access())
    again = find(output, Asked(), Access())
    assert (looked.path, looked.counts["several"]) == (again.path, 3)
    found = stored.latest(open_result(output))
    assert found is not None
    assert (found.current, found.rows.num_rows, found.path) == (True, len(EXPECTED), looked.path)
    assert found.rows.equals(looked.table)


def test_a_verdict_holds_until_the_mask_changes(output: str, tmp_path: Path) -> None:
    table = find(output, Asked(), Access()).table.to_pylist()
    [twice] = [row for row in table if row["kind"] == "duplicate"]
    stored.keep_verdicts(open_result(output).store, {twice["finding_id"]: "wrong"})
    again = {row["finding_id"]: row["verdict"] for row in find(output, Asked(), Access()).table.to_pylist()}
    assert again[twice["finding_id"]] == "wrong"
    assert sum(verdict is not None for verdict in again.values()) == 1
    moved = both("twice.png", 1, np.roll(NEAR_LEFT, 1, 0), quality=0.6, category="cup")
    other = write_result(tmp_path / "other", [[ROWS[1][0], moved]], str(tmp_path / "photos"))
    [fresh] = find(other.store.uri, Asked(), Access()).table.to_pylist()
    assert (fresh["kind"], fresh["mask_id"]) == ("duplicate", twice["mask_id"])
    assert fresh["finding_id"] != twice["finding_id"]


def test_the_audit_page_shows_them(output: str) -> None:
    assert 'id="findings"' not in report(output).html
    find(output, Asked(), Access())
    html = report(output).html
    assert "duplicate: cup / thing" in html
    assert html.count("no picture: image_missing") == len(EXPECTED) - 1  # one photograph is there
    assert '<svg class="still"' in html


def test_the_command(output: str, tmp_path: Path) -> None:
    to = tmp_path / "patches.json"
    done = relabel("findings", output, "--as-patches", to, "--accept-above", "0.8")
    assert done.exit_code == 0, done.output
    assert "duplicate" in done.stdout
    assert "twice.png, cup" in done.stdout
    patches = {(one["image_id"], one["kind"]): one for one in json.loads(to.read_text())["patches"]}
    assert len(patches) == len(EXPECTED)
    assert {key for key, one in patches.items() if one["verdict"] == "yes"} == {
        ("twice.png", "duplicate"),
        ("union.png", "several"),
    }
    refused = relabel("findings", output, "--kind", "nothing").exception
    assert isinstance(refused, RefusedError)
    assert "there are duplicate" in str(refused)
