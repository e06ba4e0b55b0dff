"""Masks in cells beside other cells: whose class is whose, pixels as nested lists, and fields that are not used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.masks import binary
from tests.field.test_containers import MASK, PHOTO, RING, tar
from tests.field.world import SIZE_HW, Outcome, Pixels, encoded, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
FIRST, SECOND = square(), square(box=(50, 60, 4, 20))
PNGS = [encoded(FIRST * 255), encoded(SECOND * 255)]
RLES = [binary.encode(FIRST), binary.encode(SECOND)]
RINGS = [[float(value) for value in RING], [4.0, 50, 20, 50, 20, 60, 4, 60]]
BOXES = [[24.0, 16, 48, 32], [4.0, 50, 16, 10]]
TORCHVISION_BOXES = [[24.0, 16, 72, 48], [4.0, 50, 20, 60]]
BOTH = {"cat": FIRST, "dog": SECOND}
UNEVEN, UNUSED = "another number of values than of masks", "the masks are read from"


def parquet(folder: Path, *rows: dict[str, Any], **kinds: pa.DataType) -> Path:
    """A file of rows with the photograph in `image`, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([{"image": PHOTO, **row} for row in rows])
    for name, kind in kinds.items():
        cells = pa.array([row[name] for row in rows], kind)
        table = table.set_column(table.column_names.index(name), name, cells)
    pq.write_table(table, folder / "t.parquet")
    return folder


def folder_of(folder: Path, *rows: dict[str, Any]) -> Path:
    """A Hugging Face image folder of rows, each of a.jpg."""
    put_images(folder, "a.jpg")
    put(folder / "metadata.jsonl", "".join(json.dumps({"file_name": "a.jpg", **row}) + "\n" for row in rows))
    return folder


def sample(folder: Path, content: dict[str, Any]) -> Path:
    """A WebDataset of one image with JSON."""
    return tar(folder / "s.tar", [("a.jpg", PHOTO), ("a.json", json.dumps(content).encode())]).parent


def by_class(outcome: Outcome) -> dict[str, Pixels]:
    """Class -> pixels of masks that did not fail, of which each has a class of its own."""
    masks = [row for row in outcome.masks if row["mask_rle"]]
    found = {row["category"] or str(row["category_id"]): binary.decode(row["mask_rle"]) for row in masks}
    assert len(found) == len(outcome.masks)
    return found


def check(outcome: Outcome, expected: dict[str, Pixels]) -> None:
    found = by_class(outcome)
    assert found.keys() == expected.keys()
    assert all((found[name] == pixels).all() for name, pixels in expected.items())
    assert outcome.scan["unread"] == 0


ROWS: dict[str, dict[str, Any]] = {
    "masks and labels": {"masks": PNGS, "labels": ["cat", "dog"]},
    "masks and category": {"masks": PNGS, "category": ["cat", "dog"]},
    "masks and category names": {"masks": PNGS, "category_names": ["cat", "dog"]},
    "run lengths and labels": {"masks": RLES, "labels": ["cat", "dog"]},
    "run lengths in a column of their own": {"rle": RLES, "category": ["cat", "dog"]},
    "the same beside an id": {"rle": RLES, "category": ["cat", "dog"], "id": 7},
    "as text": {"rle": json.dumps(RLES), "category": json.dumps(["cat", "dog"]), "id": 7},
    "images of Hugging Face": {"masks": [{"bytes": one, "path": None} for one in PNGS], "labels": ["cat", "dog"]},
    "polygons": {"segmentation": RINGS, "labels": ["cat", "dog"]},
    "structs without a class": {"objects": [{"segmentation": one} for one in RLES], "labels": ["cat", "dog"]},
    "a struct": {"objects": {"bbox": BOXES, "masks": PNGS, "label": ["cat", "dog"]}},
    "a struct of structs": {"objects": {"bbox": BOXES, "masks": RLES, "label": ["cat", "dog"]}},
    "pixels": {"masks": [FIRST.tolist(), SECOND.tolist()], "labels": ["cat", "dog"]},
}
JSON_ROWS = sorted(name for name in ROWS if b"PNG" not in repr(ROWS[name]).encode())


@pytest.mark.parametrize("name", ROWS)
def test_classes_beside_masks_in_parquet(tmp_path: Path, name: str) -> None:
    check(run(None, parquet(tmp_path / "data", ROWS[name]), tmp_path / "out"), BOTH)


@pytest.mark.parametrize("name", JSON_ROWS)
@pytest.mark.parametrize("make", [folder_of, sample])
def test_classes_beside_masks_in_json(tmp_path: Path, make: Any, name: str) -> None:
    check(run(None, make(tmp_path / "data", ROWS[name]), tmp_path / "out"), BOTH)


def test_torchvision_in_a_webdataset(tmp_path: Path) -> None:
    content = {"boxes": TORCHVISION_BOXES, "masks": RLES, "labels": [3, 5], "iscrowd": [0, 1], "image_id": 7}
    outcome = run(None, sample(tmp_path / "data", content), tmp_path / "out")
    check(outcome, {"3": FIRST, "5": SECOND})
    assert {row["category_id"]: row["crowd"] for row in outcome.masks} == {3: False, 5: True}


def test_a_table_of_categories_beside_annotations(tmp_path: Path) -> None:
    annotations = [{"segmentation": one, "category_id": number} for number, one in enumerate(RLES, 3)]
    table = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    content = {"annotations": annotations, "categories": table, "id": 9}
    check(run(None, sample(tmp_path / "data", content), tmp_path / "out"), BOTH)


def test_names_of_class_labels_beside_masks(tmp_path: Path) -> None:
    root = parquet(tmp_path / "data", {"masks": RLES, "labels": [1, 0]})
    features = {"labels": {"feature": {"_type": "ClassLabel", "names": ["dog", "cat"]}, "_type": "Sequence"}}
    table = pq.read_table(root / "t.parquet")
    described = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(described, root / "t.parquet")
    check(run(None, root, tmp_path / "out"), BOTH)


def test_one_class_of_several_masks(tmp_path: Path) -> None:
    outcome = run(None, parquet(tmp_path / "data", {"masks": PNGS, "label": "cat", "id": 4}), tmp_path / "out")
    assert [(row["category"], row["source_mask_id"]) for row in outcome.masks] == [("cat", "4#0"), ("cat", "4#1")]
    alone = run(None, parquet(tmp_path / "alone", {"mask": MASK, "labels": ["cat"]}), tmp_path / "out2")
    check(alone, {"cat": FIRST})


@pytest.mark.parametrize("masks", [{"masks": RLES}, {"rle": RLES}, {"objects": {"segmentation": RLES}}])
@pytest.mark.parametrize("names", [["cat"], ["cat", "dog", "cow"]])
def test_another_number_of_classes_is_named(tmp_path: Path, masks: dict[str, Any], names: list[str]) -> None:
    row = {**masks, "category": names}
    if "objects" in masks:
        row = {"objects": {**masks["objects"], "category": names}}
    outcomes = {
        "t.parquet, row 0: category": run(None, parquet(tmp_path / "p", row), tmp_path / "o1"),
        "metadata.jsonl, line 1: category": run(None, folder_of(tmp_path / "f", row), tmp_path / "o2"),
        "s.tar#a.json: category": run(None, sample(tmp_path / "w", row), tmp_path / "o3"),
    }
    for place, outcome in outcomes.items():
        assert outcome.said("unread") == {UNEVEN: [place]}
        assert [row["area"] for row in outcome.masks] == [FIRST.sum(), SECOND.sum()]


def test_several_classes_of_one_mask_are_named(tmp_path: Path) -> None:
    outcome = run(None, folder_of(tmp_path / "data", {"rle": RLES[0], "label": ["cat", "dog"]}), tmp_path / "out")
    assert outcome.said("unread") == {UNEVEN: ["metadata.jsonl, line 1: label"]}
    assert (binary.decode(outcome.only()["mask_rle"]) == FIRST).all()


ELLIPSE = (((np.mgrid[:HEIGHT, :WIDTH].T - (32, 48)) / (20, 35)) ** 2).sum(axis=2).T < 1
GRIDS: dict[str, tuple[Any, dict[str, Pixels]]] = {
    "0 and 1": (ELLIPSE.astype(int).tolist(), {"1": ELLIPSE}),
    "0 and 255": ((ELLIPSE * 255).tolist(), {"1": ELLIPSE}),
    "booleans": (ELLIPSE.tolist(), {"1": ELLIPSE}),
    "floats": (ELLIPSE.astype(float).tolist(), {"1": ELLIPSE}),
    "labels": ((FIRST * 3 + SECOND * 7).tolist(), {"3": FIRST, "7": SECOND}),
    "shares": ((0.2 + ELLIPSE * 0.5 + np.linspace(0, 0.1, WIDTH)).tolist(), {"1": ELLIPSE}),
    "text": (json.dumps(ELLIPSE.astype(int).tolist()), {"1": ELLIPSE}),
    "one of one": ([ELLIPSE.astype(int).tolist()], {"1": ELLIPSE}),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("column", ["mask", "masks", "segmentation"])
def test_pixels_as_nested_lists(tmp_path: Path, name: str, column: str) -> None:
    pixels, expected = GRIDS[name]
    check(run(None, parquet(tmp_path / "p", {column: pixels}), tmp_path / "o1"), expected)
    check(run(None, folder_of(tmp_path / "f", {column: pixels}), tmp_path / "o2"), expected)
    check(run(None, sample(tmp_path / "w", {column: pixels}), tmp_path / "o3"), expected)


def test_pixels_beside_a_class_and_of_images_elsewhere(tmp_path: Path) -> None:
    put_images(tmp_path / "data" / "images", "a.jpg")
    shares = GRIDS["shares"][0]
    table = pa.Table.from_pylist([{"file_name": "images/a.jpg", "mask": shares, "label": "cat"}])
    pq.write_table(table, tmp_path / "data" / "t.parquet")
    check(run(tmp_path / "data", tmp_path / "data" / "t.parquet", tmp_path / "out"), {"cat": ELLIPSE})


def test_stacks_of_pixels_are_a_mask_a_plane(tmp_path: Path) -> None:
    stack = np.stack([FIRST, SECOND]).tolist()
    rows = [{"mask": stack}, {"mask": stack, "label": "cat"}, {"mask": stack, "id": 5}]
    outcome = run(None, parquet(tmp_path / "p", *rows), tmp_path / "out")
    assert sorted(row["area"] for row in outcome.masks) == sorted([FIRST.sum(), SECOND.sum()] * 3)
    assert outcome.scan["unread"] == 0


def test_each_row_group_is_asked_for_its_sizes(tmp_path: Path) -> None:
    rows = [{"image": PHOTO, "mask": GRIDS["shares"][0]} for _ in range(5)]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "t.parquet", row_group_size=2)
    outcome = run(None, tmp_path / "data", tmp_path / "out")
    assert [row["area"] for row in outcome.masks] == [ELLIPSE.sum()] * 5


@pytest.mark.parametrize(
    ("pixels", "reason", "said"),
    [
        (ELLIPSE[:40, :50].astype(int).tolist(), "mask_size_mismatch", "40x50"),
        ((FIRST * 3 + SECOND * 7)[:62].tolist(), "mask_size_mismatch", "62x96"),
        ([*FIRST.tolist(), [0, 1]], "mask_unreadable", "rows of several lengths"),
        (ELLIPSE.astype(int).ravel().tolist(), "mask_unreadable", "in one row"),
        ((FIRST.astype(int) * -3).tolist(), "mask_unreadable", "below 0"),
    ],
)
def test_pixels_that_are_no_mask_of_their_image(tmp_path: Path, pixels: Any, reason: str, said: str) -> None:
    outcome = run(None, parquet(tmp_path / "p", {"mask": pixels}), tmp_path / "out")
    assert {row["reason"] for row in outcome.masks} == {reason}
    assert said in outcome.masks[0]["detail"]


def test_polygons_of_as_many_corners_stay_polygons(tmp_path: Path) -> None:
    """Two rings, and as many as an image has rows, of one length and of whole numbers."""
    many = [[4 + n, 50, 6 + n, 50, 6 + n, 60, 4 + n, 60] for n in range(12)]
    rows = [{"segmentation": [[int(value) for value in ring] for ring in RINGS]}, {"segmentation": many}]
    outcome = run(None, parquet(tmp_path / "p", *rows), tmp_path / "out")
    assert [row["area"] for row in outcome.masks] == [FIRST.sum() + SECOND.sum(), 130]


def test_flat_rings_beside_boxes_are_a_mask_each(tmp_path: Path) -> None:
    columns = {"bbox": BOXES, "segmentation": RINGS}
    for number, row in enumerate([{"objects": columns}, columns]):
        for make in (parquet, folder_of, sample):
            outcome = run(
                None, make(tmp_path / f"{make.__name__}{number}", row), tmp_path / f"o{make.__name__}{number}"
            )
            masks = [binary.decode(row["mask_rle"]) for row in outcome.masks]
            assert [(one == drawn).all() for one, drawn in zip(masks, [FIRST, SECOND], strict=True)] == [True] * 2
            assert outcome.scan["unread"] == 0
    one = run(None, parquet(tmp_path / "one", {"objects": {"bbox": BOXES[0], "segmentation": RINGS}}), tmp_path / "o")
    assert one.only()["area"] == FIRST.sum() + SECOND.sum()


def test_a_class_label_that_says_nothing_of_the_masks_names_none(tmp_path: Path) -> None:
    """`scene_category` of ADE20K is the image's; its numbers are not those of `annotation`."""
    root = parquet(
        tmp_path / "data", {"annotation": encoded((FIRST + 2 * SECOND).astype(np.uint8)), "scene_category": 1}
    )
    features = {"scene_category": {"_type": "ClassLabel", "names": ["street", "kitchen", "forest"]}}
    table = pq.read_table(root / "t.parquet")
    described = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(described, root / "t.parquet")
    masks = run(None, root, tmp_path / "out").masks
    assert [(row["category_id"], row["category"]) for row in masks] == [(1, ""), (2, "")]
