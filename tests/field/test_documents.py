"""Folders of JSON, one for an image: Supervisely, Cityscapes' polygons, mmdetection's predictions."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.errors import REASONS, RefusedError
from pipeline.masks import binary
from pipeline.sources import detect, parse, shapes
from tests.field.world import BOX, SIZE_HW, Outcome, Pixels, encoded, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
TOP, BOTTOM, LEFT, RIGHT = BOX
INCLUSIVE = [[LEFT, TOP], [RIGHT - 1, TOP], [RIGHT - 1, BOTTOM - 1], [LEFT, BOTTOM - 1]]
BLOB = np.random.default_rng(0).integers(0, 2, (9, 13), dtype=np.uint8)
Row = dict[str, Any]


def sly(*objects: Any, **more: Any) -> Row:
    return {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": [*objects], **more}


def sly_object(kind: str = "polygon", exterior: Any = INCLUSIVE, interior: Any = (), **more: Any) -> Row:
    points = {"exterior": exterior, "interior": list(interior)}
    return {"classTitle": "cat", "geometryType": kind, "points": points, "tags": [], **more}


def bitmap(png: bytes, x: Any = 5, y: Any = 7, **more: Any) -> Row:
    data = base64.b64encode(zlib.compress(png)).decode()
    return {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [x, y]}, **more}


def placed(crop: Pixels, left: int, top: int) -> Pixels:
    whole = np.zeros(SIZE_HW, np.uint8)
    whole[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return whole


def test_supervisely(tmp_path: Path) -> None:
    root = tmp_path / "project"
    put_images(root / "ds0" / "img", "a.jpg", "b.png")
    alpha = np.zeros((*BLOB.shape, 4), np.uint8)
    alpha[..., 3] = BLOB * 255
    hole = [[30, 20], [40, 20], [40, 30], [30, 30]]
    objects = [
        sly_object(id=1, tags=[{"name": "occluded", "value": True}]),
        sly_object(interior=[hole], id=2),
        sly_object("rectangle", [[LEFT, TOP], [RIGHT - 1, BOTTOM - 1]], id=3),
        bitmap(encoded(BLOB * 255), id=4),
        bitmap(encoded(alpha), id=5),
        bitmap(encoded(Image.fromarray(BLOB * 255).convert("1"))),
        sly_object("point", [[3, 3]], id=7),
        sly_object("line", id=8),
    ]
    put(root / "ds0" / "ann" / "a.jpg.json", sly(*objects, description="night"))
    put(root / "ds0" / "ann" / "b.png.json", sly())
    put(root / "meta.json", {"classes": [{"title": "dog", "shape": "bitmap"}, {"title": "cat"}], "tags": []})
    outcome = run(root, root, tmp_path / "out")
    assert outcome.source == "supervisely"
    pixels = outcome.pixels()
    holed = square() - placed(np.ones((11, 11), np.uint8), 30, 20)
    for name, expected in {"1": square(), "2": holed, "3": square(), "4": placed(BLOB, 5, 7)}.items():
        assert (pixels[name] == expected).all(), name
    assert (pixels["5"] == pixels["4"]).all()
    assert (pixels["ds0/ann/a.jpg#6"] == pixels["4"]).all()
    assert {row["category"]: row["category_id"] for row in outcome.masks} == {"dog": 1, "cat": 2}
    assert json.loads(outcome.masks[0]["extra"])["tags"] == [{"name": "occluded", "value": True}]
    assert json.loads(outcome.images["ds0/img/a.jpg"]["extra"]) == {"description": "night"}
    assert outcome.said("unread") == {
        "a line has no area": ["ds0/ann/a.jpg.json, object 8"],
        "a point has no area": ["ds0/ann/a.jpg.json, object 7"],
    }
    folder = run(root / "ds0" / "img", root / "ds0" / "ann", tmp_path / "folder")
    assert {row["image_id"] for row in folder.masks} == {"a.jpg"}


CITY = "aachen/aachen_000000_000019"


def ring(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


OBJECTS = [
    {"label": "road", "polygon": ring(0, 30, 95, 63)},
    {"label": "car", "polygon": ring(10, 20, 40, 50)},
    {"label": "car", "polygon": ring(30, 25, 60, 55)},
    {"label": "cargroup", "polygon": ring(70, 20, 90, 35)},
    {"label": "license plate", "polygon": ring(12, 40, 20, 44)},
    {"label": "road", "polygon": ring(0, 60, 95, 63)},
    {"label": "car", "polygon": ring(1, 1, 5, 5), "deleted": 1},
    {"label": "robot", "polygon": ring(50, 2, 60, 10)},
]


def ids() -> Pixels:
    """Drawn as Cityscapes' own scripts draw instanceIds."""
    canvas = Image.new("I", (WIDTH, HEIGHT), 0)
    draw = ImageDraw.Draw(canvas)
    for number, at in ((7, 0), (26000, 1), (26001, 2), (26, 3), (7, 5), (1 << 20, 7)):
        draw.polygon([(x, y) for x, y in OBJECTS[at]["polygon"]], fill=number)
    return np.asarray(canvas)


def city(tmp_path: Path, *objects: Any, **more: Any) -> Outcome:
    put_images(tmp_path / "leftImg8bit" / "train", f"{CITY}_leftImg8bit.png")
    content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": [*objects], **more}
    put(tmp_path / "gtFine" / "train" / f"{CITY}_gtFine_polygons.json", content)
    return run(tmp_path / "leftImg8bit" / "train", tmp_path / "gtFine" / "train", tmp_path / "out")


def test_cityscapes_polygons(tmp_path: Path) -> None:
    outcome = city(tmp_path, *OBJECTS)
    assert (outcome.source, outcome.scan["unread"]) == ("cityscapes-polygons", 0)
    found = {int(row["source_mask_id"].rpartition("#")[2]): row for row in outcome.masks}
    assert {number: row["category"] for number, row in found.items()} == {
        7: "road", 26: "car", 26000: "car", 26001: "car", 1 << 20: "robot",
    }  # fmt: skip
    for number, row in found.items():
        assert (binary.decode(row["coarse_rle"]) == (ids() == number)).all(), number
    assert [number for number, row in found.items() if row["crowd"]] == [26]
    assert found[26001]["category_id"] == 26


def test_cityscapes_pngs_come_before_polygons(tmp_path: Path) -> None:
    city(tmp_path, *OBJECTS)
    put(tmp_path / "gtFine" / "train" / f"{CITY}_gtFine_instanceIds.png", ids().astype(np.uint16))
    assert detect(str(tmp_path / "gtFine")) == "instances"
    images, masks = tmp_path / "leftImg8bit" / "train", tmp_path / "gtFine" / "train"
    stated = run(images, masks, tmp_path / "stated", "cityscapes-polygons")
    assert stated.said("ignored")["Cityscapes' instanceIds, beside its polygons"] != []
    covered = [OBJECTS[1], {"label": "bus", "polygon": ring(0, 0, 95, 63)}]
    hidden = city(tmp_path / "hidden", *covered)
    assert {row["category"]: row["reason"] for row in hidden.masks} == {"car": "mask_empty", "bus": "unchanged"}


def test_mmdetection(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    box = [float(LEFT), float(TOP), float(RIGHT), float(BOTTOM)]
    content = {"labels": [0, 3], "scores": [0.9, 0.2], "bboxes": [box, box]}
    put(tmp_path / "preds" / "a.json", {**content, "masks": [binary.encode(square()), binary.encode(square())]})
    put(tmp_path / "preds" / "b.json", content)
    outcome = run(tmp_path / "images", tmp_path / "preds", tmp_path / "out")
    assert outcome.source == "mmdet"
    assert {row["source_mask_id"]: row["category_id"] for row in outcome.masks} == {
        "a#0": 0, "a#1": 3, "b#0": 0, "b#1": 3,
    }  # fmt: skip
    assert all((pixels == square()).all() for pixels in outcome.pixels().values())
    assert [row["detail"] for row in outcome.masks] == [None, None, shapes.BOX, shapes.BOX]
    assert json.loads(outcome.masks[0]["extra"]) == {"score": 0.9}
    some = run(tmp_path / "images", tmp_path / "preds", tmp_path / "some", "mmdet:min_score=0.5")
    assert [row["source_mask_id"] for row in some.masks] == ["a#0", "b#0"]
    with pytest.raises(RefusedError, match="min_score"):
        parse("mmdet:min_score=x")


HOSTILE: list[Any] = [
    None, True, -1, 0, 2**31, 2**70, 1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800", [], [[]], [None],
    {}, [1, 2, 3], [[1, 2], ["3", "4"], [5, "y"]], [[1e30, 0], [0, 1e30], [5, 5]], [[0, 0], [2**23, 0], [0, 2**23]],
]  # fmt: skip

MMDET = {"labels": [1], "scores": [0.5], "bboxes": [[1, 1, 9, 9]], "masks": [binary.encode(square())]}
CITYSCAPES = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": [OBJECTS[1]]}
WHOLE: dict[str, tuple[Row, Callable[[str, Any], Row]]] = {
    "supervisely": (
        sly(sly_object()),
        lambda name, value: sly(sly_object(**{name: value}), bitmap(b"x", **{name: value})),
    ),
    "cityscapes-polygons": (CITYSCAPES, lambda name, value: {**CITYSCAPES, "objects": [{**OBJECTS[1], name: value}]}),
    "mmdet": (MMDET, lambda name, value: {**MMDET, name: [value, value]}),
}
FIELDS = {
    "supervisely": ("id", "classTitle", "geometryType", "points", "bitmap"),
    "cityscapes-polygons": ("label", "polygon", "deleted"),
    "mmdet": tuple(MMDET),
}
PARTS = {"supervisely": ("exterior", "interior", "data", "origin", "height", "width")}


@pytest.mark.parametrize("source", WHOLE)
def test_no_field_stops_a_plan(tmp_path: Path, source: str) -> None:
    content, with_field = WHOLE[source]
    put_images(tmp_path / "images", "good.jpg")
    put(tmp_path / "masks" / "good.json", content)
    number = 0
    for value in HOSTILE:
        for name in content:
            put(tmp_path / "masks" / f"{(number := number + 1)}.json", {**content, name: value})
        for name in FIELDS[source]:
            put(tmp_path / "masks" / f"{(number := number + 1)}.json", with_field(name, value))
        for part in PARTS.get(source, ()):
            inside = {
                "points": {"exterior": INCLUSIVE, part: value},
                "bitmap": {"data": "x", "origin": [1, 1], part: value},
            }
            objects = [sly_object(), bitmap(b"x")]
            whole = sly(*({**one, **inside} for one in objects), size={"height": HEIGHT, "width": WIDTH, part: value})
            put(tmp_path / "masks" / f"{(number := number + 1)}.json", whole)
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out", source)
    assert {row["reason"] for row in outcome.masks if row["decision"] == "failed"} <= set(REASONS)
    read = sum(t["count"] for t in outcome.scan["found"] if (t["state"], t["kind"]) == ("read", ".json"))
    left = sum(t["count"] for t in outcome.scan["found"] if (t["state"], t["kind"]) == ("unread", ".json"))
    assert read + left == number + 1
    assert any(row["image_id"] == "good.jpg" and row["mask_rle"] for row in outcome.masks)
