"""Boxes in, masks out: what has no mask is a prompt, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import REASONS, RefusedError
from pipeline.sources import detect, parse, shapes
from tests.field.world import BOX, RING, SIZE_HW, Outcome, coco, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
TOP, BOTTOM, LEFT, RIGHT = BOX
XYWH = [LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP]


def voc_object(name: str = "cat", inside: str = "", **corners: Any) -> str:
    found = {"xmin": LEFT, "ymin": TOP, "xmax": RIGHT, "ymax": BOTTOM, **corners}
    box = "".join(f"<{key}>{value}</{key}>" for key, value in found.items())
    return f"<object><name>{name}</name>{inside}<bndbox>{box}</bndbox></object>"


def voc(*objects: str, file: str = "a.jpg") -> str:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{file}</filename>{size}{''.join(objects)}</annotation>"


def are_prompts(outcome: Outcome) -> bool:
    """Whether all masks are the square, and say that they are no masks."""
    pixels = outcome.pixels()
    return bool(outcome.masks) and all(
        row["detail"] == shapes.BOX and (pixels[row["source_mask_id"]] == square()).all() for row in outcome.masks
    )


def test_pascal_voc(tmp_path: Path) -> None:
    root = tmp_path / "VOC2007"
    put_images(root / "JPEGImages", "a.jpg", "b.jpg", "c.jpg")
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    put(root / "Annotations" / "a.xml", voc(voc_object("dog", f"<pose>Left</pose><difficult>1</difficult>{part}")))
    put(root / "Annotations" / "b.xml", voc(voc_object("person"), voc_object("cat"), file="b.jpg"))
    put(root / "ImageSets" / "Main" / "cat_train.txt", "a -1\nb 1\n")
    outcome = run(root / "JPEGImages", root, tmp_path / "out")
    assert (outcome.source, outcome.scan["unread"]) == ("voc-boxes", 0)
    assert are_prompts(outcome)
    assert {row["category"]: row["category_id"] for row in outcome.masks} == {"dog": 12, "person": 15, "cat": 8}
    assert json.loads(outcome.masks[0]["extra"]) == {
        "pose": "Left",
        "difficult": "1",
        "parts": [{"name": "head", "bndbox": {"xmin": "1"}}],
    }
    alone = run(root / "JPEGImages", root / "Annotations", tmp_path / "alone")
    assert [row["mask_id"] for row in alone.masks] != []
    assert are_prompts(alone)
    assert outcome.said("unnamed", "images") == {"no mask belongs to it": ["c.jpg"]}


def test_names_that_are_not_vocs_and_polygons_beside_boxes(tmp_path: Path) -> None:
    put_images(tmp_path / "train", "a.jpg")
    ring = "".join(f"<{'xy'[n % 2]}{n // 2 + 1}>{value}</{'xy'[n % 2]}{n // 2 + 1}>" for n, value in enumerate(RING))
    put(tmp_path / "train" / "a.xml", voc(voc_object("zebra", f"<polygon>{ring}</polygon>", xmax=9), voc_object("ant")))
    assert detect(str(tmp_path / "train")) == "voc-boxes"
    outcome = run(tmp_path / "train", tmp_path / "train", tmp_path / "out")
    assert {row["category"]: (row["category_id"], row["detail"]) for row in outcome.masks} == {
        "ant": (1, shapes.BOX),
        "zebra": (2, None),
    }
    assert all((pixels == square()).all() for pixels in outcome.pixels().values())


@pytest.mark.parametrize("value", ["", "x", "nan", "1e400", "-5", "9" * 40, "<a/>", "96"])
def test_no_corner_stops_a_plan(tmp_path: Path, value: str) -> None:
    put_images(tmp_path / "images", "a.jpg")
    objects = [voc_object(**{corner: value}) for corner in ("xmin", "ymin", "xmax", "ymax")]
    put(tmp_path / "boxes" / "a.xml", voc(*objects, voc_object(), "<object/>"))
    put(tmp_path / "boxes" / "b.xml", "<annotation>")
    put(tmp_path / "boxes" / "c.xml", '<!DOCTYPE a [<!ENTITY b "x">]><annotation>&b;</annotation>')
    put(tmp_path / "boxes" / "d.xml", "<other/>")
    outcome = run(tmp_path / "images", tmp_path / "boxes", tmp_path / "out")
    assert len(outcome.masks) == 6
    assert {row["reason"] for row in outcome.masks if row["decision"] == "failed"} <= set(REASONS)
    assert (outcome.pixels()["a#5"] == square()).all()
    assert outcome.said("unread") == {"no XML": ["b.xml", "c.xml"], "no document of Pascal VOC": ["d.xml"]}


def test_coco_with_boxes_alone_and_with_boxes_in_place_of_masks(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    wrong = [[0, 0, 5, 0, 5, 5]]
    rows = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": XYWH, "segmentation": wrong},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": XYWH, "segmentation": []},
    ]
    path = put(tmp_path / "boxes.json", coco({"file_name": "a.jpg"}, annotations=rows))
    plain = {row["source_mask_id"]: row["detail"] for row in run(tmp_path / "images", path, tmp_path / "plain").masks}
    assert plain == {"1": None, "2": shapes.BOX}
    assert are_prompts(run(tmp_path / "images", path, tmp_path / "out", "coco:from=boxes"))
    results = put(tmp_path / "results.json", [{"score": 0.5, **row, "image_id": "a"} for row in rows])
    assert are_prompts(run(tmp_path / "images", results, tmp_path / "found", "coco-results:from=boxes"))
    without = coco({"file_name": "a.jpg"}, annotations=[rows[0], {**rows[0], "id": 3, "bbox": None}])
    failed = run(tmp_path / "images", put(tmp_path / "none.json", without), tmp_path / "none", "coco:from=boxes").masks
    assert [(row["source_mask_id"], row["reason"]) for row in failed if row["reason"] == "mask_unreadable"] == [
        ("3", "mask_unreadable")
    ]
    for source in ("coco:from=masks", "coco:x=1", "lvis:from=x", "coco-results:from=me"):
        with pytest.raises(RefusedError, match="from=boxes"):
            parse(source)


def test_yolo(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    assert are_prompts(run(tmp_path / "images", tmp_path / "labels", tmp_path / "out"))
