"""Mask files whose names go on after the image's, and colour maps with a label map of any name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import RefusedError
from pipeline.sources import detect, parse
from tests.field.world import SIZE_HW, Pixels, put, put_images, run, square

LEFT, RIGHT = square(box=(8, 40, 8, 30)), square(box=(16, 56, 50, 80))


def owners(images: Path, masks: Path, out: Path, source: str | None = None) -> dict[str, str | None]:
    """Mask -> its image, None where that is missing."""
    found = run(images, masks, out, source)
    return {row["source_mask_id"]: None if row["reason"] == "image_missing" else row["image_id"] for row in found.masks}


@pytest.mark.parametrize(
    "names",
    [
        {"cat_1": "cat", "cat_2": "cat", "dog_1": "dog"},
        {"cat_mask_0": "cat", "cat_mask_1": "cat", "dog_mask_0": "dog"},
        {"cat-left-eye": "cat", "dog-tail": "dog"},
        {"cat.0": "cat", "dog.0": "dog"},
        {"a/cat_person_001": "a/cat", "b/cat_person_001": "b/cat"},
        {"cat_1_2": "cat_1", "cat_2": "cat", "cat_1_mask_9": "cat_1"},
        {"ISIC_0000001_attribute_globules": "ISIC_0000001", "ISIC_0000002_attribute_streaks": "ISIC_0000002"},
    ],
)
def test_names_that_go_on_after_the_images(tmp_path: Path, names: dict[str, str]) -> None:
    put_images(tmp_path / "images", *(f"{name}.jpg" for name in names.values()), "zebra.jpg")
    for name in names:
        put(tmp_path / "masks" / f"{name}.png", LEFT * 255)
    found = owners(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert found == {name: f"{image}.jpg" for name, image in names.items()}


def test_a_pattern_that_is_stated(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "cat.jpg", "cat_1.jpg")
    for name in ("gt_cat_01", "gt_cat_1_02", "cat_03", "gt_cow_04"):
        put(tmp_path / "masks" / f"{name}.png", LEFT * 255)
    for source in ("png", "instances"):
        found = owners(
            tmp_path / "images", tmp_path / "masks", tmp_path / source, f"{source}:files=gt_{{stem}}_[0-9][0-9].png"
        )
        found = {name.partition("#")[0]: image for name, image in found.items()}
        assert found == {"gt_cat_01": "cat.jpg", "gt_cat_1_02": "cat_1.jpg", "cat_03": None, "gt_cow_04": None}
    for wrong in ("png:files=x_*", "png:files={stem}/*", "png:other=1", "class-maps:files=a", "instances:files=a"):
        with pytest.raises(RefusedError):
            parse(wrong)


def test_a_pattern_of_masks_among_their_images(tmp_path: Path) -> None:
    put_images(tmp_path / "all" / "x", "cat.jpg", "cat_2.jpg", "dog.png")
    for name in ("cat_1", "cat_2_1", "dog_1", "zebra"):
        put(tmp_path / "all" / "x" / f"{name}.png", LEFT * 255)
    outcome = run(tmp_path / "all", tmp_path / "all", tmp_path / "out", "png:files={stem}_*")
    found = {row["source_mask_id"]: row["image_id"] for row in outcome.masks}
    assert found == {"x/cat_1": "x/cat.jpg", "x/cat_2_1": "x/cat_2.jpg", "x/dog_1": "x/dog.png"}
    assert {name for name, row in outcome.images.items() if not row["masks"]} == {"x/zebra.png"}


@pytest.mark.parametrize("masks", ["", "masks"])
def test_a_folder_for_each_image_and_its_masks(tmp_path: Path, masks: str) -> None:
    """As in the Data Science Bowl 2018; and with the masks elsewhere."""
    root = tmp_path / "train"
    for name in ("0a", "1b"):
        put_images(root / name / "images", f"{name}.png")
        for number, area in enumerate((LEFT, RIGHT)):
            put((tmp_path / masks if masks else root) / name / "masks" / f"{name}{number}.png", area * 255)
    outcome = run(root, tmp_path / masks if masks else root, tmp_path / "out")
    found = {row["source_mask_id"]: row["image_id"] for row in outcome.masks}
    assert found == {f"{n}/masks/{n}{i}": f"{n}/images/{n}.png" for n in ("0a", "1b") for i in range(2)}
    assert outcome.scan["unread"] == 0


def colours(left: tuple[int, int, int], right: tuple[int, int, int]) -> Pixels:
    pixels = np.zeros((*SIZE_HW, 3), np.uint8)
    pixels[LEFT > 0], pixels[RIGHT > 0] = left, right
    return pixels


RED, GREEN = (200, 10, 10), (10, 200, 10)
MAPS = {
    "colours.txt": ("background:0,0,0::\ncat:200,10,10::\ndog:10,200,10::\n", {"cat": 1, "dog": 2}),
    "classes.csv": ("name,r,g,b\ncat,200,10,10\ndog,10,200,10\n", {"cat": 1, "dog": 2}),
    "list.txt": ("200 10 10 cat\n10 200 10 dog\n", {"cat": 1, "dog": 2}),
    "map.json": (json.dumps({"background": [0, 0, 0], "cat": RED, "dog": GREEN}), {"cat": 1, "dog": 2}),
    "ids.json": (json.dumps([{"id": n, "name": name, "color": colour} for n, name, colour in
                 ((7, "cat", RED), (9, "dog", GREEN))]), {"cat": 7, "dog": 9}),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_a_label_map_of_any_name(tmp_path: Path, name: str) -> None:
    text, categories = MAPS[name]
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "maps" / "a.png", colours(RED, GREEN))
    path = put(tmp_path / "elsewhere" / name, text)
    found = run(tmp_path / "images", tmp_path / "maps", tmp_path / "out", f"class-maps:labels={path}")
    assert {row["category"]: row["category_id"] for row in found.masks} == categories
    pixels = {row["category"]: found.pixels()[row["source_mask_id"]] for row in found.masks}
    assert (pixels["cat"] == LEFT).all()
    assert (pixels["dog"] == RIGHT).all()


def test_a_label_map_that_is_none(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "maps" / "a.png", colours(RED, GREEN))
    for name, text in (("x.json", "[1"), ("x.txt", "?"), ("gone.txt", None)):
        if text is not None:
            put(tmp_path / name, text)
        with pytest.raises(RefusedError, match="no label map"):
            run(tmp_path / "images", tmp_path / "maps", tmp_path / "out", f"class-maps:labels={tmp_path / name}")


def test_a_folder_with_a_label_map_holds_class_maps(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "maps" / "a.png", colours(RED, GREEN))
    put(tmp_path / "maps" / "labelmap.txt", MAPS["colours.txt"][0])
    assert detect(str(tmp_path / "maps")) == "class-maps"
    found = run(tmp_path / "images", tmp_path / "maps", tmp_path / "out")
    assert {row["category"]: row["category_id"] for row in found.masks} == {"cat": 1, "dog": 2}
