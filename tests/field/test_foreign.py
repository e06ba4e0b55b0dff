"""Formats of tools that no source reads: one line says which, and what to do; and names that they share with others."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.sources import detect, png
from pipeline.sources.coco import LEAVING
from tests.field.test_cells import FIRST, SECOND, parquet
from tests.field.world import RING, coco, encoded, put, put_images, run, square

RLE = binary.encode(square())
POINTS = [{"x": 24, "y": 16}, {"x": 72, "y": 16}, {"x": 72, "y": 48}]
REGION = {"shape_attributes": {"name": "polygon", "all_points_x": [1], "all_points_y": [2]}, "region_attributes": {}}
VIA = {"a.jpg12": {"filename": "a.jpg", "size": 12, "regions": [REGION], "file_attributes": {}}}
ROW = {"data_row": {"external_id": "a.jpg"}, "media_attributes": {}, "projects": {}}
DOCUMENTS: dict[str, Any] = {
    "VIA": VIA,
    "VIA (a project)": {"_via_settings": {}, "_via_img_metadata": VIA, "_via_attributes": {}},
    "Labelbox": [ROW],
    "Labelbox (old)": [{"ID": "x", "External ID": "a.jpg", "Labeled Data": "https://x", "Label": {"objects": []}}],
    "Darwin": {"item": {"name": "a.jpg", "slots": []}, "annotations": [{"polygon": {"paths": [POINTS]}}]},
    "CreateML": [{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 2}}]}],
    "BDD100K": [{"name": "a.jpg", "labels": [{"id": "0", "category": "car", "rle": RLE}]}],
    "SuperAnnotate": {"metadata": {"name": "a.jpg"}, "instances": [{"type": "polygon", "points": RING}], "tags": []},
    "VoTT": {"name": "p", "assets": {"1": {"asset": {"name": "a.jpg"}, "regions": []}}},
    "FiftyOne": {"classes": ["cat"], "labels": {"a": [{"label": "cat", "points": [[0.2, 0.2]]}]}},
    "Datumaro": {"info": {}, "categories": {"label": {}}, "items": [{"id": "a", "annotations": []}]},
    "Segments.ai": {"name": "u/d", "dataset": {"samples": []}},
    "Hasty": {"project_name": "p", "label_classes": [{"class_name": "cat"}], "images": [{"image_name": "a.jpg"}]},
    "YouTube-VIS": {"videos": [{"id": 1, "file_names": ["a.jpg"]}], "annotations": [{"segmentations": [RLE]}]},
    "SA-V": {"video_id": "sav_1", "masklet": [[RLE]], "masklet_id": [0]},
    "ISAT": {
        "info": {"description": "ISAT", "name": "a.jpg"},
        "objects": [{"category": "cat", "segmentation": POINTS}],
    },
    "EISeg": [{"name": "cat", "labelIdx": 1, "color": [1, 2, 3], "points": POINTS}],
    "Kili": [{"externalId": "a.jpg", "content": "x", "labels": [{"jsonResponse": {}}]}],
    "Encord": [{"label_hash": "x", "data_title": "a.jpg", "data_units": {}}],
    "detectron2": [{"file_name": "a.jpg", "image_id": 1, "annotations": [{"bbox": [1, 2, 3, 4], "bbox_mode": 0}]}],
    "SAM": [{"segmentation": RLE, "area": 1536, "predicted_iou": 0.9, "crop_box": [0, 0, 1, 1]}],
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_other_tools_are_named(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "masks" / "a.json", DOCUMENTS[name])
    for given in (path, path.parent):
        with pytest.raises(RefusedError, match=r"which no source reads: ") as refused:
            detect(str(given))
        assert name.partition(" (")[0] in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.pkl", "pickles"),
        ("a.pth", "pickles"),
        ("a.nii.gz", "volumes"),
        ("a.dcm", "volumes"),
        ("a.mat", "MATLAB"),
        ("a.tfrecord", "TensorFlow"),
        ("a.ndjson", "Labelbox"),
        ("data.mdb", "LMDB"),
        ("a.arrow", "Parquet"),
        ("a.zip", "unpack"),
    ],
)
def test_files_of_other_tools_are_named_and_never_loaded(tmp_path: Path, name: str, said: str) -> None:
    path = put(tmp_path / "masks" / name, pickle.dumps(Loaded()))
    for given in (path, path.parent):
        with pytest.raises(RefusedError) as refused:
            detect(str(given))
        assert said in str(refused.value) or given == path


class Loaded:
    """Fails the test when it is loaded from a pickle."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


LINES = {
    "KITTI": "Car 0.00 0 -1.58 24 16 72 48 1.5 1.6 3.6 1 2 3 0.1\n",
    "DOTA": "imagesource:GoogleEarth\ngsd:0.1\n24 16 72 16 72 48 24 48 plane 0\n",
    "commas": "0,0.25,0.25,0.75,0.25,0.75,0.75\n",
}


@pytest.mark.parametrize("name", LINES)
def test_labels_that_are_none_of_yolo_are_named(tmp_path: Path, name: str) -> None:
    put(tmp_path / "labels" / "a.txt", LINES[name])
    with pytest.raises(RefusedError, match=name):
        detect(str(tmp_path / "labels"))


def test_tables_of_other_tools_are_named(tmp_path: Path) -> None:
    via = put(tmp_path / "via.csv", "filename,file_size,region_shape_attributes\na.jpg,1,{}\n")
    with pytest.raises(RefusedError, match="VIA"):
        detect(str(via))
    other = put(tmp_path / "other.csv", "name,points\na.jpg,1\n")
    with pytest.raises(RefusedError, match=r"its columns are name, points; .* metadata\.jsonl or metadata\.csv"):
        detect(str(other))
    with pytest.raises(RefusedError, match=r"metadata\.jsonl"):
        detect(str(put(tmp_path / "train.jsonl", json.dumps({"file_name": "a.jpg"}))))


def test_a_folder_with_coco_in_it_names_the_file(tmp_path: Path) -> None:
    """As Roboflow exports it: each split's images, and the file of their annotations beside them."""
    for split in ("train", "valid"):
        put_images(tmp_path / split, f"{split}.jpg")
        put(tmp_path / split / "_annotations.coco.json", coco({"file_name": f"{split}.jpg"}))
    with pytest.raises(RefusedError, match=r"name it, --masks .*/train/_annotations\.coco\.json"):
        detect(str(tmp_path), images_uri=str(tmp_path))
    run(tmp_path / "train", tmp_path / "train" / "_annotations.coco.json", tmp_path / "out").only()


def test_a_mask_folder_of_sams_generator_is_read(tmp_path: Path) -> None:
    """Its `metadata.csv` is no metadata of images."""
    put_images(tmp_path / "images", "a.jpg")
    for number, pixels in enumerate((FIRST, SECOND)):
        put(tmp_path / "masks" / "a" / f"{number}.png", encoded(pixels * 255))
    put(tmp_path / "masks" / "a" / "metadata.csv", "id,area,bbox_x0,predicted_iou\n0,1536,24,0.9\n1,160,4,0.9\n")
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert [row["area"] for row in outcome.masks] == [FIRST.sum(), SECOND.sum()]
    assert outcome.said("unread") == {"this format reads images only": ["a/metadata.csv"]}


@pytest.mark.parametrize("folders", [("instances", "labels"), ("instance", "semantic")])
def test_folders_of_instances_and_classes_are_not_mixed(tmp_path: Path, folders: tuple[str, str]) -> None:
    put_images(tmp_path / "images", "a.jpg")
    ids = np.where(FIRST, 769, np.where(SECOND, 1793, 0)).astype(np.uint16)
    for name in folders:
        put(tmp_path / "masks" / name / "a.png", encoded(ids))
    with pytest.raises(RefusedError, match="name one of them"):
        detect(str(tmp_path / "masks"), images_uri=str(tmp_path / "images"))
    outcome = run(tmp_path / "images", tmp_path / "masks" / folders[0], tmp_path / "out")
    assert [row["category_id"] for row in outcome.masks] == [1793, 769]
    assert outcome.said("odd") == {png.LARGE_VALUES: ["a.png"]}


def test_masks_count_before_words(tmp_path: Path) -> None:
    """The full ADE20K of Hugging Face: `objects` says what stands in `instances`, image by image."""
    row = {"objects": [{"id": 0, "name": "wall", "parts": {"level": 0}}], "instances": [encoded(FIRST * 255)]}
    outcome = run(None, parquet(tmp_path / "p", row), tmp_path / "out")
    assert (binary.decode(outcome.only()["mask_rle"]) == FIRST).all()
    [said] = outcome.said("unread")
    assert said.startswith("the masks are read from instances")


def test_class_maps_of_roboflow_have_the_names_beside_them(tmp_path: Path) -> None:
    put_images(tmp_path / "train", "a.jpg")
    put(tmp_path / "train" / "a_mask.png", encoded((3 * FIRST + 7 * SECOND).astype(np.uint8)))
    put(tmp_path / "train" / "_classes.csv", "Pixel Value, Class\n0, background\n3, cat\n7, dog\n")
    outcome = run(tmp_path / "train", tmp_path / "train", tmp_path / "out")
    assert outcome.source == "class-maps"
    assert [(row["category_id"], row["category"]) for row in outcome.masks] == [(3, "cat"), (7, "dog")]
    assert outcome.scan["unread"] == 0


@pytest.mark.parametrize("ring", [[0.25, 0.25, 0.75, 0.25, 0.75, 0.75], [0.0, 0.0, 1.0, 0.0, 0.9, 1.0]])
def test_polygons_in_shares_are_no_pixels(tmp_path: Path, ring: list[float]) -> None:
    put_images(tmp_path / "images", "a.jpg")
    file = coco(
        {"file_name": "a.jpg"}, annotations=[{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring]}]
    )
    row = run(tmp_path / "images", put(tmp_path / "a.json", file), tmp_path / "out").only()
    assert row["reason"] == "mask_unreadable"
    assert "shares" in row["detail"]


@pytest.mark.parametrize(
    ("box", "told"), [([60, 20, 90, 60], True), ([60, 20, 36, 44], False), ([60, 20, 37, 45], False)]
)
def test_boxes_of_coco_that_leave_their_images_are_told(tmp_path: Path, box: list[int], told: bool) -> None:
    put_images(tmp_path / "images", "a.jpg")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": box}
    file = put(tmp_path / "a.json", coco({"file_name": "a.jpg"}, annotations=[annotation]))
    outcome = run(tmp_path / "images", file, tmp_path / "out")
    assert (LEAVING in outcome.said("odd")) == told


def test_results_with_fields_of_other_tools_are_results(tmp_path: Path) -> None:
    one = {"image_id": "a", "category_id": 1, "bbox": [24, 16, 48, 32], "name": "cat", "labels": "x"}
    put_images(tmp_path / "images", "a.jpg")
    assert run(tmp_path / "images", put(tmp_path / "r.json", [one]), tmp_path / "out").source == "coco-results"
