"""The tools that the formats are for open what was exported, and see the same pixels."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipeline.dataset import Result
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result, write

SIZE = (40, 60)
CAT = np.zeros(SIZE, np.uint8)
CAT[3:25, 4:22] = 1
DOG = np.zeros(SIZE, np.uint8)
DOG[20:36, 30:55] = 1
CLASSES = {"cat": CAT, "dog": DOG}


@pytest.fixture
def result(tmp_path: Path) -> Result:
    masks = [MaskCase(CAT, 5, "cat", 0.9), MaskCase(DOG, 9, "dog", 0.7)]
    return make_result(tmp_path, [ImageCase(f"{n}.png", SIZE, masks) for n in range(5)], shards=2)


def test_hugging_face_datasets(result: Result, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write(result, tmp_path / "hf", "huggingface", with_images=True, splits=(("train", 0.5), ("val", 0.5)))
    loaded = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    rows = [row for split in loaded.values() for row in split]
    assert {*loaded} <= {"train", "val"}
    assert len(rows) == 5
    for row in rows:
        assert row["image"].size == (60, 40)
        for found in row["objects"]:
            assert np.array_equal(coco_mask.decode(found["segmentation"]), CLASSES[found["category"]])
    streamed = datasets.load_dataset(str(tmp_path / "hf"), streaming=True, split=next(iter(loaded)))
    assert next(iter(streamed))["objects"][0]["quality"] == pytest.approx(0.9)


def test_webdataset(result: Result, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    write(result, tmp_path / "tars", "webdataset", with_images=True)
    urls = sorted(str(path) for path in (tmp_path / "tars").glob("*.tar"))
    assert len(urls) == 2
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(samples) == 5
    for sample in samples:
        assert sample["png"].shape == (*SIZE, 3)
        for annotation in sample["json"]["annotations"]:
            assert np.array_equal(coco_mask.decode(annotation["segmentation"]), CLASSES[annotation["category"]])


def test_supervision_reads_yolo(result: Result, tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    write(result, tmp_path / "yolo", "yolo", with_images=True)
    folder = tmp_path / "yolo"
    found = supervision.DetectionDataset.from_yolo(
        str(folder / "images" / "train"), str(folder / "labels" / "train"), str(folder / "data.yaml"), force_masks=True
    )
    assert found.classes == ["cat", "dog"]
    assert len(found) == 5
    for _, _, detections in found:
        for mask, class_id in zip(detections.mask, detections.class_id, strict=True):
            truth = CLASSES[found.classes[class_id]].astype(bool)
            assert (mask & truth).sum() / (mask | truth).sum() > 0.85  # it draws the outline's pixels too


def test_lvis_reads_its_json(result: Result, tmp_path: Path) -> None:
    lvis = pytest.importorskip("lvis", reason="the lvis package is not installed: it needs OpenCV with a display")
    write(result, tmp_path / "to", "lvis", where="category = 'cat'")
    api = lvis.LVIS(str(tmp_path / "to" / "lvis.json"))
    annotations = api.load_anns(api.get_ann_ids())
    assert len(annotations) == 5
    assert all(np.array_equal(api.ann_to_mask(annotation), CAT) for annotation in annotations)
    assert all(image["not_exhaustive_category_ids"] == [9] for image in api.load_imgs(api.get_img_ids()))
    assert {cat["name"]: cat["frequency"] for cat in api.load_cats(api.get_cat_ids())} == {"cat": "r", "dog": "r"}


def test_panoptic_pngs_hold_the_segments_that_the_json_names(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "to", "coco-panoptic")
    content = json.loads((tmp_path / "to" / "panoptic.json").read_text())
    for annotation in content["annotations"]:
        packed = np.asarray(Image.open(tmp_path / "to" / "panoptic" / annotation["file_name"])).astype(int)
        ids = packed @ np.array([1, 256, 65536])
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in annotation["segments_info"]}
        for segment in annotation["segments_info"]:
            assert (ids == segment["id"]).sum() == segment["area"]


def test_photographs_in_containers_are_exported(tmp_path: Path, result: Result) -> None:
    """A result whose images lie in tars: what `webdataset` wrote, planned and exported again."""
    write(result, tmp_path / "tars", "webdataset", with_images=True)
    [first, *_] = sorted((tmp_path / "tars").glob("*.tar"))
    name = f"{first.name}#000000000001.png"
    again = make_result(tmp_path / "again", [ImageCase("x.png", SIZE, [MaskCase(CAT)])])
    moved = Result(again.store, again.manifest.model_copy(update={"images_root": str(tmp_path / "tars")}))
    [path] = again.files("images")
    table = again.store.read_parquet(path)
    uri = table.schema.get_field_index("image_uri")
    again.store.put_parquet(path, table.set_column(uri, "image_uri", [[name]]))
    write(moved, tmp_path / "yolo", "yolo", with_images=True)
    [photo] = (tmp_path / "yolo" / "images").rglob("*.png")
    assert photo.relative_to(tmp_path / "yolo" / "images" / "train").as_posix() == name.replace("#", "/")
    assert Image.open(io.BytesIO(photo.read_bytes())).size == (60, 40)


def test_missing_photographs_are_left_out_and_counted(result: Result, tmp_path: Path) -> None:
    (tmp_path / "images" / "3.png").unlink()
    counts = write(result, tmp_path / "to", "webdataset", with_images=True).report["counts"]
    assert counts == {"images": 4, "masks": 8, "left out: images: image_missing": 1}
