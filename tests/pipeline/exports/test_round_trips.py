"""Every other format out and in again: the same masks, or less exactly what the export said it lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings

from pipeline.dataset.by_image import groups
from pipeline.exports import EXPORTS
from pipeline.exports.label_studio import brush_rle
from pipeline.masks import binary
from pipeline.sources import detect
from tests.pipeline.exports.results import (
    Found,
    ImageCase,
    MaskCase,
    expected,
    image_cases,
    make_result,
    read_back,
    write,
)

EXAMPLES = settings(max_examples=8, deadline=None)


def area(found: Found) -> int:
    """Foreground pixels of all masks."""
    return sum(int(np.frombuffer(data, np.uint8).sum()) for image in found.values() for _, data in image)


def by_content(found: Found) -> Counter[tuple[tuple[str, bytes], ...]]:
    """What the images hold, whatever they are called."""
    return Counter(tuple(image) for image in found.values())


@EXAMPLES
@given(images=image_cases())
def test_lvis(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("lvis")
    write(make_result(folder, images), folder / "to", "lvis")
    assert detect(str(folder / "to" / "lvis.json")) in ("lvis", "coco")
    assert read_back("lvis", folder / "to" / "lvis.json", folder / "images") == expected(images)


@EXAMPLES
@given(images=image_cases())
def test_coco_panoptic(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("panoptic")
    lost = write(make_result(folder, images), folder / "to", "coco-panoptic").report["lost"]
    found = read_back("coco-panoptic", folder / "to" / "panoptic.json", folder / "images")
    want = expected(images)
    assert found.keys() == want.keys()
    assert area(want) - area(found) == lost.get("pixels under another mask", 0)
    count = sum(len(image) for image in want.values()) - sum(len(image) for image in found.values())
    assert count == lost.get("masks wholly under others", 0)
    for image in images:
        union = np.zeros(image.size_hw, np.uint8)
        for mask in image.masks:
            union |= mask.pixels
        parts = [np.frombuffer(data, np.uint8).reshape(image.size_hw) for _, data in found[image.uri]]
        assert np.array_equal(sum(parts, np.zeros(image.size_hw, np.uint8)), union)
    if not lost:
        assert found == want


@EXAMPLES
@given(images=image_cases())
def test_yolo(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    lost = write(make_result(folder, images), folder / "to", "yolo", with_images=True).report["lost"]
    found = read_back("yolo", folder / "to" / "labels" / "train", folder / "to" / "images" / "train")
    want = expected(images)
    assert found.keys() == want.keys()
    assert area(want) - area(found) == lost.get("pixels in parts left out", 0)  # our reader does not draw the lines
    every = [mask.pixels for image in images for mask in image.masks]
    several = sum(len(binary.component_areas(mask)) > 1 for mask in every)
    assert lost.get("masks of which small parts were left out", 0) <= several
    assert lost.get("masks whose parts are joined by lines", 0) <= several
    if not lost.get("pixels in parts left out"):
        assert found == want


@pytest.mark.parametrize(
    ("splits", "train", "val"),
    [
        ((), "train", "train"),
        ((("train", 0.5), ("val", 0.5)), "train", "val"),
        ((("train", 0.5), ("valid", 0.3), ("test", 0.2)), "train", "valid"),
        ((("train", 0.999), ("val", 0.001)), "train", "train"),
        ((("a", 0.5), ("b", 0.5)), "a", "a"),
    ],
)
def test_yolo_has_images_to_train_and_to_validate_on(
    tmp_path: Path, splits: tuple[tuple[str, float], ...], train: str, val: str
) -> None:
    cases = [ImageCase(f"{n:02d}.png", (4, 5), [MaskCase(np.ones((4, 5), np.uint8))]) for n in range(12)]
    write(make_result(tmp_path, cases), tmp_path / "to", "yolo", with_images=True, splits=splits)
    content = yaml.safe_load((tmp_path / "to" / "data.yaml").read_text())
    assert (content["train"], content["val"]) == (f"images/{train}", f"images/{val}")
    assert "path" not in content
    for key in content.keys() - {"names"}:
        assert any((tmp_path / "to" / content[key]).iterdir())


@EXAMPLES
@given(images=image_cases())
def test_webdataset(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("webdataset")
    assert not write(make_result(folder, images), folder / "to", "webdataset", with_images=True).report["lost"]
    assert detect(str(folder / "to")) == "webdataset"
    assert by_content(read_back("webdataset", folder / "to", folder / "to")) == by_content(expected(images))


@EXAMPLES
@given(images=image_cases())
def test_hugging_face(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("hf")
    result = make_result(folder, images)
    assert not write(result, folder / "to", "huggingface", with_images=True).report["lost"]
    assert detect(str(folder / "to")) == "parquet"
    assert by_content(read_back("parquet", folder / "to", folder / "to")) == by_content(expected(images))
    write(result, folder / "masks", "huggingface")
    assert read_back("parquet", folder / "masks", folder / "images") == expected(images)


@EXAMPLES
@given(images=image_cases())
def test_cvat(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("cvat")
    assert not write(make_result(folder, images), folder / "to", "cvat").report["lost"]
    root = ElementTree.parse(folder / "to" / "annotations.xml").getroot()
    found: Found = {}
    for image in root.iter("image"):
        size = int(image.attrib["height"]), int(image.attrib["width"])
        shapes = []
        for shape in image.iter("mask"):
            x, y, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
            runs = [int(run) for run in shape.attrib["rle"].split(",")]
            pixels = np.zeros(size, np.uint8)
            pixels[y : y + height, x : x + width] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
            shapes.append((shape.attrib["label"], pixels.tobytes()))
        found[image.attrib["name"]] = sorted(shapes)
    assert found == expected(images)
    names = {label["name"] for label in json.loads((folder / "to" / "labels.json").read_text())}
    assert names == {name for image in found.values() for name, _ in image}


def brush_pixels(rle: list[int]) -> np.ndarray:
    """The inverse of Label Studio's code, as its converter's decoder reads it."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        is_run = take(1)
        length = take(sizes[take(2)]) + 1
        out += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    return np.array(out, np.uint8).reshape(-1, 4)[:, 3]


@EXAMPLES
@given(images=image_cases())
def test_label_studio(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("tasks")
    assert not write(make_result(folder, images), folder / "to", "label-studio").report["lost"]
    found: Found = {}
    for task in json.loads((folder / "to" / "tasks.json").read_text()):
        [prediction] = task["predictions"]
        assert 0 <= prediction["score"] <= 1
        found[task["data"]["image_uri"]] = sorted(
            (region["value"]["brushlabels"][0], (brush_pixels(region["value"]["rle"]) // 255).tobytes())
            for region in prediction["result"]
        )
    assert found == expected(images)
    labels = {label.attrib["value"] for label in ElementTree.parse(folder / "to" / "label_config.xml").iter("Label")}
    assert labels == {name for image in found.values() for name, _ in image}


def test_long_runs_of_label_studio() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[40:200, :] = 1
    assert np.array_equal(brush_pixels(brush_rle(mask)) // 255, mask.ravel())


def test_every_format_is_split_and_the_same_twice(tmp_path: Path) -> None:
    pixels = np.ones((4, 5), np.uint8)
    cases = [ImageCase(f"{n:02d}.png", (4, 5), [MaskCase(pixels)]) for n in range(12)]
    result = make_result(tmp_path, cases, shards=2)
    assert len(groups(result)) == 2
    for name, export in EXPORTS.items():
        contents = []
        for folder in ("a", "b"):
            to = tmp_path / folder / name
            shares = (("train", 0.6), ("val", 0.4))
            report = write(result, to, name, splits=shares, with_images=export.copies_images).report
            assert report["counts"] == {"images": 12, "masks": 12}
            files = {str(p.relative_to(to)): p.read_bytes() for p in to.rglob("*") if p.is_file()}
            contents.append(files)
        assert contents[0] == contents[1], name
        assert any("val" in path for path in contents[0]), name
