"""Label Studio's exports: what a person drew there, whose results count, and the own export, pixel for pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import REASONS, RefusedError
from pipeline.exports.label_studio import brush_rle
from pipeline.masks import binary
from pipeline.sources import brush, detect, parse
from tests.field.own_exports import check_own_export_comes_back
from tests.field.world import SIZE_HW, Outcome, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
CORNERS = [[25, 25], [75, 25], [75, 75], [25, 75]]
POLYGON = {"points": CORNERS, "closed": True, "polygonlabels": ["cat"]}
Row = dict[str, Any]


def region(kind: str, value: Any, number: Any = None, **more: Any) -> Row:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    own = {} if number is None else {"id": number}
    return {**own, "type": kind, "value": value, "from_name": "label", "to_name": "image", **size, **more}


def task(*results: Any, number: int = 1, image: str = "a.jpg", **more: Any) -> Row:
    annotation = {"id": 5, "result": [*results], "was_cancelled": False}
    return {"id": number, "data": {"image": image}, "annotations": [annotation], "predictions": [], **more}


def outcome(tmp_path: Path, *tasks: Any, options: str = "") -> Outcome:
    put_images(tmp_path / "images", "a.jpg")
    path = put(tmp_path / "project.json", [*tasks])
    assert detect(str(path)) == "label-studio"
    return run(tmp_path / "images", path, tmp_path / "out", f"label-studio{options}")


def test_every_region_that_has_an_area(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    oval = ((x - 48) / 24) ** 2 + ((y - 32) / 8) ** 2 <= 1
    blob = np.random.default_rng(0).integers(0, 2, SIZE_HW, dtype=np.uint8)
    box = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["dog"]}
    turned = {"x": 75.0, "y": 25.0, "width": 100 / 3, "height": 75.0, "rotation": 90, "rectanglelabels": ["dog"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": 0, "ellipselabels": ["egg"]}
    found = outcome(
        tmp_path,
        task(
            region("polygonlabels", POLYGON, "polygon"),
            region("rectanglelabels", box, "box"),
            region("rectanglelabels", turned, "turned"),
            region("ellipselabels", ellipse, "oval"),
            region("ellipselabels", {**ellipse, "radiusX": 25 / 3, "radiusY": 37.5, "rotation": 90}, "turned oval"),
            region("brushlabels", {"format": "rle", "rle": brush_rle(blob), "brushlabels": ["cat"]}, "brush"),
        ),
    )
    pixels = found.pixels()
    for name in ("polygon", "box", "turned"):
        assert (pixels[name] == square()).all(), name
    assert binary.iou(pixels["oval"], oval) > 0.98
    assert binary.iou(pixels["turned oval"], oval) > 0.98
    assert (pixels["brush"] == blob).all()
    assert {row["category"]: row["category_id"] for row in found.masks} == {"cat": 1, "dog": 2, "egg": 3}
    assert found.images["a.jpg"]["source_image_id"] == "1"
    assert found.scan["unread"] == 0


def literal(values: np.ndarray) -> list[int]:
    """The code of a program that repeats nothing: words as they are, in runs of at most 8."""
    flat = values.ravel().tolist()
    bits = f"{len(flat):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    for at in range(0, len(flat), 8):
        part = flat[at : at + 8]
        bits += f"000{len(part) - 1:03b}" + "".join(f"{value:08b}" for value in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_brushes_that_repeat_nothing_and_have_soft_edges() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    assert (brush.decode(literal(values), (5, 7)) == values[..., 3]).all()


def test_labels_and_attributes_of_results_that_share_an_id(tmp_path: Path) -> None:
    shared = {"points": CORNERS}
    found = outcome(
        tmp_path,
        task(
            region("polygon", shared, "r1"),
            region("labels", {**shared, "labels": ["cat", "pet"]}, "r1"),
            region("choices", {**shared, "choices": ["sharp"]}, "r1", from_name="focus"),
            region("choices", {"choices": ["indoor"]}, "c", from_name="scene"),
            region(
                "polygonlabels", {"points": CORNERS, "polygonlabels": ["dog"]}, "r2", score=0.5, meta={"text": ["x"]}
            ),
            {"type": "relation", "from_id": "r1", "to_id": "r2"},
        ),
    )
    first, second = found.masks
    assert (first["category"], second["category"]) == ("cat", "dog")
    assert json.loads(first["extra"]) == {"attributes": {"focus": ["sharp"]}, "labels": ["cat", "pet"]}
    assert json.loads(second["extra"]) == {"score": 0.5, "meta": {"text": ["x"]}}
    assert json.loads(found.images["a.jpg"]["extra"]) == {"results": {"scene": ["indoor"]}}
    assert found.scan["unread"] == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["nose"]}, "a key point has no area"),
        ({"vertices": [], "vectorlabels": ["v"]}, "a vector has no area"),
        ({"start": 1, "end": 2, "labels": ["v"]}, "a region of a text or a sound"),
        ({"sequence": [], "labels": ["v"]}, "a region of a video"),
    ],
)
def test_what_is_no_region_of_an_image_is_named(tmp_path: Path, value: Row, reason: str) -> None:
    found = outcome(tmp_path, task(region("polygonlabels", POLYGON, "p"), region("x", value, "odd")))
    assert found.only()["source_mask_id"] == "p"
    assert found.said("unread") == {reason: ["project.json, task 1, region odd"]}


def tasks_of_many() -> list[Row]:
    def one(number: int, name: str, when: str, **more: Any) -> Row:
        return {"id": number, "result": [region("polygonlabels", POLYGON, name)], "updated_at": when, **more}

    first, last = one(1, "first", "2024-01-01T10:00:00Z"), one(2, "last", "2024-01-02T10:00:00Z")
    cancelled = one(3, "cancelled", "2024-01-03T10:00:00Z", was_cancelled=True)
    guess = {"result": [region("polygonlabels", POLYGON, "guess")], "score": 0.5}
    return [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [last, first, cancelled], "predictions": [guess]}]


@pytest.mark.parametrize(
    ("options", "names", "unread"),
    [
        ("", ["last"], 1),
        (":from=annotations", ["last"], 1),
        (":from=all", ["first", "last"], 0),
        (":from=predictions", ["guess"], 0),
    ],
)
def test_whose_results_count(tmp_path: Path, options: str, names: list[str], unread: int) -> None:
    found = outcome(tmp_path, *tasks_of_many(), options=options)
    assert [row["source_mask_id"] for row in found.masks] == names
    assert found.said("ignored")["cancelled by the annotator"] == ["project.json, task 1, annotation 3"]
    assert found.scan["unread"] == unread
    assert sum(map(len, found.said("ignored").values())) + unread + len(names) == 4


def test_predictions_where_nobody_annotated(tmp_path: Path) -> None:
    [one] = tasks_of_many()
    found = outcome(tmp_path, {**one, "annotations": [one["annotations"][2]]})
    assert [row["source_mask_id"] for row in found.masks] == ["guess"]
    with pytest.raises(RefusedError, match="from="):
        parse("label-studio:from=me")


@pytest.mark.parametrize(
    ("image", "address", "more"),
    [
        ("a.jpg", "/data/upload/3/0a1b2c3d-a.jpg", {}),
        ("a.jpg", "/data/upload/3/0a1b2c3d-a.jpg?x=1", {}),
        ("a.jpg", "/data/upload/3/x.jpg", {"file_upload": "0a1b2c3d-a.jpg"}),
        ("sub/a b.jpg", "/data/local-files/?d=photos/sub/a%20b.jpg", {}),
        ("sub/a.jpg", "s3://bucket/photos/sub/a.jpg", {}),
        ("a.jpg", "https://example.org/x/a.jpg?token=1", {}),
        ("é a.jpg", "https://example.org/x/%C3%A9%20a.jpg", {}),
    ],
)
def test_which_image_is_meant(tmp_path: Path, image: str, address: str, more: Row) -> None:
    put_images(tmp_path / "images", image, "other/zzz.jpg")
    content = [task(region("polygonlabels", POLYGON, "p"), image=address, **more)]
    found = run(tmp_path / "images", put(tmp_path / "x.json", content), tmp_path / "out")
    assert (found.only()["image_id"], found.images[image]["status"]) == (image, "ok")


def test_files_of_one_task_and_json_min(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "tasks" / "1.json", task(region("polygonlabels", POLYGON, "p")))
    put(tmp_path / "tasks" / "2.json", task(region("polygonlabels", POLYGON, "p"), image="b.jpg", number=2))
    found = run(tmp_path / "images", tmp_path / "tasks", tmp_path / "out")
    assert (found.source, [row["image_id"] for row in found.masks]) == ("label-studio", ["a.jpg", "b.jpg"])
    alone = run(tmp_path / "images", tmp_path / "tasks" / "2.json", tmp_path / "alone")
    assert alone.only()["image_id"] == "b.jpg"
    brushed = {"format": "rle", "rle": brush_rle(square()), "brushlabels": ["cat"]}
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    flat = [{"id": 1, "image": "a.jpg", "tag": [{**brushed, **size}, {**POLYGON, **size}], "annotator": 1}]
    least = run(tmp_path / "images", put(tmp_path / "min.json", flat), tmp_path / "min")
    assert [(row["source_mask_id"], row["category"]) for row in least.masks] == [("tag#1", "cat"), ("tag#2", "cat")]
    assert all((pixels == square()).all() for pixels in least.pixels().values())


def test_the_image_of_a_task_with_two(tmp_path: Path) -> None:
    other = region("polygonlabels", POLYGON, "q", to_name="second")
    found = outcome(tmp_path, task(region("polygonlabels", POLYGON, "p"), other))
    assert found.only()["source_mask_id"] == "p"
    assert found.said("unread") == {"a region of another image of the task": ["project.json, task 1, region q"]}


HOSTILE: list[Any] = [
    None, True, -1, 0, 2**31, 2**70, 1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800", [], [[]], [None],
    {}, [256], [-1], [1.5], [1, 2, 3], [[1, 2], ["3", "4"], [5, "y"]], [255] * 40,
]  # fmt: skip


def test_no_field_stops_a_plan(tmp_path: Path) -> None:
    rectangle = {"x": 1, "y": 1, "width": 3, "height": 3, "rotation": 3}
    ellipse = {"x": 1, "y": 1, "radiusX": 3, "radiusY": 3, "rotation": 3}
    values = [rectangle, ellipse, {"points": CORNERS}, {"rle": brush_rle(square())}]
    results = [
        region("x", {**value, name: bad}, f"{number} {name} {place}")
        for number, value in enumerate(values)
        for name in (*value, "labels")
        for place, bad in enumerate(HOSTILE)
    ]
    names = ("id", "type", "value", "to_name", "source", "original_width", "original_height", "image_rotation")
    results += [{**region("x", POLYGON, f"r{p}{n}"), n: bad} for p, bad in enumerate(HOSTILE) for n in names]
    tasks = [{**task(region("x", POLYGON, "p")), name: bad} for name in ("id", "data", "annotations", "file_upload")
             for bad in HOSTILE]  # fmt: skip
    found = outcome(tmp_path, task(*results), *tasks, *HOSTILE)
    assert {row["reason"] for row in found.masks if row["decision"] == "failed"} <= set(REASONS)
    assert len([row for row in found.masks if row["image_id"] == "a.jpg"]) >= len(values) * len(HOSTILE)


def test_the_own_export_comes_back(tmp_path: Path) -> None:
    check_own_export_comes_back(tmp_path, "label-studio", "tasks.json")


def box(x: float, label: str) -> Row:
    return {"x": x, "y": 25, "width": 10, "height": 50, "rotation": 0, "rectanglelabels": [label]}


@pytest.mark.parametrize("own_id", ["result1", None])
def test_regions_that_a_model_gave_one_id_are_apart(tmp_path: Path, own_id: str | None) -> None:
    results = [
        {**region("rectanglelabels", box(x, label)), "id": own_id}
        for x, label in ((5, "cat"), (40, "dog"), (70, "cow"))
    ]
    found = outcome(tmp_path, {"data": {"image": "a.jpg"}, "predictions": [{"result": results}]})
    assert sorted(row["category"] for row in found.masks) == ["cat", "cow", "dog"]
    assert len({row["mask_id"] for row in found.masks}) == 3
    assert found.scan["unread"] == 0


@pytest.mark.parametrize(
    ("options", "tag", "planned"),
    [
        ("", "second", "b.jpg"),
        (":image=second", "img2", "b.jpg"),
        (":image=first", "img2", "a.jpg"),
        ("", "img2", None),
    ],
)
def test_of_several_images_the_one_that_is_said(tmp_path: Path, options: str, tag: str, planned: str | None) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    data = {"first": "/data/upload/1/a.jpg", "second": "/data/upload/1/b.jpg"}
    path = put(
        tmp_path / "t.json",
        [{"data": data, **task(region("polygonlabels", POLYGON, "r", to_name=tag), image="")} | {"data": data}],
    )
    if planned is None:
        data["second"] = "/data/upload/1/gone.jpg"  # only one of them is an image of --images
        alone = put(
            tmp_path / "alone.json", [{**task(region("polygonlabels", POLYGON, "r", to_name=tag)), "data": data}]
        )
        [row] = run(tmp_path / "images", alone, tmp_path / "alone", "label-studio").masks
        assert row["image_id"] == "a.jpg"
        with pytest.raises(RefusedError, match=r"task 1 has several images \(first, second\).*label-studio:image=KEY"):
            run(tmp_path / "images", path, tmp_path / "out", f"label-studio{options}")
        return
    found = run(tmp_path / "images", path, tmp_path / "out", f"label-studio{options}")
    assert [row["image_id"] for row in found.masks] == [planned]
    assert found.scan["unread"] == 0
