"""Which fields of a row its masks are read from: masks before boxes; what is left is named, what is none left alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.sources import grids, image_folder
from pipeline.sources.parquet import CATEGORY_COUNTS, LABELS_COUNT
from tests.field.test_cells import (
    BOXES,
    FIRST,
    RINGS,
    RLES,
    SECOND,
    UNUSED,
    check,
    folder_of,
    parquet,
    sample,
)
from tests.field.test_containers import MASK, PHOTO, tar
from tests.field.world import SIZE_HW, Pixels, encoded, put, put_images, run

WITH_BOXES = {"bbox": [[50.0, 5.0, 20.0, 20.0]], "category": [1]}


@pytest.mark.parametrize("objects", [WITH_BOXES, json.dumps(WITH_BOXES), [{"bbox": [50.0, 5.0, 20.0, 20.0]}]])
@pytest.mark.parametrize("column", ["mask", "segmentation"])
def test_masks_count_before_boxes(tmp_path: Path, objects: Any, column: str) -> None:
    outcome = run(None, parquet(tmp_path / "p", *[{column: MASK, "objects": objects}] * 2), tmp_path / "out")
    assert [row["area"] for row in outcome.masks] == [FIRST.sum()] * 2
    said = f"{UNUSED} {column}; --source parquet:masks=objects reads these"
    assert outcome.said("unread") == {said: ["t.parquet, field objects"]}


@pytest.mark.parametrize("make", [folder_of, sample])
def test_masks_count_before_boxes_in_json(tmp_path: Path, make: Any) -> None:
    outcome = run(None, make(tmp_path / "p", {"objects": WITH_BOXES, "mask_rle": RLES[0]}), tmp_path / "out")
    assert (binary.decode(outcome.only()["mask_rle"]) == FIRST).all()
    file = "metadata.jsonl" if make is folder_of else "s.tar"
    assert outcome.said("unread") == {f"{UNUSED} mask_rle": [f"{file}, field objects"]}


@pytest.mark.parametrize(
    ("row", "left", "drawn"),
    [
        ({"mask_file_name": "m.png", "objects": WITH_BOXES}, "objects", FIRST),
        ({"mask_file_name": "m.png", "objects": []}, None, FIRST),
        ({"mask_file_name": "m.png", "segmentation": [RINGS[1]]}, None, SECOND),
        ({"mask_file_name": "m.png", "objects": [{"segmentation": RLES[1]}]}, "mask_file_name", SECOND),
        ({"objects": [{"segmentation": RLES[1], "mask_path": "m.png"}]}, None, SECOND),
    ],
)
def test_a_second_field_of_masks_is_named(tmp_path: Path, row: dict[str, Any], left: str | None, drawn: Pixels) -> None:
    put(tmp_path / "data" / "m.png", FIRST * 255)
    outcome = run(None, folder_of(tmp_path / "data", row), tmp_path / "out")
    assert (binary.decode(outcome.only()["mask_rle"]) == drawn).all()
    [said] = outcome.said("unread").items() or [None]
    assert said is None if left is None else said[0].startswith(UNUSED) and said[1] == [f"metadata.jsonl, field {left}"]


def test_each_row_is_read_where_its_masks_are(tmp_path: Path) -> None:
    rows = [{"mask": MASK, "objects": None}, {"mask": None, "objects": [{"segmentation": RLES[1]}]}]
    outcome = run(None, parquet(tmp_path / "p", *rows), tmp_path / "out")
    assert [row["area"] for row in outcome.masks] == [FIRST.sum(), SECOND.sum()]
    assert outcome.scan["unread"] == 0


ONE = {"id": 7, "segmentation": RINGS[:1], "bbox": BOXES[0], "category_id": 3, "iscrowd": 1}
TWO = {**ONE, "segmentation": RINGS}
CORNERS = [[24.0, 16], [72, 16], [72, 48], [24, 48]]
ANNOTATIONS: list[dict[str, Any]] = [
    *({**ONE, name: 3} for name in ("instances", "objects", "segments", "masks")),
    {**ONE, "masks": 0},
    {**ONE, "segments": "upper body"},
    {**ONE, "segments": ["upper body"]},
    {**ONE, "rle": RLES[0], "mask_path": "m.png"},
    {**ONE, "segmentation": 1, "rle": RLES[0]},
    {**ONE, "bbox": BOXES[:1]},
    {**TWO, "score": [0.9]},
    {**TWO, "area": [10, 20]},
    {**TWO, "bbox": BOXES[:1]},
    {**TWO, "bbox": [[24, 16], [72, 48]]},
    {**ONE, "segmentation": None, "bbox": BOXES[:1]},
]


@pytest.mark.parametrize("make", [folder_of, sample])
@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_fields_that_are_no_masks_leave_an_annotation_whole(
    tmp_path: Path, make: Any, annotation: dict[str, Any]
) -> None:
    outcome = run(None, make(tmp_path / "data", {"annotations": [annotation]}), tmp_path / "out")
    row, rings = outcome.only(), len(annotation["segmentation"] or [1]) if annotation["segmentation"] != 1 else 1
    assert (row["source_mask_id"], row["category_id"], row["crowd"]) == ("7", 3, True)
    assert (binary.decode(row["mask_rle"]) == (FIRST if rings == 1 else FIRST | SECOND)).all()
    assert outcome.scan["unread"] == 0


@pytest.mark.parametrize("make", [parquet, folder_of, sample])
@pytest.mark.parametrize(
    "row",
    [
        {"polygon": CORNERS, "bbox": [[24.0, 16], [72, 48]], "label": "a"},
        {"segmentation": RINGS[:1], "bbox": BOXES[:1], "label": "a"},
        {"segmentation": RINGS[:1], "label": "a", "objects": 2},
    ],
)
def test_one_mask_of_a_row_stays_one(tmp_path: Path, make: Any, row: dict[str, Any]) -> None:
    outcome = run(None, make(tmp_path / "data", row), tmp_path / "out")
    assert outcome.only()["category"] == "a"
    assert "#" not in outcome.only()["source_mask_id"]
    assert outcome.scan["unread"] == 0


def test_what_columns_say_once_is_kept(tmp_path: Path) -> None:
    columns = {"segmentation": RLES, "label": ["cat", "dog"], "iscrowd": 1, "id": 7}
    outcome = run(None, folder_of(tmp_path / "data", {"objects": columns}), tmp_path / "out")
    assert [(row["source_mask_id"], row["crowd"]) for row in outcome.masks] == [("7#0", True), ("7#1", True)]


def test_captions_and_paths_beside_a_mask_are_not_unread(tmp_path: Path) -> None:
    row = {"mask": MASK, "annotation": "a cat", "mask_path": "m.png", "objects": 2}
    outcome = run(None, parquet(tmp_path / "data", row), tmp_path / "out")
    check(outcome, {"1": FIRST})


def test_padded_rings_stay_polygons(tmp_path: Path) -> None:
    rings = [[*ring[:6], *[ring[0], ring[1]] * 5] for ring in [*RINGS, [80, 50, 90, 50, 90, 60]]]
    zeros = [[10, 10, 40, 10, 40, 40, *[0] * 10], [50, 10, 60, 10, 60, 40, *[0] * 10]]
    rows = [{"segmentation": rings}, {"segmentation": zeros}, {"segmentation": [*zeros, zeros[0]]}]
    assert not any(grids.is_grid(row["segmentation"], lambda: None) for row in rows)
    outcome = run(None, folder_of(tmp_path / "data", *rows, {"segmentation": zeros, "label": 1}), tmp_path / "out")
    assert len(outcome.masks) == 4
    assert "mask_size_mismatch" not in {row["reason"] for row in outcome.masks}


def test_images_are_asked_for_their_size_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(image_folder, "image_size", lambda path, _: asked.append(path))
    rings = [[4 + n, 50, 6 + n, 50, 6 + n, 60, 4 + n, 60] for n in range(9)]
    longer = [[*ring, 3 + n, 55, 2 + n, 54] for n, ring in enumerate(rings)]
    for rows, times in ((rings, 0), (longer, 1)):
        asked.clear()
        root = folder_of(
            tmp_path / f"data{times}", {"annotations": [{"id": n, "segmentation": rows} for n in range(9)]}
        )
        run(None, root, tmp_path / f"out{times}")
        assert len(asked) <= times * 2  # a scan looks, and plans


NO_OBJECTS = [{"id": [], "bbox": [], "category": []}, {"boxes": [], "labels": [], "area": []}]


@pytest.mark.parametrize("make", [parquet, folder_of, sample])
@pytest.mark.parametrize("cells", NO_OBJECTS)
def test_detections_of_no_object_have_no_mask(tmp_path: Path, make: Any, cells: dict[str, Any]) -> None:
    full = {name: [BOXES[0]] if name.startswith("b") else [1] for name in cells}
    if make is sample:
        members = [(f"{n}.{kind}", data) for n in "ab" for kind, data in (("jpg", PHOTO), ("json", b""))]
        contents = {"a.json": {"objects": full}, "b.json": {"objects": cells}}
        found = [(name, data or json.dumps(contents[name]).encode()) for name, data in members]
        root = tar(tmp_path / "data" / "s.tar", found).parent
    else:
        root = make(tmp_path / "data", {"objects": full}, {"objects": cells})
    outcome = run(None, root, tmp_path / "out")
    assert outcome.only()["decision"] != "failed"
    assert outcome.scan["unread"] == 0


@pytest.mark.parametrize("cells", [{"segmentation": [], "bbox": [], "category": []}, {"segmentation": []}, {}])
def test_images_of_no_object_have_no_mask(tmp_path: Path, cells: dict[str, Any]) -> None:
    rows = [{"objects": cells or []}, {"objects": [{"segmentation": RLES[1]}]}]
    outcome = run(None, folder_of(tmp_path / "p", *rows), tmp_path / "out")
    assert (binary.decode(outcome.only()["mask_rle"]) == SECOND).all()
    assert outcome.scan["unread"] == 0


def test_a_column_of_masks_that_is_asked_for_is_the_only_one(tmp_path: Path) -> None:
    root = parquet(tmp_path / "p", {"mask": MASK, "objects": [{"segmentation": RLES[1]}]})
    outcome = run(None, root, tmp_path / "out", "parquet:masks=mask")
    assert (binary.decode(outcome.only()["mask_rle"]) == FIRST).all()
    assert outcome.scan["unread"] == 0
    ignored = run(None, root, tmp_path / "out2", ignore=("*field mask",))
    assert ignored.scan["unread"] == 0


def test_long_fields_of_a_metadata_csv(tmp_path: Path) -> None:
    root = tmp_path / "data"
    put_images(root, "a.jpg", "b.jpg")
    put(root / "m.png", FIRST * 255)
    ring = "[" + " " * 140_000 + json.dumps([RINGS[1]])[1:]
    assert len(ring) > csv.field_size_limit(131072)
    with (root / "metadata.csv").open("w", newline="") as file:
        rows = [("file_name", "mask_file_name", "segmentation"), ("a.jpg", "", ring), ("b.jpg", "m.png", "")]
        csv.writer(file).writerows(rows)
    outcome = run(None, root, tmp_path / "out")
    assert not [row["detail"] for row in outcome.masks if row["decision"] == "failed"]
    masks = {row["image_id"]: binary.decode(row["mask_rle"]) for row in outcome.masks if row["mask_rle"]}
    assert (masks["b.jpg"] == FIRST).all()
    assert (masks["a.jpg"] == SECOND).all()
    assert outcome.scan["unread"] == 0


def test_a_damaged_line_of_a_metadata_csv_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.tables.MAX_LINE_BYTES", 1000)
    root = tmp_path / "data"
    put_images(root, "a.jpg", "b.jpg")
    put(root / "m.png", FIRST * 255)
    put(root / "metadata.csv", f"file_name,mask_file_name,text\na.jpg,m.png,\nb.jpg,m.png,{'x' * 2000}\n")
    outcome = run(None, root, tmp_path / "out")
    assert outcome.only()["image_id"] == "a.jpg"
    assert outcome.said("unread")["damaged"] == ["metadata.csv, from line 3 on"]
    with pytest.raises(RefusedError, match="no column of masks"):
        run(None, parquet(tmp_path / "p", {"text": "x"}), tmp_path / "none")


ONE_MASK: list[dict[str, Any]] = [{"mask": MASK}, {"segmentation": RINGS[:1]}, {"mask_rle": json.dumps(RLES[0])}]


@pytest.mark.parametrize("row", ONE_MASK, ids=lambda row: next(iter(row)))
@pytest.mark.parametrize("more", [{}, {"category_id": 3}, {"label": "cat", "id": 7}], ids=len)
def test_a_row_says_whether_its_mask_is_a_crowd(tmp_path: Path, row: dict[str, Any], more: dict[str, Any]) -> None:
    rows = [{**row, **more, "iscrowd": flag} for flag in (1, 0)]
    outcome = run(None, parquet(tmp_path / "p", *rows), tmp_path / "out")
    assert {one["image_id"][-1]: one["crowd"] for one in outcome.masks} == {"0": True, "1": False}


SOFT = np.clip(np.add.accumulate(np.ones(SIZE_HW, np.float32), 1) * 8 - 200, 0, 255).astype(np.uint8)
LABELS = (FIRST + 2 * SECOND).astype(np.uint8)


def test_values_of_labels_are_categories_and_soft_edges_none(tmp_path: Path) -> None:
    """What the category beside an image of several values says is not certain, and told."""
    rows = [{"mask": encoded(pixels), "category_id": 9} for pixels in (SOFT, LABELS)]
    outcome = run(None, parquet(tmp_path / "bytes", *rows), tmp_path / "out")
    assert [row["category_id"] for row in outcome.masks] == [9, 1, 2]
    assert outcome.said("odd")[LABELS_COUNT] == ["t.parquet, row 1"]
    structs = [{**row, "mask": {"bytes": row["mask"], "path": None}} for row in rows]
    outcome = run(None, parquet(tmp_path / "structs", *structs), tmp_path / "out-structs")
    assert [row["category_id"] for row in outcome.masks] == [9, 9, 9]
    assert outcome.said("odd")[CATEGORY_COUNTS] == ["t.parquet, row 1"]
