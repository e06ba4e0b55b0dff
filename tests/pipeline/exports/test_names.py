"""No two images of an export have one file, whatever their ids are; what is renamed is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.exports import EXPORTS
from pipeline.exports.names import clean, key, split_suffix
from pipeline.exports.survey import survey
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result, write

PIXELS = np.ones((4, 5), np.uint8)
ALIKE = [
    "a.jpg",
    "./a.jpg",
    "a.png",
    "IMG.1.jpg",
    "IMG_1.jpg",
    "B.png",
    "b.png",
    "Café.png",
    "Cafe\u0301.png",
    "x/d.png",
]
NO_FILES = [
    ".",
    "..",
    "/",
    "./",
    "//",
    " ",
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b.png",
    "a\nb\x1b[31m.png",
    "\x7f.png",
]
LONG = ["n" * 300 + ".png", "/".join(["deep"] * 400) + "/a.png"]
FOLDERS = ["a.png/b.png", "a.png", "images/a.png", "images_/a.png", "x.tar#y.png", "x.tar/y.png", "c:\\d.png"]
OUR_OWN = ["data.yaml", "export.json", ".relabel-export/job.json", "renamed.jsonl"]
HOSTILE = [*NO_FILES, *LONG, *FOLDERS, *OUR_OWN]


def cases(uris: list[str]) -> list[ImageCase]:
    """An image for each, of a class of its own."""
    return [
        ImageCase(uri, (4, 5), [MaskCase(PIXELS, number, f"class {number}")], has_photo=False)
        for number, uri in enumerate(sorted(uris), 1)
    ]


def folded(paths: list[str]) -> set[int]:
    return {key(path) for path in paths}


def files_of_images(folder: Path, name: str) -> list[str]:
    kinds = {"class-maps": "*.png", "coco-panoptic": "*.png", "yolo": "labels/**/*.txt"}
    return [str(path.relative_to(folder)) for path in folder.rglob(kinds[name]) if path.is_file()]


@pytest.mark.parametrize("uris", [ALIKE, HOSTILE], ids=["alike", "hostile"])
@pytest.mark.parametrize("name", EXPORTS)
def test_every_image_is_in_every_export(tmp_path: Path, name: str, uris: list[str]) -> None:
    report = write(make_result(tmp_path, cases(uris), shards=2), tmp_path / "to", name).report
    assert report["counts"]["images"] == report["counts"]["masks"] == len(uris)
    beside = {path.name for path in tmp_path.iterdir()}
    assert beside <= {"out", "to", "images"}, "nothing is written elsewhere"
    for path in (tmp_path / "to").rglob("*.json"):
        json.loads(path.read_text())
    for path in (tmp_path / "to").rglob("*.xml"):
        ElementTree.parse(path)


@pytest.mark.parametrize("uris", [ALIKE, HOSTILE], ids=["alike", "hostile"])
@pytest.mark.parametrize("name", ["class-maps", "coco-panoptic", "yolo"])
def test_no_two_images_have_one_file(tmp_path: Path, name: str, uris: list[str]) -> None:
    report = write(make_result(tmp_path, cases(uris)), tmp_path / "to", name).report
    found = files_of_images(tmp_path / "to", name)
    assert len(folded(found)) == len(found) == len(uris)
    renamed = [json.loads(line) for line in (tmp_path / "to" / "renamed.jsonl").read_text().splitlines()]
    assert len(renamed) == report["counts"]["files renamed, see renamed.jsonl"] == len({one["file"] for one in renamed})
    assert "renamed.jsonl" in report["files"]


def test_class_maps_of_like_names_hold_their_own_classes(tmp_path: Path) -> None:
    images = cases(ALIKE)
    write(make_result(tmp_path, images), tmp_path / "to", "class-maps")
    lines = (tmp_path / "to" / "renamed.jsonl").read_text().splitlines()
    renamed = {one["image_uri"]: one["file"] for one in map(json.loads, lines)}
    assert "x/d.png" not in renamed
    for number, image in enumerate(sorted(images, key=lambda image: image.uri), 1):
        data = (tmp_path / "to" / renamed.get(image.uri, f"{split_suffix(image.uri)[0]}.png")).read_bytes()
        assert np.unique(np.asarray(Image.open(io.BytesIO(data)))).tolist() == [number]


def test_plain_names_are_kept(tmp_path: Path) -> None:
    uris = ["a.jpg", "b/a.jpg", "c 1/é.JPG", "IMG.1.jpg", "no-suffix"]
    report = write(make_result(tmp_path, cases(uris)), tmp_path / "to", "yolo").report
    assert not (tmp_path / "to" / "renamed.jsonl").exists()
    assert not any("renamed" in what for what in report["counts"])
    wanted = {f"labels/train/{name}.txt" for name in ("a", "b/a", "c 1/é", "IMG.1", "no-suffix")}
    assert set(files_of_images(tmp_path / "to", "yolo")) == wanted


NAMES = st.text(st.sampled_from("aA.b/_-\0\\ é"), min_size=1, max_size=8).map(lambda text: text + ".png")


@settings(max_examples=25, deadline=None)
@given(uris=st.lists(NAMES, min_size=1, max_size=12, unique=True))
def test_stems_differ(tmp_path_factory: pytest.TempPathFactory, uris: list[str]) -> None:
    names = survey(make_result(tmp_path_factory.mktemp("names"), cases(uris))).names
    stems = [names.stem(uri, uri) for uri in uris]
    assert len(folded(stems)) == len(stems)
    for stem in stems:
        assert not {"", ".", ".."} & set(f"{stem}.txt".split("/"))
        assert not set(stem) & set("\0\\")


def test_a_renamed_file_never_takes_another_name(tmp_path: Path) -> None:
    """An image that is called as the renamed one would be."""
    first = survey(make_result(tmp_path / "1", cases(["a.jpg", "a.png"]))).names
    taken = f"{first.stem('a.jpg', 'a.jpg')}.gif"
    uris = ["a.jpg", "a.png", taken]
    names = survey(make_result(tmp_path / "2", cases(uris))).names
    assert (first.salt, names.salt) == (0, 1)
    assert len({names.stem(uri, uri) for uri in uris}) == 3


def test_what_is_a_suffix() -> None:
    assert split_suffix("a/IMG.1.JPG") == ("a/IMG.1", ".JPG")
    assert split_suffix("a.v2/IMG.1") == ("a.v2/IMG.1", "")
    assert clean("a/./b//c.png", "x") == "a/b/c.png"
