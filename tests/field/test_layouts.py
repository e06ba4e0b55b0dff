"""Datasets as they are downloaded: Cityscapes, KITTI, Mapillary, ADE20K, CamVid, VOC by CVAT, YOLO by Roboflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import RefusedError
from pipeline.sources import detect
from tests.field.world import SIZE_HW, Outcome, Pixels, encoded, put, put_images, run, square

LEFT, RIGHT = square(box=(8, 40, 8, 30)), square(box=(16, 56, 50, 80))


def labels(left: int, right: int, kind: Any = np.uint8) -> Pixels:
    """(H, W) with two areas."""
    return (LEFT.astype(np.int64) * left + RIGHT.astype(np.int64) * right).astype(kind)


def colours(left: tuple[int, int, int], right: tuple[int, int, int]) -> Pixels:
    pixels = np.zeros((*SIZE_HW, 3), np.uint8)
    pixels[LEFT > 0], pixels[RIGHT > 0] = left, right
    return pixels


def categories(outcome: Outcome) -> dict[int, str]:
    """Category id -> name, where each of two areas is the mask it should be."""
    found = {}
    for row in outcome.masks:
        pixels = outcome.pixels()[row["source_mask_id"]]
        assert (pixels == LEFT).all() or (pixels == RIGHT).all()
        found[row["category_id"]] = row["category"]
    assert len(outcome.masks) == 2
    return found


CITY = "aachen/aachen_000000_000019"


def cityscapes(folder: Path, *kinds: str) -> None:
    put_images(folder / "leftImg8bit" / "train", f"{CITY}_leftImg8bit.png")
    content = {
        "instanceIds": labels(7, 26001, np.uint16),
        "labelIds": labels(7, 26),
        "labelTrainIds": np.where(LEFT > 0, 0, np.where(RIGHT > 0, 13, 255)).astype(np.uint8),
        "color": colours((128, 64, 128), (0, 0, 142)),
    }
    for kind in kinds:
        put(folder / "gtFine" / "train" / f"{CITY}_gtFine_{kind}.png", content[kind])
    put(folder / "gtFine" / "train" / f"{CITY}_gtFine_polygons.json", {"objects": []})


def test_cityscapes_instances(tmp_path: Path) -> None:
    cityscapes(tmp_path, "instanceIds", "labelIds", "color")
    assert detect(str(tmp_path / "gtFine")) == "instances"
    outcome = run(tmp_path / "leftImg8bit", tmp_path / "gtFine", tmp_path / "out")
    assert categories(outcome) == {7: "road", 26: "car"}
    assert list(outcome.images) == [f"train/{CITY}_leftImg8bit.png"]
    assert outcome.scan["unread"] == 0
    assert len(outcome.said("ignored")) == 3


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [(("labelIds", "color", "instanceIds"), {7: "road", 26: "car"}), (("labelTrainIds",), {0: "road", 13: "car"})],
)
def test_cityscapes_class_maps(tmp_path: Path, kinds: tuple[str, ...], expected: dict[int, str]) -> None:
    cityscapes(tmp_path, *kinds)
    outcome = run(tmp_path / "leftImg8bit", tmp_path / "gtFine", tmp_path / "out", "class-maps")
    assert categories(outcome) == expected
    assert outcome.scan["unread"] == 0


def test_class_zero_is_a_class_where_that_is_said(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "maps" / "a.png", np.where(LEFT > 0, 0, np.where(RIGHT > 0, 1, 255)).astype(np.uint8))
    outcome = run(tmp_path / "images", tmp_path / "maps", tmp_path / "out", "class-maps:background=none")
    assert set(categories(outcome)) == {0, 1}
    default = run(tmp_path / "images", tmp_path / "maps", tmp_path / "default", "class-maps")
    assert [row["category_id"] for row in default.masks] == [1]
    for wrong in ("class-maps:background=x", "class-maps:back=0", "instances:per_class=-1"):
        with pytest.raises(RefusedError):
            run(tmp_path / "images", tmp_path / "maps", tmp_path / "none", wrong)


@pytest.mark.parametrize("with_numbered", [True, False])
def test_ids_below_a_thousand_are_classes_in_the_whole_folder(tmp_path: Path, with_numbered: bool) -> None:
    put_images(tmp_path / "images", "a.png", "b.png")
    put(tmp_path / "ids" / "a.png", labels(7, 23))
    if with_numbered:
        put(tmp_path / "ids" / "b.png", labels(26001, 8, np.uint16))
    outcome = run(tmp_path / "images", tmp_path / "ids", tmp_path / "out", "instances")
    assert [row["category_id"] for row in outcome.masks if row["image_id"] == "a.png"] == [23, 7]
    later = put(tmp_path / "ids" / "b.png", labels(1, 2))
    assert later.exists()
    again = run(tmp_path / "images", tmp_path / "ids", tmp_path / "out", "instances")
    assert [row["category_id"] for row in again.masks if row["image_id"] == "a.png"] == [23, 7]  # overnight


def test_numbered_objects_are_of_one_class(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.png")
    put(tmp_path / "ids" / "a.png", labels(1, 2))
    outcome = run(tmp_path / "images", tmp_path / "ids", tmp_path / "out", "instances")
    assert [row["category_id"] for row in outcome.masks] == [1, 1]


@pytest.mark.parametrize("beside", ["semantic", "labels", "option"])
def test_kitti_and_mapillary_have_256_ids_a_class(tmp_path: Path, beside: str) -> None:
    put_images(tmp_path / "image_2", "000000_10.png")
    put(tmp_path / "instance" / "000000_10.png", labels(7 * 256, 26 * 256 + 1, np.uint16))
    if beside != "option":
        put(tmp_path / beside / "000000_10.png", labels(7, 26))
    if beside == "labels":
        names = [
            {"name": f"x--{n}", "readable": f"Class {n}", "color": [n, 0, 0], "instances": True} for n in range(30)
        ]
        put(tmp_path / "config_v1.2.json", {"labels": names})
    source = "instances:per_class=256" if beside == "option" else "instances"
    outcome = run(tmp_path / "image_2", tmp_path / "instance", tmp_path / "out", source)
    names_of = {"semantic": {7: "road", 26: "car"}, "labels": {7: "Class 7", 26: "Class 26"}, "option": {7: "", 26: ""}}
    assert categories(outcome) == names_of[beside]


def test_ade20k(tmp_path: Path) -> None:
    put_images(tmp_path / "images" / "training", "ADE_train_00000001.jpg")
    put(tmp_path / "annotations" / "training" / "ADE_train_00000001.png", labels(1, 150))
    put(
        tmp_path / "objectInfo150.txt",
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n150\t0.1\t1\t1\t0\tflag\n",
    )
    outcome = run(tmp_path / "images", tmp_path / "annotations", tmp_path / "out", "class-maps")
    assert categories(outcome) == {1: "wall", 150: "flag"}


CAMVID = {
    "class_dict.csv": "name,r,g,b\nBicyclist,0,128,192\nBuilding,128,0,0\nVoid,0,0,0\n",
    "label_colors.txt": "0 128 192\t\tBicyclist\n128 0 0\t\tBuilding\n0 0 0\t\tVoid\n",
}


@pytest.mark.parametrize("name", CAMVID)
def test_camvid_colours(tmp_path: Path, name: str) -> None:
    put_images(tmp_path / "images", "0001TP_006690.png")
    put(tmp_path / "labels" / "0001TP_006690_L.png", colours((0, 128, 192), (128, 0, 0)))
    put(tmp_path / name, CAMVID[name])
    outcome = run(tmp_path / "images", tmp_path / "labels", tmp_path / "out", "class-maps")
    assert categories(outcome) == {1: "Bicyclist", 2: "Building"}


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nscratch:10,200,30::\ndent:60,60,60::\n"


def voc(folder: Path, classes: Pixels, objects: Pixels, labelmap: str = "") -> Path:
    put_images(folder / "JPEGImages", "a.jpg", "b.jpg")
    put(folder / "SegmentationClass" / "a.png", classes)
    put(folder / "SegmentationObject" / "a.png", objects)
    put(folder / "ImageSets" / "Segmentation" / "default.txt", "a\n")
    put(folder / "Annotations" / "a.xml", "<annotation/>")
    if labelmap:
        put(folder / "labelmap.txt", labelmap)
    return folder


def test_voc_by_cvat_has_names_and_colours_of_its_own(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", colours((10, 200, 30), (60, 60, 60)), colours((128, 0, 0), (0, 128, 0)), LABELMAP)
    outcome = run(root / "JPEGImages", root, tmp_path / "out")
    assert (outcome.source, outcome.scan["unread"]) == ("voc", 0)
    assert categories(outcome) == {1: "scratch", 2: "dent"}
    maps = run(root / "JPEGImages", root / "SegmentationClass", tmp_path / "maps", "class-maps")
    assert categories(maps) == {1: "scratch", 2: "dent"}


def test_voc_colours_without_a_label_map_are_vocs(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", colours((64, 0, 0), (128, 128, 128)), colours((128, 0, 0), (0, 128, 0)))
    assert categories(run(root / "JPEGImages", root, tmp_path / "out")) == {8: "cat", 7: "car"}


def test_voc_indices_with_names_that_are_not_vocs(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", labels(1, 2), labels(1, 2), LABELMAP)
    assert categories(run(root / "JPEGImages", root, tmp_path / "out")) == {1: "scratch", 2: "dent"}


def test_colours_that_no_label_map_has_are_told(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", colours((1, 2, 3), (4, 5, 6)), colours((128, 0, 0), (0, 128, 0)))
    for masks, source in ((root, "voc"), (root / "SegmentationClass", "class-maps")):
        outcome = run(root / "JPEGImages", masks, tmp_path / source, source)
        assert all(row["detail"].startswith("colour without a name") for row in outcome.masks)
        assert set(outcome.said("odd")) == {"colour without a name"}


AFFIXES = [
    ("{}_mask.png", "{}.jpg"),
    ("{}_mask.gif", "{}.jpg"),
    ("{}_mask.png", "{}_sat.jpg"),
    ("mask_{}.png", "{}.jpg"),
    ("train/masks/{}.png", "train/images/{}.jpg"),
    ("gt/{}.png", "{}.jpg"),
    ("{}-seg.png", "img/{}.jpg"),
]


@pytest.mark.parametrize(("mask", "image"), AFFIXES)
def test_names_with_words_that_say_what_they_are(tmp_path: Path, mask: str, image: str) -> None:
    names = ("car_01", "car_02")
    put_images(tmp_path / "images", *(image.format(name) for name in names))
    for name in names:
        put(tmp_path / "masks" / mask.format(name), square() * 255)
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert [row["status"] for row in outcome.images.values()] == ["ok", "ok"]
    assert [row["decision"] for row in outcome.masks] == ["refined", "refined"]
    put(tmp_path / "masks" / "car_01.png", encoded(square() * 255))  # the next night: the rule stays
    put_images(tmp_path / "images", "car_01.jpg")
    assert run(tmp_path / "images", tmp_path / "masks", tmp_path / "out").scan["rules"] == outcome.scan["rules"]


@pytest.mark.parametrize(
    ("image", "mask"), [("{}.jpg", "{}.png"), ("{}.jpg", "{}_mask.png"), ("{}.png", "{}_mask.png")]
)
def test_masks_among_the_images(tmp_path: Path, image: str, mask: str) -> None:
    names = ("car_01", "car_02")
    put_images(tmp_path / "set", *(image.format(name) for name in names), "plain.png")
    for name in names:
        put(tmp_path / "set" / mask.format(name), square() * 255)
    outcome = run(tmp_path / "set", tmp_path / "set", tmp_path / "out", "png")
    assert sorted(outcome.images) == sorted([*(image.format(name) for name in names), "plain.png"])
    assert [row["decision"] for row in outcome.masks] == ["refined", "refined"]
    assert (outcome.masks[0]["image_id"], outcome.scan["unread"]) == (image.format("car_01"), 0)


def test_masks_in_a_folder_of_the_images(tmp_path: Path) -> None:
    put_images(tmp_path / "set", "a.jpg", "b.jpg")
    put(tmp_path / "set" / "masks" / "a.png", square() * 255)
    outcome = run(tmp_path / "set", tmp_path / "set" / "masks", tmp_path / "out")
    assert sorted(outcome.images) == ["a.jpg", "b.jpg"]
    whole = run(tmp_path / "set" / "masks", tmp_path / "set", tmp_path / "whole", "png")
    assert whole.said("ignored") == {"an image of --images": ["masks/a.png"]}


def test_labels_among_the_images(tmp_path: Path) -> None:
    put_images(tmp_path / "set", "a_mask.png", "b.jpg")
    for name in ("a_mask", "b"):
        put(tmp_path / "set" / f"{name}.txt", "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75")
    outcome = run(tmp_path / "set", tmp_path / "set", tmp_path / "out")
    assert (outcome.source, outcome.scan["unread"]) == ("yolo", 0)
    assert {row["image_id"]: row["decision"] for row in outcome.masks} == {"a_mask.png": "refined", "b.jpg": "refined"}
