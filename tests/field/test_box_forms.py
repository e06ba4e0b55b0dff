"""Boxes in tables, of datasets whose names do not say what their four numbers are; one image has the size of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
