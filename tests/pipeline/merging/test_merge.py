"""Two annotations become one: by the rule, whatever formats they have, and nothing goes missing without a word."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.merging import classes
from pipeline.merging.rule import ADDED, FIRST, KEPT, NOT_EXHAUSTIVE, REPLACED, choose

SIZE = {"height": 20, "width": 30}
NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
TRIANGLE = [[1, 1, 9, 1, 9, 9]]


def relabel(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "photos" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def coco(path: Path, images: dict[int, str], masks: list[tuple[int, int, int]], **more: Any) -> Path:
    """masks: (id, image, category)."""
    content = {
        "images": [{"id": number, "file_name": name, **SIZE} for number, name in images.items()],
        "annotations": [
            {"id": own, "image_id": image, "category_id": category, "segmentation": TRIANGLE, "iscrowd": 0}
            for own, image, category in masks
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "teddy bear", "supercategory": "toy"}],
        **more,
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def pair(tmp_path: Path, photos: Path) -> tuple[Path, Path, Path]:
    """In a: a cat each (the first stays), three bears against one (replaced). In b: bears are not exhaustive. In c: two
    crowds and a cat against two. d is the second's alone, and a class that the first does not have.
    """
    first = coco(
        tmp_path / "first.json",
        {1: "val/a.jpg", 2: "val/b.jpg", 3: "val/c.jpg"},
        [(1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 3, 1), (5, 3, 1)],
    )
    content = json.loads(first.read_text())
    content["annotations"][4]["iscrowd"] = 1
    first.write_text(json.dumps(content))
    url = "http://images.cocodataset.org/val/"
    images = [
        {"id": number, "coco_url": f"{url}{name}", **SIZE, "neg_category_ids": [], "not_exhaustive_category_ids": lists}
        for number, name, lists in ((7, "a.jpg", []), (8, "b.jpg", [70]), (9, "c.jpg", []), (10, "d.jpg", []))
    ]
    masks = [
        (1, 7, 71),
        (2, 7, 70),
        (3, 7, 70),
        (4, 7, 70),
        (5, 8, 70),
        (6, 8, 70),
        (7, 9, 71),
        (8, 9, 71),
        (9, 10, 72),
    ]
    second = tmp_path / "second.json"
    names = [{"id": 70, "name": "Teddy_Bear"}, {"id": 71, "name": "cat"}, {"id": 72, "name": "yeti"}]
    annotations = [
        {"id": own, "image_id": image, "category_id": number, "segmentation": TRIANGLE} for own, image, number in masks
    ]
    second.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    return first, second, photos


def merged(tmp_path: Path, pair: tuple[Path, Path, Path], *more: str, code: int = 0) -> tuple[dict[str, Any], str]:
    to = tmp_path / "out" / "merged.json"
    done = relabel("merge", *pair[:2], "--images", pair[2], "--names", "coco,lvis", "-o", to, *more)
    assert done.exit_code == code, done.output
    return json.loads(to.read_text()), done.stdout


def taken(content: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    files = {image["id"]: image["file_name"] for image in content["images"]}
    names = {one["id"]: one["name"] for one in content["categories"]}
    return Counter((files[one["image_id"]], names[one["category_id"]], one["source"]) for one in content["annotations"])


def test_coco_and_lvis(tmp_path: Path, pair: tuple[Path, Path, Path]) -> None:
    content, said = merged(tmp_path, pair)
    assert taken(content) == {
        ("val/a.jpg", "cat", "coco"): 1,
        ("val/a.jpg", "teddy bear", "lvis"): 3,
        ("val/b.jpg", "cat", "coco"): 1,
        ("val/c.jpg", "cat", "coco"): 1,  # the crowd region
        ("val/c.jpg", "cat", "lvis"): 2,
        ("val/d.jpg", "yeti", "lvis"): 1,
    }
    for line in (
        "images: 3 in both, 0 only in coco, 1 only in lvis",
        "kept: 2 (coco has as many or more)",
        "replaced: 2 (lvis has more)",
        "added: 1 (coco has none)",
        "not exhaustive: 1 (lvis says",
        "masks: 3 of coco, 6 of lvis",
        "new classes: yeti",
    ):
        assert line in said
    [kept] = [one for one in content["annotations"] if one["source_id"] == 1 and one["source"] == "coco"]
    assert (kept["id"], kept["image_id"], kept["segmentation"]) == (1, 1, TRIANGLE)
    assert kept["area"] == binary.area(binary.from_polygons(TRIANGLE, (20, 30)))
    assert {one["name"]: one for one in content["categories"]}["teddy bear"]["supercategory"] == "toy"
    assert not [image for image in content["images"] if "not_exhaustive_category_ids" in image]
    read = COCO(tmp_path / "out" / "merged.json")  # as everybody reads it
    assert len(read.anns) == len(content["annotations"]) == 9
    assert all(read.annToMask(one).any() for one in read.anns.values())


def test_what_the_first_does_not_know_can_be_left(tmp_path: Path, pair: tuple[Path, Path, Path]) -> None:
    content, said = merged(tmp_path, pair, "--only-known", "--only-first-images")
    assert {name for name, _, _ in taken(content)} == {"val/a.jpg", "val/b.jpg", "val/c.jpg"}
    assert "left out: 1 image that coco does not have" in said
    assert "left out, classes that coco does not have: yeti" in said


def test_the_same_bytes_with_a_small_buffer(
    tmp_path: Path, pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = merged(tmp_path, pair)
    monkeypatch.setattr("pipeline.merging.reading.HELD_MASKS", 2)
    assert merged(tmp_path, pair)[0] == whole


def test_a_folder_of_pngs_and_a_class_of_another_name(tmp_path: Path, photos: Path) -> None:
    first = coco(tmp_path / "first.json", {1: "val/a.jpg"}, [(1, 1, 1)])
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4:20] = 255
    for name in ("a", "b"):
        (tmp_path / "masks" / "val" / name).mkdir(parents=True)
        for number in (1, 2):
            Image.fromarray(mask).save(tmp_path / "masks" / "val" / name / f"{number}.png")
    (tmp_path / "names.json").write_text(json.dumps({"object": "cat", "": "cat"}))
    content, _ = merged(
        tmp_path,
        (first, tmp_path / "masks", photos),
        "--classes",
        str(tmp_path / "names.json"),
        "--second-source",
        "png",
    )
    assert taken(content) == {("val/a.jpg", "cat", "lvis"): 2, ("val/b.jpg", "cat", "lvis"): 2}
    assert all(binary.decode(one["segmentation"]).sum() == 96 for one in content["annotations"])


def test_images_known_by_their_names(tmp_path: Path, photos: Path) -> None:
    (photos / "a.png").write_bytes((photos / "val" / "a.jpg").read_bytes())
    first = coco(tmp_path / "first.json", {1: "val/a.jpg"}, [(1, 1, 1)])
    second = coco(tmp_path / "second.json", {5: "a.png"}, [(1, 5, 1), (2, 5, 1)])
    content, _ = merged(tmp_path, (first, second, photos), "--key", "stem")
    assert taken(content) == {("val/a.jpg", "cat", "lvis"): 2}
    both = coco(tmp_path / "both.json", {1: "val/a.jpg", 2: "a.png"}, [(1, 1, 1)])
    done = relabel("merge", both, second, "--images", photos, "--key", "stem", "-o", tmp_path / "x.json")
    assert isinstance(done.exception, RefusedError)
    assert "are both 'a'" in str(done.exception)


def test_a_mask_that_cannot_be_read_is_told_and_stays(tmp_path: Path, photos: Path) -> None:
    first = coco(tmp_path / "first.json", {1: "val/a.jpg"}, [(1, 1, 1)])
    content = json.loads(coco(tmp_path / "second.json", {1: "val/a.jpg"}, [(1, 1, 2)]).read_text())
    content["annotations"][0]["segmentation"] = [[1, 2]]
    (tmp_path / "second.json").write_text(json.dumps(content))
    found, _ = merged(tmp_path, (first, tmp_path / "second.json", photos), code=3)
    assert [one["segmentation"] for one in found["annotations"]] == [TRIANGLE, [[1, 2]]]


def test_what_cannot_be_meant_is_refused(tmp_path: Path, pair: tuple[Path, Path, Path]) -> None:
    for words, said in ((("--names", "a,a"), "two names"), (("--key", "hash"), "--key takes path, name, stem")):
        done = relabel("merge", *pair[:2], "--images", pair[2], "-o", tmp_path / "x.json", *words)
        assert isinstance(done.exception, RefusedError)
        assert said in str(done.exception)


MASKS = st.lists(st.fixed_dictionaries({"category_id": st.integers(1, 3), "crowd": st.booleans()}), max_size=6)


@given(MASKS, MASKS, st.sets(st.integers(1, 3)))
def test_the_rule(first: list[Any], second: list[Any], not_exhaustive: set[int]) -> None:
    for choice in choose(first, second, not_exhaustive):
        own, other = (
            [mask for mask in masks if mask["category_id"] == choice.category_id] for masks in (first, second)
        )
        counts = [sum(not mask["crowd"] for mask in masks) for masks in (own, other)]
        found = sum(not mask["crowd"] for _, mask in choice.masks)
        if choice.category_id in not_exhaustive and other:
            assert (choice.outcome, found) == (NOT_EXHAUSTIVE, counts[0])
        elif not own:
            assert (choice.outcome, found) == (ADDED, counts[1])
        else:
            assert choice.outcome == (REPLACED if counts[1] > counts[0] else KEPT)
            assert found == max(counts)
        crowds = [mask for side, mask in choice.masks if mask["crowd"] and side == FIRST]
        assert len(crowds) == sum(mask["crowd"] for mask in own)


def test_classes_are_joined_by_name() -> None:
    found = classes.join(
        {(1, "cat"), (2, "tv")}, {(1, "tv set"), (2, "Cat"), (2, "dog"), (9, "cow")}, {"tv set": "tv"}, False
    )
    assert found.of_second == {(1, "tv set"): 2, (2, "Cat"): 1, (2, "dog"): 3, (9, "cow"): 9}
    assert (found.all, found.new) == ({1: "cat", 2: "tv", 3: "dog", 9: "cow"}, ["dog", "cow"])
