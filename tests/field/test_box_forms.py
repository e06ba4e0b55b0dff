"""Boxes in tables, of datasets whose names do not say what their four numbers are; one image has the size of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.sources import box_forms
from tests.field.test_cells import folder_of, parquet, sample
from tests.field.test_containers import PHOTO, tar
from tests.field.world import Outcome, Pixels, run, square

CORNERS = [[24.0, 16, 72, 48], [60.0, 20, 90, 60]]
SIDES = [[24.0, 16, 48, 32], [60.0, 20, 30, 40]]
DRAWN = [square(), square(box=(20, 60, 60, 90))]
AREAS = [48.0 * 32, 30.0 * 40]
MAKERS = [parquet, folder_of, sample]


def drawn(outcome: Outcome) -> list[Pixels]:
    masks = sorted(outcome.masks, key=lambda row: row["category_id"])
    return [binary.decode(row["coarse_rle"]) for row in masks if row["coarse_rle"]]


def check(outcome: Outcome, odd: dict[str, int] | None = None) -> None:
    found = drawn(outcome)
    assert len(found) == len(DRAWN)
    assert all((one == other).all() for one, other in zip(found, DRAWN, strict=True))
    assert outcome.scan["unread"] == 0
    said = outcome.said("odd")
    assert {name: len(said[name]) for name in said if name != "boxes"} == (odd or {})


ROWS: dict[str, dict[str, Any]] = {
    "torchvision": {"boxes": CORNERS, "labels": [1, 2]},
    "torchvision, in full": {"boxes": CORNERS, "labels": [1, 2], "area": AREAS, "iscrowd": [0, 0], "image_id": 3},
    "corners under COCO's name": {"objects": {"bbox": CORNERS, "category": [1, 2]}},
    "corners that their areas tell": {"objects": {"bbox": CORNERS, "category": [1, 2], "area": AREAS}},
    "COCO": {"objects": {"bbox": SIDES, "category": [1, 2]}},
    "COCO's form under another name": {"boxes": SIDES, "labels": [1, 2]},
    "annotations": {"annotations": [{"bbox": box, "category_id": n} for n, box in enumerate(CORNERS, 1)]},
    "detectron2": {
        "annotations": [
            {"bbox": CORNERS[0], "bbox_mode": 0, "category_id": 1},
            {"bbox": SIDES[1], "bbox_mode": 1, "category_id": 2},
        ]
    },
    "text": {"objects": json.dumps({"bbox": CORNERS, "category": [1, 2]})},
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("make", MAKERS)
def test_boxes_are_what_their_numbers_say(tmp_path: Path, make: Any, name: str) -> None:
    outcome = run(None, make(tmp_path / "data", ROWS[name]), tmp_path / "out")
    check(outcome)
    details = {row["detail"] for row in outcome.masks}
    told = SIDES not in ROWS[name].values() and name not in ("COCO", "detectron2")
    assert all(detail.endswith(box_forms.READ_AS_CORNERS) == told for detail in details)


def test_a_row_alone_does_not_tell_and_its_file_does(tmp_path: Path) -> None:
    rows = [{"boxes": [box], "labels": [n]} for n, box in enumerate(CORNERS, 1)]
    check(run(None, parquet(tmp_path / "parquet", *rows), tmp_path / "out"))
    check(run(None, folder_of(tmp_path / "folder", *rows), tmp_path / "out-2"))
    members = [
        member
        for n, row in enumerate(rows)
        for member in [(f"{n}.jpg", PHOTO), (f"{n}.json", json.dumps(row).encode())]
    ]
    check(run(None, tar(tmp_path / "tars" / "s.tar", members).parent, tmp_path / "out-3"))


@pytest.mark.parametrize("make", MAKERS)
def test_what_fits_both_ways_is_told(tmp_path: Path, make: Any) -> None:
    """A `bbox` is COCO's unless something speaks against it; `boxes` have no such rule."""
    small = [[10.0, 10, 30, 20]]
    by_name = run(None, make(tmp_path / "a", {"objects": {"bbox": small, "category": [1]}}), tmp_path / "out-a")
    other = run(None, make(tmp_path / "b", {"boxes": small, "labels": [1]}), tmp_path / "out-b")
    for outcome in (by_name, other):
        assert (drawn(outcome)[0] == square(box=(10, 30, 10, 40))).all()
    assert box_forms.TAKEN_AS_SIDES not in by_name.said("odd")
    assert len(other.said("odd")[box_forms.TAKEN_AS_SIDES]) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"objects": {"bbox": [[0.25, 0.25, 0.5, 0.5]], "category": [1]}}, box_forms.IN_SHARES),
        ({"annotations": [{"bbox": [1.0, 2, 3, 4, 5], "bbox_mode": 4}]}, "boxes: bbox_mode 4, which is not read"),
        ({"boxes": [[1.0, 2, 3]], "labels": [1]}, "no mask: the annotation has "),
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_boxes_that_are_not_read_fail(tmp_path: Path, make: Any, row: dict[str, Any], said: str) -> None:
    found = run(None, make(tmp_path / "data", row), tmp_path / "out").only()
    assert found["reason"] == "mask_unreadable"
    assert found["detail"].startswith(said)


ONE_BOX: dict[str, dict[str, Any]] = {
    "no box at all": {"bbox": [[0.0, 0, 0, 0]]},
    "one pixel": {"bbox": [[0.0, 0, 1, 1]]},
    "a mode in words": {"bbox": [SIDES[0]], "bbox_mode": ["BoxMode.XYWH_ABS"]},
}


@pytest.mark.parametrize("name", ONE_BOX)
def test_boxes_of_pixels_are_no_shares_and_no_unknown_mode(tmp_path: Path, name: str) -> None:
    row = {"objects": {**ONE_BOX[name], "category": [1]}}
    detail = run(None, parquet(tmp_path / "p", row), tmp_path / "out").only()["detail"]
    assert "shares" not in detail
    assert "bbox_mode" not in detail.partition("annotation has")[0]


@pytest.mark.parametrize("make", MAKERS)
def test_one_mode_of_all_boxes(tmp_path: Path, make: Any) -> None:
    boxes = [[24.0, 16, 72, 48]]
    row = {"objects": {"bbox": boxes, "category": [1], "bbox_mode": 0}}
    assert (drawn(run(None, make(tmp_path / "data", row), tmp_path / "out"))[0] == square()).all()
    assert (drawn(run(None, make(tmp_path / "top", {"bboxes": boxes, "bbox_mode": 0}), tmp_path / "o2"))[0]).sum() == (
        square().sum()
    )


def test_areas_of_masks_are_no_areas_of_boxes() -> None:
    """One of them is that of the box between the numbers by chance."""
    boxes = [[4.0, 4, 20, 20], [4.0, 4, 30, 30], [5.0, 5, 20, 20]]
    row = {"objects": {"bbox": boxes, "area": [256.0, 500, 200]}}
    assert box_forms.form_of([(row, lambda: (64, 96))]) == box_forms.BY_NAME


@pytest.mark.parametrize("name", ["bbox", "boxes"])
def test_files_that_do_not_tell_beside_one_of_corners(tmp_path: Path, name: str) -> None:
    """They are read as at any time, and named: most likely they have corners, too."""
    root = parquet(tmp_path / "p", {"objects": {name: CORNERS, "category": [1, 2]}})
    (root / "t.parquet").rename(root / "a.parquet")
    parquet(root, {"objects": {name: [[4.0, 4, 30, 20]], "category": [3]}})
    outcome = run(None, root, tmp_path / "out")
    assert outcome.said("unread") == {box_forms.ELSEWHERE: ["t.parquet, boxes"]}
    for form, pixels in (("corners", 26 * 16), ("sides", 30 * 20)):
        settled = run(None, root, tmp_path / form, f"parquet:boxes={form}")
        assert settled.scan["unread"] == 0
        assert drawn(settled)[-1].sum() == pixels
    ignored = run(None, root, tmp_path / "ignored", ignore=("t.parquet, boxes",))
    assert ignored.scan["unread"] == 0


def test_files_of_both_forms(tmp_path: Path) -> None:
    root = parquet(tmp_path / "p", {"objects": {"bbox": CORNERS, "category": [1, 2]}})
    (root / "t.parquet").rename(root / "a.parquet")
    parquet(root, {"objects": {"bbox": SIDES, "category": [1, 2]}})
    outcome = run(None, root, tmp_path / "out")
    assert outcome.scan["unread"] == 0
    assert outcome.said("odd")[box_forms.MIXED] == ["a.parquet"]


@pytest.mark.parametrize("source", ["parquet", "webdataset", "image-folder"])
def test_forms_that_are_none(tmp_path: Path, source: str) -> None:
    for options in ("boxes=xyxy", "box=corners"):
        with pytest.raises(RefusedError, match="corners"):
            run(None, parquet(tmp_path / "p", {"boxes": CORNERS}), tmp_path / "out", f"{source}:{options}")
