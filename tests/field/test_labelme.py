"""labelme's folders: what a person drew, as it was drawn; what has no area, by name."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import REASONS, RefusedError
from pipeline.masks import binary
from pipeline.sources import detect, images_root
from pipeline.storage import Access
from tests.field.world import BOX, SIZE_HW, Outcome, encoded, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
CORNERS = [[24, 16], [72, 16], [72, 48], [24, 48]]
TOP, BOTTOM, LEFT, RIGHT = BOX


def shape(label: str = "thing", points: Any = CORNERS, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "flags": {}, **more}


def document(*shapes: Any, name: Any = "a.jpg", **more: Any) -> dict[str, Any]:
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5.4.1", "flags": {}, "shapes": [*shapes], "imagePath": name, "imageData": None, **size, **more}


def bits(pixels: np.ndarray, left: int, top: int) -> dict[str, Any]:
    height, width = pixels.shape
    png = base64.b64encode(encoded(pixels)).decode()
    return {"shape_type": "mask", "points": [[left, top], [left + width - 1, top + height - 1]], "mask": png}


def outcome(tmp_path: Path, *shapes: Any, **more: Any) -> Outcome:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "labels" / "a.json", document(*shapes, **more))
    return run(tmp_path / "images", tmp_path / "labels", tmp_path / "out")


def test_every_shape_that_has_an_area(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    disc = (x - 40) ** 2 + (y - 30) ** 2 <= 20**2
    blob = np.random.default_rng(0).integers(0, 2, (9, 13), dtype=np.uint8)
    drawn = [
        shape("polygon", shape_type="polygon"),
        shape("old"),
        shape("two corners", [[72, 48], [24, 16]], shape_type="rectangle"),
        shape("four corners", shape_type="rectangle"),
        shape("turned", shape_type="rotation", direction=0.0),
        shape("disc", [[40, 30], [60, 30]], shape_type="circle"),
        shape("ones", **bits(blob, 5, 7)),
        shape("white", **bits(blob * 255, 5, 7)),
        shape("at the border", **bits(np.ones((9, 13), np.uint8), -4, HEIGHT - 3)),
    ]
    found = outcome(tmp_path, *drawn)
    pixels = {row["category"]: binary.decode(row["mask_rle"]) for row in found.masks}
    assert found.source == "labelme"
    for name in ("polygon", "old", "two corners", "four corners", "turned"):
        assert (pixels[name] == square()).all(), name
    assert binary.iou(pixels["disc"], disc) > 0.99
    expected = np.zeros(SIZE_HW, np.uint8)
    expected[7:16, 5:18] = blob
    assert (pixels["ones"] == expected).all()
    assert (pixels["white"] == expected).all()
    assert (pixels["at the border"] == square(box=(HEIGHT - 3, HEIGHT, 0, 9))).all()
    assert [row["category"] for row in found.masks if (row["detail"] or "").startswith("boxes")] == ["two corners"]
    assert found.scan["unread"] == 0


def test_groups_are_one_object_and_names_are_numbered(tmp_path: Path) -> None:
    left, right = [[2, 2], [12, 2], [12, 12], [2, 12]], [[50, 20], [60, 20], [60, 40], [50, 40]]
    found = outcome(
        tmp_path,
        shape("bus", left, group_id=3, flags={"occluded": True}, description="behind a pole"),
        shape("cat", left),
        shape("bus", right, group_id=3),
        shape("cat", right, group_id=3),
        shape("bus", group_id=4, **bits(np.ones((5, 5), np.uint8), 70, 50)),
        shape("bus", left, group_id=4),
        flags={"night": True},
        note="x",
    )
    both = square(box=(2, 12, 2, 12)) | square(box=(20, 40, 50, 60))
    mixed = square(box=(2, 12, 2, 12)) | square(box=(50, 55, 70, 75))
    pixels = found.pixels()
    assert sorted(pixels) == ["a#1", "a#2", "a#4", "a#5"]
    assert (pixels["a#1"] == both).all()
    assert (pixels["a#5"] == mixed).all()
    assert {row["source_mask_id"]: (row["category_id"], row["category"]) for row in found.masks} == {
        "a#1": (1, "bus"),
        "a#2": (2, "cat"),
        "a#4": (2, "cat"),
        "a#5": (1, "bus"),
    }
    carried = json.loads(found.masks[0]["extra"])
    assert carried == {"group_id": 3, "flags": {"occluded": True}, "description": "behind a pole", "shapes": 2}
    assert json.loads(found.images["a.jpg"]["extra"]) == {"flags": {"night": True}, "note": "x"}


def test_a_label_keeps_its_number(tmp_path: Path) -> None:
    first = outcome(tmp_path, shape("cat"), shape("dog"))
    put_images(tmp_path / "images", "b.jpg")
    put(tmp_path / "labels" / "b.json", document(shape("bird"), shape("dog"), name="b.jpg"))
    second = run(tmp_path / "images", tmp_path / "labels", tmp_path / "out")
    numbers = {row["category"]: row["category_id"] for row in second.masks}
    assert numbers == {"cat": 1, "dog": 2, "bird": 3}
    assert {row["mask_id"] for row in first.masks} <= {row["mask_id"] for row in second.masks}


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_what_has_no_area_is_named(tmp_path: Path, kind: str) -> None:
    found = outcome(tmp_path, shape(), shape("nose", [[5, 5], [9, 9]], shape_type=kind))
    assert found.only()["category"] == "thing"
    assert found.said("unread") == {f"a {kind} has no area": ["a.json, shape 2"]}


@pytest.mark.parametrize(
    ("image", "path", "stated"),
    [
        ("a.jpg", "a.json", "a.jpg"),
        ("a.jpg", "a.json", "..\\images\\a.jpg"),
        ("a.jpg", "a.json", "../images/a.jpg"),
        ("a.jpg", "a.json", "C:\\Users\\me\\photos\\a.jpg"),
        ("sub/a.jpg", "sub/a.json", "a.jpg"),
        ("sub/a.jpg", "sub/a.json", "..\\..\\images\\sub\\a.jpg"),
        ("sub/a.jpg", "a.json", "sub\\a.jpg"),
        ("a.PNG", "a.json", None),
        ("a.jpg", "a.json", "renamed.jpg"),
        ("two words.jpg", "x.json", "two%20words.jpg"),
    ],
)
def test_which_image_is_meant(tmp_path: Path, image: str, path: str, stated: Any) -> None:
    put_images(tmp_path / "images", image, "other/a.jpg", "zzz.jpg")
    put(tmp_path / "labels" / path, document(shape(), name=stated))
    found = run(tmp_path / "images", tmp_path / "labels", tmp_path / "out")
    assert found.only()["image_id"] == image
    said = found.images[image]["detail"]
    assert (said == f"{path} names renamed.jpg") == (stated == "renamed.jpg")


def test_documents_beside_their_images(tmp_path: Path) -> None:
    put_images(tmp_path / "data", "a.jpg", "b.png")
    for name in ("a.jpg", "b.png"):
        put(tmp_path / "data" / f"{name[0]}.json", document(shape(), name=name, imageData="A" * 100))
    assert detect(str(tmp_path / "data")) == "labelme"
    assert images_root("labelme", None, str(tmp_path / "data"), Access()) == str(tmp_path / "data")
    found = run(tmp_path / "data", tmp_path / "data", tmp_path / "out")
    assert [row["image_id"] for row in found.masks] == ["a.jpg", "b.png"]
    assert found.scan["unread"] == 0
    alone = run(tmp_path / "data", tmp_path / "data" / "b.json", tmp_path / "alone")
    assert (alone.source, alone.only()["image_id"]) == ("labelme", "b.png")


def test_other_documents_are_named(tmp_path: Path) -> None:
    put(tmp_path / "labels" / "list.json", "[1]")
    put(tmp_path / "labels" / "cut.json", '{"shapes": [')
    put(tmp_path / "labels" / "other.json", {"images": []})
    put(tmp_path / "labels" / "notes.csv", "a,b")
    found = outcome(tmp_path, shape(), "no shape", 7)
    said = found.said("unread")
    assert said["no JSON"] == ["cut.json"]
    assert said["no JSON object"] == ["list.json"]
    assert said["no document of labelme"] == ["other.json"]
    assert said["this format reads .json only"] == ["notes.csv"]
    assert said["no object"] == ["a.json, shape 2", "a.json, shape 3"]


HOSTILE: list[Any] = [
    None, True, -1, 2**70, 1e308, float("nan"), float("inf"), "", "x", "../x", "/etc/passwd", "\0", "\ud800", [], [[]],
    [None], {}, [[1, 2]], [["1", "2"], [3, 4], [5, "y"]], [[1e30, 0], [0, 1e30], [5, 5]], "[" * 50,
]  # fmt: skip


@pytest.mark.parametrize("source", ["labelme"])
def test_no_field_stops_a_plan(tmp_path: Path, source: str) -> None:
    put_images(tmp_path / "images", "a.jpg")
    fields = ["label", "points", "group_id", "flags", "shape_type", "mask"]
    rows = [shape(**{"shape_type": kind, name: value}) for kind in ("polygon", "mask", "circle") for name in fields
            for value in HOSTILE]  # fmt: skip
    put(tmp_path / "labels" / "a.json", document(*rows, shape()))
    for number, value in enumerate(HOSTILE):
        for name in ("imagePath", "imageHeight", "imageWidth", "flags", "shapes"):
            put(tmp_path / "labels" / f"{name}{number}.json", {**document(shape()), name: value})
    found = run(tmp_path / "images", tmp_path / "labels", tmp_path / "out", source)
    assert {row["reason"] for row in found.masks if row["decision"] == "failed"} <= set(REASONS)
    assert "a#1" in {row["source_mask_id"] for row in found.masks}
    documents = 1 + 5 * len(HOSTILE)
    read = sum(t["count"] for t in found.scan["found"] if (t["state"], t["kind"]) == ("read", ".json"))
    assert read + len([1 for name in HOSTILE if not isinstance(name, list)]) == documents


def test_names_of_no_image_at_all_are_refused(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "cat.jpg")
    put(tmp_path / "labels" / "a.json", document(shape(), name="dog.jpg"))
    with pytest.raises(RefusedError, match=r"dog\.jpg"):
        run(tmp_path / "images", tmp_path / "labels", tmp_path / "out")


def sa1b(number: int, *annotations: Any, **image: Any) -> dict[str, Any]:
    stated = {"image_id": number, "file_name": f"sa_{number}.jpg", "height": HEIGHT, "width": WIDTH, **image}
    return {"image": stated, "annotations": [*annotations]}


def test_sa_1b(tmp_path: Path) -> None:
    one = {
        "id": 457,
        "segmentation": binary.encode(square()),
        "area": 1,
        "bbox": [24.0, 16.0, 48.0, 32.0],
        "predicted_iou": 0.9,
        "stability_score": 0.95,
        "point_coords": [[30.0, 20.0]],
        "crop_box": [0.0, 0.0, 96.0, 64.0],
    }
    put_images(tmp_path / "images", "sa_1.jpg", "sa_2.jpg", "sa_3.jpg")
    put(tmp_path / "masks" / "sa_1.json", sa1b(1, one, {**one, "id": 9, "segmentation": {"size": [1]}}, 3))
    put(tmp_path / "masks" / "sa_2.json", sa1b(2, license="x"))
    put(tmp_path / "masks" / "sa_4.json", sa1b(4, one))
    found = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert found.source == "sa-1b"
    assert (found.pixels()["457"] == square()).all()
    row = next(row for row in found.masks if row["source_mask_id"] == "457")
    assert (row["category_id"], row["category"], row["source_image_id"]) == (1, "", "1")
    assert json.loads(row["extra"])["stability_score"] == 0.95
    assert [row["reason"] for row in found.masks if row["source_mask_id"] == "9"] == ["mask_unreadable"]
    assert found.images["sa_4.jpg"]["reason"] == "image_missing"
    assert found.said("unnamed", "images") == {"no mask belongs to it": ["sa_3.jpg"]}
    assert found.said("unread") == {"no object": ["sa_1.json, annotation 3"]}
    assert detect(str(tmp_path / "masks" / "sa_1.json")) == "sa-1b"
