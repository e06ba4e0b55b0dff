"""COCO and its family as tools write them: ids, categories, crowds, odd segmentations, names, carried fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.sources.scan_table import lines
from pipeline.storage import Store
from tests.field.world import RING, SIZE_HW, coco, put, put_images, run, square
from tests.pipeline.exports.results import write

SQUARE = square()
RLE = binary.encode(SQUARE)


def as_counts(rle: Any) -> list[int]:
    return binary.run_lengths(rle["counts"])


@pytest.mark.parametrize("category", ["3", 3.0, 3, "3.0", " 3 ", "dog"])
@pytest.mark.parametrize("declared", [3, "3", 3.0])
def test_category_ids_are_the_same_however_they_are_written(tmp_path: Path, category: Any, declared: Any) -> None:
    put_images(tmp_path / "images", "a.png")
    content = coco({"file_name": "a.png"}, annotations=[{"id": 1, "image_id": 1, "category_id": category}])
    content["categories"] = [{"id": declared, "name": "dog"}]
    row = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out").only()
    assert (row["category_id"], row["category"], row["detail"]) == (3, "dog", None)


@pytest.mark.parametrize("category", [None, float("nan"), True, 2.5, "x", 2**70, [3]])
def test_a_category_id_that_makes_no_sense_is_told(tmp_path: Path, category: Any) -> None:
    put_images(tmp_path / "images", "a.png")
    content = coco({"file_name": "a.png"}, annotations=[{"id": 1, "image_id": 1, "category_id": category}])
    outcome = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out")
    row = outcome.only()
    assert (row["category_id"], row["decision"]) == (-1, "refined")
    assert "is no category id" in row["detail"]
    assert outcome.said("odd") == {"category": ["a.png, mask 1"]}


@pytest.mark.parametrize(("image_id", "named"), [(1, 1.0), ("1", 1), (7.0, "7"), ("a", "a")])
def test_image_ids_are_joined_however_they_are_written(tmp_path: Path, image_id: Any, named: Any) -> None:
    put_images(tmp_path / "images", "a.png")
    content = coco({"file_name": "a.png", "id": image_id}, annotations=[{"id": 1, "image_id": named, "category_id": 1}])
    outcome = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out")
    assert outcome.only()["image_id"] == "a.png"
    assert list(outcome.images) == ["a.png"]


def test_an_annotation_of_no_image_says_so(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.png")
    entries = [{"id": 1, "image_id": 1, "category_id": 1}, {"id": 2, "image_id": float("nan"), "category_id": 1}]
    outcome = run(
        tmp_path / "images",
        put(tmp_path / "c.json", coco({"file_name": "a.png"}, annotations=entries)),
        tmp_path / "out",
    )
    lost = outcome.images["unknown-image-nan"]
    assert (lost["reason"], lost["detail"]) == ("image_missing", "the file has no image of the id nan")


@pytest.mark.parametrize("flag", [1, True, 1.0, "1"])
def test_a_crowd_is_kept_as_it_came(tmp_path: Path, flag: Any) -> None:
    put_images(tmp_path / "images", "x.png")
    crowd = {"size": list(SIZE_HW), "counts": as_counts(RLE)}
    entries = [
        {"id": 1, "image_id": 700, "category_id": 1, "segmentation": crowd, "iscrowd": flag},
        {"id": 2, "image_id": 700, "category_id": 1},
    ]
    content = coco({"file_name": "x.png", "id": 700}, annotations=entries)
    outcome = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out")
    first, second = outcome.masks
    assert (first["crowd"], first["decision"], first["reason"]) == (True, "kept_coarse", "crowd")
    assert first["refined_rle"] is None
    assert first["quality"] is None
    assert first["mask_rle"] == first["coarse_rle"] == RLE
    assert (second["crowd"], second["decision"]) == (False, "refined")
    for polygons in (False, True):
        write(outcome.result, tmp_path / f"to{polygons}", "coco", polygons=polygons)
        back = json.loads((tmp_path / f"to{polygons}" / "instances.json").read_text())
        assert [image["id"] for image in back["images"]] == [700]
        one = {annotation["id"]: annotation for annotation in back["annotations"]}
        assert [one[1]["iscrowd"], one[2]["iscrowd"]] == [1, 0]
        assert one[1]["segmentation"] == RLE
    again = run(tmp_path / "images", tmp_path / "toFalse" / "instances.json", tmp_path / "again")
    assert [row["crowd"] for row in again.masks] == [True, False]
    lost = write(outcome.result, tmp_path / "yolo", "yolo").report["lost"]
    assert lost["crowd regions, which would be objects"] == 1
    assert len((tmp_path / "yolo" / "labels" / "train" / "x.txt").read_text().splitlines()) == 1


PAIRS = [[24, 16], [72, 16], [72, 48], [24, 48]]
ODD = {
    "flat": RING,
    "pairs": PAIRS,
    "rings of pairs": [PAIRS],
    "too deep": [[RING]],
    "float counts": {"size": list(SIZE_HW), "counts": [float(run) for run in as_counts(RLE)]},
    "bytes as text": {"size": list(SIZE_HW), "counts": repr(RLE["counts"].encode())},
    "text": json.dumps(RLE),
    "list of one": [RLE],
    "list of two": [binary.encode(square(box=(16, 48, 24, 50))), binary.encode(square(box=(16, 48, 50, 72)))],
    "float size": {"size": [64.0, 96.0], "counts": RLE["counts"]},
}


@pytest.mark.parametrize("name", ODD)
def test_other_forms_of_a_segmentation_are_read(tmp_path: Path, name: str) -> None:
    put_images(tmp_path / "images", "a.png")
    entries = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": ODD[name]}]
    outcome = run(
        tmp_path / "images",
        put(tmp_path / "c.json", coco({"file_name": "a.png"}, annotations=entries)),
        tmp_path / "out",
    )
    assert (outcome.pixels()["1"] == SQUARE).all()


@pytest.mark.parametrize(
    ("segmentation", "detail"),
    [
        ([[24, 16, 72, 48]], "polygon 1 has 2 points"),
        ([RING[:-1]], "polygon 1 has 7 numbers, an odd number"),
        ([[24, "x", 72, 48, 1, 2]], "'x' where a polygon should be"),
        ("no json", "a segmentation that is text, and no JSON: 'no json'"),
        ({"counts": "0"}, "no RLE of size and counts, but counts"),
        ({"size": [64, 96], "counts": [1, 2]}, "RLE runs cover 3 pixels of 64x96"),
        ({"size": [3_000_000_000, 1], "counts": [3_000_000_000]}, "RLE of size 3000000000x1"),
        ([RLE, {"size": [1, 1], "counts": [1]}], "a list of RLEs of different sizes"),
        (None, "no polygons, RLE or file, but null"),
        ([], "an empty list: no polygon"),
    ],
)
def test_a_segmentation_that_is_none_says_what_and_where(tmp_path: Path, segmentation: Any, detail: str) -> None:
    put_images(tmp_path / "images", "a.png", "b.png")
    entries = [
        {"id": 17, "image_id": 1, "category_id": 1, "segmentation": segmentation},
        {"id": 18, "image_id": 2, "category_id": 1},
    ]
    content = coco({"file_name": "a.png"}, {"file_name": "b.png"}, annotations=entries)
    failed, good = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out").masks
    assert (failed["decision"], failed["reason"], failed["detail"]) == ("failed", "mask_unreadable", detail)
    assert good["decision"] == "refined"


def test_a_polygon_that_is_left_out_is_told(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.png")
    entries = [{"id": 17, "image_id": 1, "category_id": 1, "segmentation": [RING, [1, 1, 5, 5]]}]
    outcome = run(
        tmp_path / "images",
        put(tmp_path / "c.json", coco({"file_name": "a.png"}, annotations=entries)),
        tmp_path / "out",
    )
    assert outcome.only()["detail"] == "polygon 2 has 2 points"
    assert (outcome.pixels()["17"] == SQUARE).all()


@pytest.mark.parametrize("segmentation", [None, []])
def test_a_box_alone_is_its_rectangle_and_says_so(tmp_path: Path, segmentation: Any) -> None:
    put_images(tmp_path / "images", "a.png")
    entries = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [24, 16, 48, 32], "segmentation": segmentation}]
    outcome = run(
        tmp_path / "images",
        put(tmp_path / "c.json", coco({"file_name": "a.png"}, annotations=entries)),
        tmp_path / "out",
    )
    assert (outcome.pixels()["1"] == SQUARE).all()
    assert outcome.only()["detail"].startswith("boxes: no segmentation")
    assert outcome.said("odd") == {"boxes": ["a.png, mask 1"]}


NAMES = [
    ("images\\{}", "p0.jpg", "backslashes"),
    ("images/{}", "p0.jpg", "without the leading images/"),
    ("./{}", "p0.jpg", "without ./"),
    ("C:\\data\\set\\{}", "p0.jpg", "backslashes"),
    ("http://host/a/b/{}", "p0.jpg", "without the leading http://host/a/b/"),
    ("/data/local-files/?d=set/{}", "p0.jpg", "without the leading /data/local-files/?d=set/"),
    ("http://host/{}?x=1", "p0.jpg", "URL"),
    ("{}", "train/p0.jpg", "below train/"),
    ("{}", "p0.png", "with the suffix .png"),
    ("two%20words/{}", "two words/p0.jpg", "percent"),
    ("cafe\u0301/{}", "caf\u00e9/p0.jpg", "NFC"),
]


@pytest.mark.parametrize(("form", "path", "rule"), NAMES)
def test_the_rule_that_makes_names_match_is_applied_and_said(tmp_path: Path, form: str, path: str, rule: str) -> None:
    paths = [path.replace("0", str(number)) for number in range(3)]
    put_images(tmp_path / "images", *paths)
    content = coco(*({"file_name": form.format(f"p{number}.jpg")} for number in range(3)))
    masks = put(tmp_path / "c.json", content)
    outcome = run(tmp_path / "images", masks, tmp_path / "out")
    assert sorted(outcome.images) == sorted(paths)
    assert all(row["status"] == "ok" for row in outcome.images.values())
    assert any(rule in line for line in lines(outcome.scan)), lines(outcome.scan)
    put_images(tmp_path / "images", form.format("p0.jpg").rpartition("/")[2].rpartition("\\")[2] + ".new.jpg")
    assert run(tmp_path / "images", masks, tmp_path / "out").scan["rules"] == outcome.scan["rules"]


def test_no_name_that_matches_is_refused_with_an_example_of_each_side(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "cat.jpg")
    masks = put(tmp_path / "coarse.json", coco({"file_name": "dog.jpg"}))
    with pytest.raises(RefusedError, match=r"it names dog\.jpg, --images has cat\.jpg"):
        run(tmp_path / "images", masks, tmp_path / "out")
    assert not Store(str(tmp_path / "out")).list("plan")


def test_a_name_that_is_missing_among_others_is_named(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "p0.jpg", "p1.jpg")
    names = ("p0.jpg", "images/p1.jpg", "x.jpg", "y.jpg")
    outcome = run(
        tmp_path / "images", put(tmp_path / "c.json", coco(*({"file_name": name} for name in names))), tmp_path / "out"
    )
    assert outcome.images["p0.jpg"]["status"] == "ok"
    assert outcome.images["images/p1.jpg"]["detail"] == "the folder has p1.jpg, the file names images/p1.jpg"
    assert outcome.images["x.jpg"]["detail"] == "--images has no x.jpg"
    assert any("ONLY 1 of 4 image names in the masks" in line for line in lines(outcome.scan))
    assert outcome.said("unnamed", "images") == {"no mask belongs to it": ["p1.jpg"]}
    assert any(line.endswith(" no mask belongs to it (p1.jpg)") for line in lines(outcome.scan))


def test_what_a_file_says_beside_comes_back(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.png")
    content = coco(
        {"file_name": "a.png", "id": 9, "license": 4, "date_captured": "2013", "meta": {"lens": [1, 2]}},
        annotations=[{"id": 5, "image_id": 9, "category_id": 1, "attributes": {"occluded": True}, "score": 0.5}],
        info={"year": 2014, "description": "set"},
        licenses=[{"id": 4, "name": "by", "url": "http://x"}],
    )
    content["categories"] = [
        {"id": 1, "name": "cat", "supercategory": "animal", "keypoints": ["nose"]},
        {"id": 8, "name": "unused", "supercategory": "none"},
    ]
    outcome = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out")
    write(outcome.result, tmp_path / "to", "coco")
    back = json.loads((tmp_path / "to" / "instances.json").read_text())
    assert back["info"] == content["info"]
    assert back["licenses"] == content["licenses"]
    assert back["categories"] == content["categories"]
    assert back["images"] == [{**content["images"][0]}]
    [annotation] = back["annotations"]
    assert (annotation["attributes"], annotation["score"], annotation["id"]) == ({"occluded": True}, 0.5, 5)


def test_entries_that_are_no_objects_are_named(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.png")
    content = coco({"file_name": "a.png"})
    content["annotations"] += [None, [1]]
    content["images"].append("b.png")
    outcome = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out")
    assert outcome.scan["unread"] == 3
    assert len(outcome.said("unread")["no object"]) == 3


def test_names_of_which_some_are_encoded(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "p0.jpg", "two words.jpg", "sub/b.jpg")
    content = coco({"file_name": "p0.jpg"}, {"file_name": "two%20words.jpg"}, {"file_name": "gone%20one.jpg"})
    outcome = run(tmp_path / "images", put(tmp_path / "c.json", content), tmp_path / "out")
    found = {name: row["status"] for name, row in outcome.images.items()}
    assert found == {"p0.jpg": "ok", "two words.jpg": "ok", "gone%20one.jpg": "failed"}
