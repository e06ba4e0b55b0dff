"""What datasets keep beside their masks, or as masks, in tables and tars: segments, texts, points, further images."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.masks import binary
from pipeline.sources import segments
from tests.field.test_cells import FIRST, SECOND, folder_of, parquet, sample
from tests.field.test_containers import MASK, PHOTO, tar
from tests.field.world import SIZE_HW, encoded, put, run

IDS = np.dstack([np.where(FIRST, 3, np.where(SECOND, 7, 0)), SECOND * 1, SECOND * 0]).astype(np.uint8)
SEGMENTS = [{"id": 3, "category_id": 9, "iscrowd": 0}, {"id": 7 + 256, "category_id": 11, "iscrowd": 1}]


@pytest.mark.parametrize("store", [bytes, lambda data: {"bytes": data, "path": None}], ids=["bytes", "struct"])
def test_segments_say_the_categories_of_ids(tmp_path: Path, store: Any) -> None:
    row = {"annotation": store(encoded(IDS)), "segments_info": SEGMENTS, "label": 5}
    outcome = run(None, parquet(tmp_path / "p", row), tmp_path / "out")
    assert [(one["category_id"], one["crowd"]) for one in outcome.masks] == [(11, True), (9, False)]
    assert [one["area"] for one in outcome.masks] == [SECOND.sum(), FIRST.sum()]
    assert segments.NOT_DRAWN not in outcome.said("odd")


def test_segments_of_an_image_folder(tmp_path: Path) -> None:
    put(tmp_path / "data" / "m.png", encoded(IDS))
    row = {"mask_file_name": "m.png", "segments_info": SEGMENTS}
    outcome = run(None, folder_of(tmp_path / "data", row), tmp_path / "out")
    assert {one["category_id"] for one in outcome.masks} == {9, 11}


def test_segments_in_a_tar(tmp_path: Path) -> None:
    content = json.dumps({"file_name": "a.png", "segments_info": SEGMENTS}).encode()
    root = tar(tmp_path / "t" / "s.tar", [("a.jpg", PHOTO), ("a.png", encoded(IDS)), ("a.json", content)]).parent
    outcome = run(None, root, tmp_path / "out")
    assert {(one["category_id"], one["crowd"]) for one in outcome.masks} == {(9, False), (11, True)}


def test_segments_that_do_not_fit_are_told(tmp_path: Path) -> None:
    ids = encoded((FIRST * 3).astype(np.uint8))
    rows = [
        {"mask": ids, "segments_info": SEGMENTS[:1]},
        {"mask": encoded(IDS), "segments_info": SEGMENTS[:1]},
        {"mask": encoded(IDS), "segments_info": [*SEGMENTS, {"id": 8, "category_id": 1, "iscrowd": 0}]},
    ]
    outcome = run(None, parquet(tmp_path / "p", *rows), tmp_path / "out")
    assert [one["category_id"] for one in outcome.masks] == [9, 263, 9, 11, 9]
    assert outcome.masks[1]["detail"] == "segments: segments_info has no segment 263"
    assert outcome.said("odd")[segments.NOT_DRAWN] == ["t.parquet, row 2"]


def test_names_of_segments(tmp_path: Path) -> None:
    root = parquet(tmp_path / "data", {"mask": encoded(IDS), "segments_info": SEGMENTS})
    kind = {"_type": "ClassLabel", "names": [f"class {number}" for number in range(12)]}
    features = {"segments_info": [{"id": {"_type": "Value"}, "category_id": kind}]}
    table = pq.read_table(root / "t.parquet")
    described = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(described, root / "t.parquet")
    masks = run(None, root, tmp_path / "out").masks
    assert [one["category"] for one in masks] == ["class 11", "class 9"]


@pytest.mark.parametrize("name", ["mask2", "semantic", "trimap", "gt"])
def test_further_images_of_masks_are_named(tmp_path: Path, name: str) -> None:
    row = {"mask": {"bytes": MASK, "path": None}, name: {"bytes": MASK, "path": None}, "thumbnail": PHOTO}
    root = parquet(tmp_path / "p", row)
    said = f"images that may be masks; --source parquet:masks={name} reads these"
    assert run(None, root, tmp_path / "out").said("unread") == {said: [f"t.parquet, field {name}"]}
    for source in ("mask", name):
        assert run(None, root, tmp_path / f"out-{source}", f"parquet:masks={source}").scan["unread"] == 0
    nothing = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    empty = parquet(tmp_path / "empty", {**row, name: {"bytes": None, "path": None}}, **{name: nothing})
    assert run(None, empty, tmp_path / "out-empty").scan["unread"] == 0


TEXT = base64.b64encode(MASK).decode()
POINTS = [{"x": 24.0, "y": 16.0}, {"x": 72.0, "y": 16.0}, {"x": 72.0, "y": 48.0}, {"x": 24.0, "y": 48.0}]


@pytest.mark.parametrize(
    "row",
    [
        {"mask": TEXT},
        {"mask": f"data:image/png;base64,{TEXT}", "label": "cat"},
        {"masks": [TEXT]},
        {"polygon": POINTS, "label": "cat"},
        {"polygon": POINTS},
        {"annotations": [{"polygon": POINTS, "category_id": 1}]},
        {"segmentation": {"x": [point["x"] for point in POINTS], "y": [point["y"] for point in POINTS]}},
    ],
)
@pytest.mark.parametrize("make", [parquet, folder_of, sample])
def test_masks_in_texts_and_points(tmp_path: Path, make: Any, row: dict[str, Any]) -> None:
    outcome = run(None, make(tmp_path / "data", row), tmp_path / "out")
    assert (binary.decode(outcome.only()["mask_rle"]) == FIRST).all()
    assert outcome.scan["unread"] == 0


@pytest.mark.parametrize("text", ["1 3 10 5", "POLYGON ((24 16, 72 16, 72 48))", "iVBORw0KGgo=", "x"])
def test_texts_that_are_no_mask_say_so(tmp_path: Path, text: str) -> None:
    row = run(None, parquet(tmp_path / "p", {"rle": text}), tmp_path / "out").only()
    assert row["reason"] == "mask_unreadable"
    assert row["detail"].startswith(("no mask: ", "unreadable: "))


def test_captions_beside_mask_images_in_tars(tmp_path: Path) -> None:
    """A caption is no mask; what may hold some, under any name, is."""
    caption = json.dumps({"caption": "a cat", "tags": ["cat"], "width": SIZE_HW[1]}).encode()
    shapes = json.dumps({"shapes": [{"points": [[1, 2]]}]}).encode()
    members = [(f"{key}.{end}", data) for key in "ab" for end, data in (("jpg", PHOTO), ("mask.png", MASK))]
    outcome = run(
        None, tar(tmp_path / "t" / "s.tar", [*members, ("a.json", caption), ("b.json", shapes)]).parent, tmp_path
    )
    assert [(row["source_mask_id"], row["reason"] == "mask_unreadable") for row in outcome.masks] == [
        ("a.mask", False),
        ("b", True),
        ("b.mask", False),
    ]
    assert outcome.said("odd")["JSON without masks, beside images of masks"] == ["s.tar#a.json"]


@pytest.mark.parametrize("name", ["masked_image", "annotated_image", "instance_images", "gt_depth"])
def test_photographs_and_depths_are_no_masks_by_their_names(tmp_path: Path, name: str) -> None:
    image = encoded(np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) * 7) if "depth" in name else PHOTO
    row = {"mask": {"bytes": MASK, "path": None}, name: {"bytes": image, "path": None}}
    assert run(None, parquet(tmp_path / "p", row), tmp_path / "out").scan["unread"] == 0


@pytest.mark.parametrize("make", [parquet, folder_of])
def test_segments_are_of_an_image_not_of_a_list_of_masks(tmp_path: Path, make: Any) -> None:
    polygon = [24.0, 16, 72, 16, 72, 48, 24, 48]
    objects = {"segmentation": [[polygon], [polygon]], "category": [5, 1]}
    row = {"objects": objects, "segments_info": [{"id": 1, "category_id": 4}]}
    outcome = run(None, make(tmp_path / "data", row), tmp_path / "out")
    assert sorted(mask["category_id"] for mask in outcome.masks) == [1, 5]
    assert not any("segments" in (mask["detail"] or "") for mask in outcome.masks)


XS = {"x": [24.0, 72.0, 72.0, 24.0], "y": [16.0, 16.0, 48.0, 48.0]}
OTHER_XS = {"x": [4.0, 20.0, 20.0, 4.0], "y": [50.0, 50.0, 60.0, 60.0]}


@pytest.mark.parametrize(
    ("row", "areas"),
    [
        ({"masks": [XS, OTHER_XS]}, [48 * 32, 160]),
        ({"objects": {"polygon": [XS, OTHER_XS], "category": [1, 2]}}, [48 * 32, 160]),
        ({"objects": [{"polygon": XS, "category": 1}, {"polygon": OTHER_XS, "category": 2}]}, [48 * 32, 160]),
        ({"segmentation": [XS, OTHER_XS]}, [48 * 32 + 160]),
        ({"segmentation": [XS, OTHER_XS], "label": "cat"}, [48 * 32 + 160]),
    ],
)
@pytest.mark.parametrize("make", [parquet, folder_of, sample])
def test_several_lists_of_points(tmp_path: Path, make: Any, row: dict[str, Any], areas: list[int]) -> None:
    """Points of two polygons are not those of one."""
    assert [mask["area"] for mask in run(None, make(tmp_path / "data", row), tmp_path / "out").masks] == areas
