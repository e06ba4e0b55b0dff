"""LVIS of both versions, panoptic files and detections: what they say beside COCO's own fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.masks import binary
from tests.field.world import SIZE_HW, coco, photograph, put, put_images, run, square
from tests.pipeline.exports.results import write

LVIS = {"neg_category_ids": [2], "not_exhaustive_category_ids": [3]}
URL = "http://images.cocodataset.org/val2017/000000000042.jpg"


@pytest.mark.parametrize(
    ("image", "root"),
    [
        ({"file_name": "COCO_val2014_000000000042.jpg", "coco_url": URL}, ""),
        ({"file_name": "COCO_val2014_000000000042.jpg", "coco_url": URL}, "val2017"),
        ({"coco_url": URL}, ""),
        ({"coco_url": URL}, "val2017"),
        ({"file_name": "val2017/000000000042.jpg"}, ""),
    ],
)
def test_lvis_of_both_versions_there_and_back(tmp_path: Path, image: dict[str, Any], root: str) -> None:
    put_images(tmp_path / "images", "val2017/000000000042.jpg")
    entry = {**image, **LVIS, "id": 42}
    content = coco(entry, annotations=[{"id": 1, "image_id": 42, "category_id": 1}])
    words = {"synset": "cat.n.01", "synonyms": ["cat", "kitty"], "def": "a cat", "frequency": "f"}
    content["categories"] = [{"id": number, "name": f"c{number}", **words} for number in (1, 2, 3)]
    outcome = run(tmp_path / "images" / root, put(tmp_path / "lvis.json", content), tmp_path / "out")
    assert outcome.source == "lvis"
    assert [row["status"] for row in outcome.images.values()] == ["ok"]
    write(outcome.result, tmp_path / "to", "lvis")
    back = json.loads((tmp_path / "to" / "lvis.json").read_text())
    assert {key: back["images"][0][key] for key in LVIS} == LVIS
    assert back["images"][0]["id"] == 42
    if "coco_url" in image:
        assert back["images"][0]["coco_url"] == URL
    assert [(one["synset"], one["synonyms"], one["def"]) for one in back["categories"]] == [
        ("cat.n.01", ["cat", "kitty"], "a cat")
    ] * 3


def test_panoptic_keeps_ids_things_and_crowds(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    ids = np.zeros((*SIZE_HW, 3), np.uint8)
    ids[:32, :, 0], ids[32:, :, 0] = 5, 6
    put(tmp_path / "panoptic" / "a.png", ids)
    segments = [
        {"id": "5", "category_id": 187.0, "iscrowd": 0},
        {"id": 6, "category_id": "1", "iscrowd": 1, "note": "x"},
    ]
    content = {
        "images": [{"id": 700, "file_name": "a.jpg", "height": 64, "width": 96}],
        "annotations": [{"image_id": 700, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
            {"id": 187, "name": "sky", "isthing": 0, "supercategory": "solid"},
        ],
    }
    outcome = run(tmp_path / "images", put(tmp_path / "panoptic.json", content), tmp_path / "out")
    assert [(row["category"], row["crowd"], row["area"]) for row in outcome.masks] == [
        ("sky", False, 3072),
        ("person", True, 3072),
    ]
    write(outcome.result, tmp_path / "to", "coco-panoptic")
    back = json.loads((tmp_path / "to" / "panoptic.json").read_text())
    assert back["categories"] == content["categories"]
    assert [image["id"] for image in back["images"]] == [700]
    assert back["annotations"][0]["image_id"] == 700
    found = {one["category_id"]: one for one in back["annotations"][0]["segments_info"]}
    assert (found[187]["iscrowd"], found[1]["iscrowd"], found[1]["note"]) == (0, 1, "x")


@pytest.mark.parametrize(
    ("annotation", "planned"),
    [({"segments_info": 5}, 0), ({"file_name": ".", "segments_info": [{"id": 1, "category_id": 1}]}, 1)],
)
def test_panoptic_entries_that_make_no_sense_stop_nothing(tmp_path: Path, annotation: Any, planned: int) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "panoptic" / "a.png", photograph())
    good = {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 0x3C28C8, "category_id": 1}]}
    content = coco({"file_name": "a.jpg"}, annotations=[good, {"image_id": 1, **annotation}])
    outcome = run(tmp_path / "images", put(tmp_path / "panoptic.json", content), tmp_path / "out")
    assert len(outcome.masks) == 1 + planned


def test_detections_of_any_score_are_kept_or_named(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "1.jpg")
    scores: list[Any] = [0.9, float("nan"), -0.1, 10**400, "0.8", None]
    rle = binary.encode(square())
    entries = [{"image_id": 1, "category_id": 1, "score": score, "segmentation": rle} for score in scores]
    masks = put(tmp_path / "r.json", [*entries, 7])
    outcome = run(tmp_path / "images", masks, tmp_path / "all")
    assert len(outcome.masks) == len(scores)
    assert json.loads(outcome.masks[0]["extra"]) == {"score": 0.9}
    assert outcome.said("unread") == {"no object": ["r.json: entry 6"]}
    some = run(tmp_path / "images", masks, tmp_path / "some", "coco-results:min_score=0.5")
    assert [row["source_mask_id"] for row in some.masks] == ["0", "4"]
    assert sum(map(len, some.said("ignored").values())) == 3  # the first three of four
