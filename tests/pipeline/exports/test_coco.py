"""COCO out and in again; pycocotools and supervision open it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.masks import binary
from tests.pipeline.exports.results import ImageCase, MaskCase, expected, image_cases, make_result, read_back, write


@settings(max_examples=25, deadline=None)
@given(images=image_cases())
def test_rle_loses_nothing(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("coco")
    done = write(make_result(folder, images), folder / "to", "coco")
    assert done.report["lost"] == {}
    assert done.report["counts"] == {"images": len(images), "masks": sum(len(image.masks) for image in images)}
    assert read_back("coco", folder / "to" / "instances.json", folder / "images") == expected(images)


@settings(max_examples=25, deadline=None)
@given(images=image_cases())
def test_polygons_lose_what_they_say(tmp_path_factory: pytest.TempPathFactory, images: list[ImageCase]) -> None:
    folder = tmp_path_factory.mktemp("coco")
    lost = write(make_result(folder, images), folder / "to", "coco", polygons=True).report["lost"]
    found = read_back("coco", folder / "to" / "instances.json", folder / "images")
    holed = filled = 0
    for image in images:
        want = [np.frombuffer(data, np.uint8) for _, data in expected([image])[image.uri]]
        holed += sum(binary.count_holes(mask.pixels) > 0 for mask in image.masks)
        filled += sum(int(np.frombuffer(data, np.uint8).sum()) for _, data in found[image.uri])
        filled -= sum(int(mask.sum()) for mask in want)
    assert lost.get("masks whose holes were filled", 0) == holed
    assert lost.get("hole pixels filled", 0) == filled


def test_coco_eval_reads_it(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[3:15, 4:22] = 1
    images = [ImageCase(f"{n}.png", (20, 30), [MaskCase(pixels, 5, "cat")]) for n in range(3)]
    write(make_result(tmp_path, images), tmp_path / "to", "coco")
    truth = COCO(str(tmp_path / "to" / "instances.json"))
    assert [category["name"] for category in truth.loadCats(truth.getCatIds())] == ["cat"]
    annotations = truth.loadAnns(truth.getAnnIds())
    assert all((truth.annToMask(annotation) == pixels).all() for annotation in annotations)
    results = [{**annotation, "score": annotation["quality"]} for annotation in annotations]
    score = COCOeval(truth, truth.loadRes(results), "segm")
    score.evaluate()
    score.accumulate()
    score.summarize()
    assert score.stats[0] == pytest.approx(1.0)


def test_splits_and_ids(tmp_path: Path) -> None:
    pixels = np.ones((4, 4), np.uint8)
    images = [ImageCase(f"{n:03d}.png", (4, 4), [MaskCase(pixels)]) for n in range(40)]
    result = make_result(tmp_path, images, shards=3)
    write(result, tmp_path / "to", "coco", splits=(("train", 0.75), ("val", 0.25)))
    parts = {name: json.loads((tmp_path / "to" / f"instances_{name}.json").read_text()) for name in ("train", "val")}
    names = {name: {image["file_name"] for image in part["images"]} for name, part in parts.items()}
    assert names["train"] | names["val"] == {image.uri for image in images}
    assert not names["train"] & names["val"]
    assert 20 < len(names["train"]) < 38
    ids = [annotation["id"] for part in parts.values() for annotation in part["annotations"]]
    assert sorted(ids) == sorted(int(row) for row in result.masks()["source_mask_id"].to_pylist())
