"""CVAT's XML: what a person drew there, and this project's own export, read back pixel for pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest

from pipeline.errors import REASONS, RefusedError
from pipeline.exports.cvat import row_runs
from pipeline.masks import binary
from tests.field.own_exports import check_own_export_comes_back
from tests.field.world import BOX, SIZE_HW, Outcome, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
TOP, BOTTOM, LEFT, RIGHT = BOX
POINTS = "24.00,16.00;72.00,16.00;72.00,48.00;24.00,48.00"
NAMES = ("dog", "cat")


def element(tag: str, inside: str = "", **attributes: Any) -> str:
    return (
        f"<{tag} {' '.join(f'{name}={quoteattr(str(value))}' for name, value in attributes.items())}>{inside}</{tag}>"
    )


def polygon(**more: Any) -> str:
    return element("polygon", **{"label": "cat", "points": POINTS, "occluded": 0, "source": "manual", **more})


def mask(crop: np.ndarray, left: int, top: int, **more: Any) -> str:
    runs = ", ".join(map(str, row_runs(crop)))
    box = {"left": left, "top": top, "width": crop.shape[1], "height": crop.shape[0]}
    return element("mask", **{"label": "cat", "rle": runs, **box, **more})


def image(*shapes: str, number: Any = 7, name: str = "a.jpg", width: Any = WIDTH, height: Any = HEIGHT) -> str:
    return element("image", "".join(shapes), id=number, name=name, width=width, height=height)


def xml(*images: str, labels: tuple[str, ...] = NAMES) -> str:
    named = "".join(f"<label><name>{name}</name><type>any</type></label>" for name in labels)
    meta = f"<meta><task><labels>{named}</labels></task></meta>"
    head = "<?xml version='1.0' encoding='utf-8'?>\n<annotations><version>1.1</version>"
    return f"{head}{meta}{''.join(images)}</annotations>"


def outcome(tmp_path: Path, *shapes: str) -> Outcome:
    put_images(tmp_path / "images", "a.jpg")
    return run(tmp_path / "images", put(tmp_path / "annotations.xml", xml(image(*shapes))), tmp_path / "out")


def test_every_shape_that_has_an_area(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    oval = ((x - 40) / 20) ** 2 + ((y - 30) / 10) ** 2 <= 1
    turned = ((x - 40) / 10) ** 2 + ((y - 30) / 20) ** 2 <= 1
    blob = np.random.default_rng(0).integers(0, 2, (9, 13), dtype=np.uint8)
    box = {"label": "dog", "xtl": 24, "ytl": 16.0, "xbr": "72.00", "ybr": 48}
    ellipse = {"label": "dog", "cx": 40, "cy": 30, "rx": 20, "ry": 10}
    found = outcome(
        tmp_path,
        polygon(),
        element("box", **box),
        element("box", **{**box, "xtl": 32, "ytl": 8, "xbr": 64, "ybr": 56}, rotation=90.0),
        element("ellipse", **ellipse),
        element("ellipse", **ellipse, rotation="90"),
        mask(blob, 5, 7),
        mask(np.ones((4, 4), np.uint8), WIDTH - 2, -1),
    )
    pixels = found.pixels()
    whole = np.zeros(SIZE_HW, np.uint8)
    whole[7:16, 5:18] = blob
    assert found.source == "cvat"
    for number in (1, 2, 3):
        assert (pixels[f"7#{number}"] == square()).all(), number
    assert binary.iou(pixels["7#4"], oval) > 0.98
    assert binary.iou(pixels["7#5"], turned) > 0.98
    assert (pixels["7#6"] == whole).all()
    assert (pixels["7#7"] == square(box=(0, 3, WIDTH - 2, WIDTH))).all()
    assert {row["category"]: row["category_id"] for row in found.masks} == {"dog": 1, "cat": 2}
    assert [row["source_mask_id"] for row in found.masks if (row["detail"] or "").startswith("boxes")] == ["7#2", "7#3"]
    assert found.scan["unread"] == 0
    assert found.images["a.jpg"]["source_image_id"] == "7"


def test_what_is_carried(tmp_path: Path) -> None:
    attributes = element("attribute", "red", name="colour") + element("attribute", "true", name="is_crowd")
    shape = element(
        "polygon", attributes, label="cat", points=POINTS, occluded=1, group_id=4, source="manual", z_order=0
    )
    tag = element("tag", element("attribute", "yes", name="rain"), label="night", source="manual")
    found = outcome(tmp_path, tag, shape)
    row = found.only()
    assert row["crowd"]
    assert json.loads(row["extra"]) == {
        "occluded": "1",
        "group_id": "4",
        "source": "manual",
        "attributes": {"colour": "red", "is_crowd": "true"},
    }
    tags = json.loads(found.images["a.jpg"]["extra"])["tags"]
    assert tags == [{"label": "night", "source": "manual", "attributes": {"rain": "yes"}}]


@pytest.mark.parametrize("tag", ["polyline", "points", "cuboid", "skeleton", "thing"])
def test_what_has_no_area_is_named(tmp_path: Path, tag: str) -> None:
    found = outcome(tmp_path, element(tag, label="dog", points=POINTS), polygon())
    assert found.only()["source_mask_id"] == "7#2"
    [(reason, names)] = found.said("unread").items()
    assert tag in reason or tag == "thing"
    assert names == ["annotations.xml, image 1, shape 1"]


def test_a_folder_with_images_and_tracks(tmp_path: Path) -> None:
    put_images(tmp_path / "task" / "images" / "sub", "a.jpg", "b.jpg")
    track = element("track", element("polygon", frame=0, points=POINTS), id=0, label="dog")
    content = xml(image(polygon(), name="sub/a.jpg"), image(polygon(), name="c.jpg", number=8), track)
    put(tmp_path / "task" / "annotations.xml", content)
    put(tmp_path / "task" / "more" / "notes.xml", "<notes/>")
    found = run(tmp_path / "task" / "images", tmp_path / "task", tmp_path / "out")
    assert sorted(found.images) == ["c.jpg", "sub/a.jpg"]
    assert found.images["c.jpg"]["reason"] == "image_missing"
    assert found.said("unread") == {
        "a track of a video: export it as images": ["annotations.xml, track 0"],
        "no XML of CVAT": ["more/notes.xml"],
    }
    assert found.said("ignored") == {"an image of --images": ["images/sub/a.jpg", "images/sub/b.jpg"]}


def test_two_images_of_one_id_stay_apart(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    for name in ("a", "b"):
        put(tmp_path / "masks" / f"{name}.xml", xml(image(polygon(), number=0, name=f"{name}.jpg")))
    found = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert [row["image_id"] for row in found.masks] == ["a.jpg", "b.jpg"]


HOSTILE = ["", "x", "nan", "inf", "-1", "1e400", "9" * 30, "1,2;3", ";;;", "1,2;3,4;5,y", "None", "0"]


def test_no_field_stops_a_plan(tmp_path: Path) -> None:
    box = {"xtl": 1, "ytl": 1, "xbr": 9, "ybr": 9, "rotation": 3}
    ellipse = {"cx": 9, "cy": 9, "rx": 3, "ry": 3, "rotation": 0}
    bits = {"rle": "0, 4", "left": 1, "top": 1, "width": 2, "height": 2}
    kinds = {"box": box, "ellipse": ellipse, "mask": bits, "polygon": {"points": POINTS}}
    shapes = [
        element(tag, label="cat", **{**fields, name: value})
        for tag, fields in kinds.items()
        for name in fields
        for value in HOSTILE
    ]
    images = [image(*shapes), *(image(polygon(), **{"number": 0, name: value}) for name in ("width", "height", "name")
              for value in HOSTILE)]  # fmt: skip
    put_images(tmp_path / "images", "a.jpg")
    found = run(tmp_path / "images", put(tmp_path / "a.xml", xml(*images)), tmp_path / "out")
    assert {row["reason"] for row in found.masks if row["decision"] == "failed"} <= set(REASONS)
    assert len(found.masks) == len(shapes) + len(images) - 1
    assert found.scan["unread"] == 0


@pytest.mark.parametrize(
    "text",
    ["", "<annotations>", "<annotations><image", "<a/>", "no xml", xml() + "<more/>", "<a>" * 1000,
     '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><annotations>&c;</annotations>',
     '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', xml()],
)  # fmt: skip
def test_what_is_no_xml_of_cvat_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    put_images(tmp_path / "images", "a.jpg")
    path = put(tmp_path / "annotations.xml", text)
    for source in (None, "cvat"):
        with pytest.raises(RefusedError) as refused:
            run(tmp_path / "images", path, tmp_path / "out", source)
        assert "\n" not in str(refused.value)


def test_the_own_export_comes_back(tmp_path: Path) -> None:
    check_own_export_comes_back(tmp_path, "cvat", "annotations.xml")
