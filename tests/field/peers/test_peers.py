"""Each export is read by the tools that it is for, in environments of their own (`make peers`), pixel for pixel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from PIL import Image

from pipeline.dataset import Result
from tests.conftest import DEMO
from tests.field.peers import environments
from tests.field.peers.exported import CLASSES, Seen, cases, filled, ious, layered, photographs, seen_by, truth
from tests.field.test_round_trips import panoptic_file
from tests.field.world import run
from tests.pipeline.exports.results import make_result, read_back, write

pytestmark = pytest.mark.slow

CASES = cases()
DEVELOPMENT = environments.ROOT.parent / "shared" / "data" / "dev"


def peer(name: str) -> pytest.MarkDecorator:
    missing = not environments.is_whole(name)
    return pytest.mark.skipif(missing, reason=f"{name} is not in {environments.FOLDER}: make peers")


def peer_case(name: str) -> ParameterSet:
    return pytest.param(name, marks=peer(name))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return make_result(tmp_path_factory.mktemp("peers"), CASES, shards=2)


@pytest.fixture(scope="module")
def images(result: Result) -> Path:
    return Path(result.manifest.images_root)


def by_stem(seen: Seen) -> Seen:
    """As peers have it that do not tell the suffix."""
    return {(image.removesuffix(".png"), name): masks for (image, name), masks in seen.items()}


def as_yolo(seen: Seen) -> Seen:
    """With the folder that YOLO has under another name."""
    return {(image.replace("images/", "images_/"), name): masks for (image, name), masks in seen.items()}


def our_own(source: str, path: Path, images: Path) -> Seen:
    """What our reader makes of the same file."""
    sizes = {name: image.size_hw for image in CASES for name in (image.uri, f"images_/{Path(image.uri).name}")}
    seen: Seen = {}
    for image, masks in read_back(source, path, images).items():
        for name, data in masks:
            seen.setdefault((image, name), []).append(np.frombuffer(data, np.uint8).reshape(sizes[image]) > 0)
    return seen


@peer("pycocotools")
def test_pycocotools(result: Result, images: Path, tmp_path: Path) -> None:
    write(result, tmp_path / "rle", "coco")
    seen = seen_by("pycocotools", tmp_path / "rle.npz", tmp_path / "rle/instances.json")
    assert set(ious(seen, truth(CASES))) == {1.0}
    assert set(ious(our_own("coco", tmp_path / "rle/instances.json", images), seen)) == {1.0}
    write(result, tmp_path / "polygons", "coco", polygons=True)
    seen = seen_by("pycocotools", tmp_path / "polygons.npz", tmp_path / "polygons/instances.json")
    assert set(ious(seen, filled(CASES))) == {1.0}
    assert set(ious(our_own("coco", tmp_path / "polygons/instances.json", images), seen)) == {1.0}


@peer("lvis")
def test_lvis(result: Result, images: Path, tmp_path: Path) -> None:
    write(result, tmp_path / "to", "lvis")
    seen = seen_by("lvis", tmp_path / "found.npz", tmp_path / "to/lvis.json")
    assert set(ious(seen, truth(CASES))) == {1.0}
    assert set(ious(our_own("lvis", tmp_path / "to/lvis.json", images), seen)) == {1.0}


@peer("panopticapi")
def test_panopticapi(result: Result, images: Path, tmp_path: Path) -> None:
    write(result, tmp_path / "to", "coco-panoptic")
    path = tmp_path / "to/panoptic.json"
    seen = seen_by("panopticapi", tmp_path / "found.npz", path)
    assert set(ious(seen, layered(CASES))) == {1.0}
    assert set(ious(our_own("coco-panoptic", path, images), seen)) == {1.0}


@peer("panopticapi")
def test_panopticapi_against_the_original(tmp_path: Path) -> None:
    """Unchanged masks score 1; an image that could not be read has no segments, and is there."""
    panoptic_file(tmp_path)
    images, original = tmp_path / "images", tmp_path / "in.json"
    write(run(images, original, tmp_path / "out").result, tmp_path / "to", "coco-panoptic")
    seen_by("panopticapi", tmp_path / "found.npz", tmp_path / "to/panoptic.json", original, 1.0)
    (images / "000000000285.jpg").write_bytes(b"broken")
    write(run(images, original, tmp_path / "again").result, tmp_path / "to again", "coco-panoptic")
    seen_by("panopticapi", tmp_path / "found.npz", tmp_path / "to again/panoptic.json", original, 2 / 3)


@peer("cityscapesscripts")
def test_cityscapesscripts(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "to", "class-maps")
    numbers = {name: number for number, name in CLASSES.items()}
    wanted, pairs = layered(CASES), {}
    for index, image in enumerate(CASES):
        labels = np.zeros(image.size_hw, np.uint8)
        for (uri, name), masks in wanted.items():
            if uri == image.uri:
                labels[np.any(masks, axis=0)] = numbers[name]
        pairs[image.uri] = str(tmp_path / f"{index}.png")
        Image.fromarray(labels).save(pairs[image.uri])
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    seen = seen_by("cityscapesscripts", tmp_path / "found.npz", tmp_path / "to", tmp_path / "pairs.json")
    assert set(ious(seen, wanted)) == {1.0}


@peer("supervision")
def test_supervision(result: Result, images: Path, tmp_path: Path) -> None:
    write(result, tmp_path / "coco", "coco")
    seen = seen_by("supervision", tmp_path / "coco.npz", "coco", images, tmp_path / "coco/instances.json")
    assert set(ious(seen, truth(CASES))) == {1.0}


@peer("supervision")
def test_supervision_rounds_what_yolo_has(result: Result, tmp_path: Path) -> None:
    """It rounds coordinates where Ultralytics cuts them: half a pixel more at the right and at the bottom."""
    write(result, tmp_path / "to", "yolo", with_images=True)
    folder = tmp_path / "to"
    given = (folder / "images/train", folder / "labels/train", folder / "data.yaml")
    seen = seen_by("supervision", tmp_path / "found.npz", "yolo", *given)
    at_the_top = {key: masks for key, masks in truth(CASES).items() if "/" not in key[0]}  # it reads one folder
    found = dict(zip(at_the_top, ious(seen, at_the_top), strict=True))
    assert found["nested.png", "building"] > 0.95


@peer("ultralytics")
def test_ultralytics(result: Result, tmp_path: Path) -> None:
    lost = write(result, tmp_path / "to", "yolo", with_images=True).report["lost"]
    folder = tmp_path / "to"
    seen = seen_by("ultralytics", tmp_path / "found.npz", folder / "data.yaml", tmp_path / "runs")
    found = ious(seen, as_yolo(truth(CASES)))
    assert np.mean(found) >= 0.995
    assert lost == {"masks whose parts are joined by lines": 1, "pixels of lines between parts": 4,
                    "masks of which small parts were left out": 2, "pixels in parts left out": 20}  # fmt: skip
    print(f"mean IoU {np.mean(found):.5f}, lowest {min(found):.4f}")
    ours = our_own("yolo", folder / "labels/train", folder / "images/train")
    assert np.mean(ious(ours, seen)) >= 0.995
    assert (tmp_path / "runs/train/weights/last.pt").exists()


@pytest.mark.parametrize("of", ["dev", "demo"])
@peer("ultralytics")
def test_ultralytics_of_real_masks(tmp_path: Path, of: str) -> None:
    folder = DEVELOPMENT if of == "dev" else DEMO
    if not folder.exists():
        pytest.skip(f"the development set is not there: {folder}")
    annotations = folder / ("gt.json" if of == "dev" else "coarse.json")
    result = make_result(tmp_path, photographs(folder, annotations))
    write(result, tmp_path / "to", "yolo", with_images=True)
    seen = seen_by("ultralytics", tmp_path / "found.npz", tmp_path / "to/data.yaml")
    found = ious(seen, truth(photographs(folder, annotations)))
    assert np.mean(found) >= 0.995
    print(f"{of}: {len(found)} masks, mean IoU {np.mean(found):.5f}, lowest {min(found):.4f}")


@pytest.mark.parametrize("name", [peer_case("label-studio-sdk"), peer_case("label-studio-converter")])
def test_label_studio(result: Result, tmp_path: Path, name: str) -> None:
    write(result, tmp_path / "to", "label-studio")
    seen = seen_by(name, tmp_path / "found.npz", tmp_path / "to/tasks.json")
    assert set(ious(seen, truth(CASES))) == {1.0}


@peer("datumaro")
def test_datumaro(result: Result, images: Path, tmp_path: Path) -> None:
    """In its layout: `annotations/` with the split in the file's name."""
    for form, file, wanted in (("coco", "instances", truth(CASES)), ("coco-panoptic", "panoptic", layered(CASES))):
        write(result, tmp_path / form, form, splits=(("val", 1.0),))
        shutil.move(tmp_path / form, tmp_path / file / "annotations")
        json_file = tmp_path / file / "annotations" / f"{file}_val.json"
        shutil.copytree(images, tmp_path / file / "images" / "val")
        seen = seen_by("datumaro", tmp_path / f"{file}.npz", json_file, f"coco_{file}")
        assert set(ious(seen, by_stem(wanted))) == {1.0}
    write(result, tmp_path / "cvat", "cvat")
    shutil.copytree(images, tmp_path / "cvat" / "images")
    seen = seen_by("datumaro", tmp_path / "cvat.npz", tmp_path / "cvat", "cvat")
    assert set(ious(seen, by_stem(truth(CASES)))) == {1.0}


@peer("fiftyone")
def test_fiftyone(result: Result, images: Path, tmp_path: Path) -> None:
    write(result, tmp_path / "coco", "coco")
    seen = seen_by("fiftyone", tmp_path / "found.npz", images, tmp_path / "coco/instances.json")
    assert set(ious(seen, truth(CASES))) == {1.0}
