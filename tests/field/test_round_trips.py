"""COCO's, LVIS's and COCO panoptic's own kinds of files, in with `--refiner none` and out again: nothing changes.

Nothing but what drawing makes of polygons: `area` and `bbox` are those of pixels, `segmentation` is RLE.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipeline.masks import binary
from tests.conftest import Cli
from tests.field.world import SIZE_HW, photograph, put, run, square
from tests.pipeline.exports.results import write

Row = dict[str, Any]
HEIGHT, WIDTH = SIZE_HW
DRAWN = {"segmentation", "area", "bbox"}
"""Compared by pixels."""
INFO = {"description": "COCO 2017 Dataset", "year": 2017, "version": "1.0", "contributor": "COCO Consortium"}
LICENSES = [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1, "name": "by-nc-sa"}]
TRIANGLE, PART = [10.5, 10.25, 40.0, 12.75, 20.0, 50.5], [60.0, 5.0, 90.5, 5.0, 90.5, 30.0, 60.0, 30.0]


def image(number: int, name: str) -> Row:
    return {
        "license": 1,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/val2017/{name}",
        "height": HEIGHT,
        "width": WIDTH,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": "http://farm7.staticflickr.com/6116/x_z.jpg",
        "id": number,
    }


def annotation(number: int, of: int, category: int, segmentation: Any, **more: Any) -> Row:
    return {"segmentation": segmentation, "image_id": of, "category_id": category, "id": number, **more}


def counts(pixels: np.ndarray) -> Row:
    return {"counts": binary.run_lengths(binary.encode(pixels)["counts"]), "size": list(SIZE_HW)}


IMAGES = [image(139, "000000000139.jpg"), image(285, "000000000285.jpg"), image(581929, "000000581929.jpg")]
COCO: Row = {
    "info": INFO,
    "licenses": LICENSES,
    "images": IMAGES,
    "annotations": [
        annotation(900100448263, 139, 1, counts(square()), iscrowd=1),
        annotation(1717, 139, 1, [TRIANGLE, PART], iscrowd=0, attributes={"occluded": True}),
        annotation(156, 139, 90, [PART], iscrowd=0, num_keypoints=0),
        annotation(47, 285, 23, [TRIANGLE], iscrowd=0),
    ],
    "categories": [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "animal", "id": 23, "name": "bear"},
        {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
        {"supercategory": "food", "id": 53, "name": "apple"},
    ],
}
SYNSETS = [
    {
        "id": 1,
        "name": "aerosol_can",
        "synset": "aerosol.n.02",
        "synonyms": ["aerosol_can", "spray_can"],
        "def": "a can",
    },
    {
        "id": 3,
        "name": "airplane",
        "synset": "airplane.n.01",
        "synonyms": ["airplane", "aeroplane"],
        "def": "an aircraft",
    },
    {"id": 1203, "name": "zucchini", "synset": "zucchini.n.02", "synonyms": ["zucchini"], "def": "a squash"},
]
FREQUENCIES = [("c", 64, 109), ("f", 1962, 2000), ("r", 7, 9)]
LVIS: Row = {
    "info": INFO,
    "licenses": LICENSES,
    "images": [
        {**of, "neg_category_ids": [3], "not_exhaustive_category_ids": [1] * (of["id"] == 139)} for of in IMAGES
    ],
    "annotations": [annotation(1, 139, 1, [TRIANGLE, PART]), annotation(2, 285, 1203, [TRIANGLE])],
    "categories": [
        {**one, "frequency": often, "image_count": images, "instance_count": instances}
        for one, (often, images, instances) in zip(SYNSETS, FREQUENCIES, strict=True)
    ],
}


def there_and_back(folder: Path, content: Row, source: str, to: str) -> tuple[Row, Row]:
    """The file that comes out, and the export's report."""
    for one in content["images"]:
        put(folder / "images" / one["file_name"], photograph())
    outcome = run(folder / "images", put(folder / "in.json", content), folder / "out", source)
    report = write(outcome.result, folder / "to", to).report
    [path] = [name for name in report["files"] if name.endswith(".json")]
    return json.loads((folder / "to" / path).read_text()), report


def by_id(rows: list[Row]) -> dict[int, Row]:
    return {row["id"]: row for row in rows}


def pixels(segmentation: Any) -> np.ndarray:
    """As pycocotools draws it."""
    if isinstance(segmentation, list):
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, *SIZE_HW)))
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *SIZE_HW)
    return coco_mask.decode(segmentation)


def check(found: Row, content: Row) -> None:
    """Nothing has changed but what is drawn, and that not in its pixels."""
    for part in ("info", "licenses"):
        assert found[part] == content[part]
    assert by_id(found["categories"]) == by_id(content["categories"])
    assert by_id(found["images"]) == by_id(content["images"])
    rows = by_id(found["annotations"])
    assert rows.keys() == by_id(content["annotations"]).keys()
    for before in content["annotations"]:
        after = rows[before["id"]]
        assert {key: after[key] for key in before.keys() - DRAWN} == {key: before[key] for key in before.keys() - DRAWN}
        assert np.array_equal(pixels(after["segmentation"]), pixels(before["segmentation"]))
        assert after["area"] == pixels(before["segmentation"]).sum()


@pytest.mark.parametrize(("content", "form"), [(COCO, "coco"), (LVIS, "lvis")], ids=["coco", "lvis"])
def test_instances(tmp_path: Path, content: Row, form: str) -> None:
    found, report = there_and_back(tmp_path, content, form, form)
    assert report["lost"] == {}
    check(found, content)


@pytest.mark.slow
def test_instances_by_the_commands(tmp_path: Path, relabel: Cli) -> None:
    for one in COCO["images"]:
        put(tmp_path / "images" / one["file_name"], photograph())
    given = ["--images", tmp_path / "images", "--masks", put(tmp_path / "in.json", COCO), "--output", tmp_path / "out"]
    done = relabel("run", *given, "--refiner", "none")
    assert done.returncode == 0, done.stderr
    done = relabel("export", tmp_path / "out", "--format", "coco", "--to", tmp_path / "to")
    assert done.returncode == 0, done.stderr
    check(json.loads((tmp_path / "to/instances.json").read_text()), COCO)


def panoptic_file(folder: Path) -> Row:
    """Ids as COCO has them, which are colours; a crowd; an image of which nothing is known."""
    for one in IMAGES:
        put(folder / "images" / one["file_name"], photograph())
    segments, annotations = {3226956: (square(), 1, 0), 6979964: (square((64, 96), (50, 64, 0, 96)), 149, 0)}, []
    segments[2171169] = (square((64, 96), (0, 10, 0, 20)), 1, 1)
    for number, one in enumerate(IMAGES):
        ids, infos = np.zeros(SIZE_HW, np.uint32), []
        for segment, (where, category, crowd) in list(segments.items())[: 3 - number] if number < 2 else ():
            ids[where > 0] = segment
            infos.append({"id": segment, "category_id": category, "iscrowd": crowd, "area": int(where.sum())})
            infos[-1]["bbox"] = [int(side) for side in binary.bbox_xywh(binary.encode(where))]
        name = one["file_name"].replace(".jpg", ".png")
        put(folder / "in" / name, np.stack([ids % 256, ids // 256 % 256, ids // 65536], 2).astype(np.uint8))
        annotations.append({"segments_info": infos, "file_name": name, "image_id": one["id"]})
    categories = [
        {"supercategory": "person", "isthing": 1, "id": 1, "name": "person"},
        {"supercategory": "ground", "isthing": 0, "id": 149, "name": "road"},
        {"supercategory": "food", "isthing": 1, "id": 53, "name": "apple"},
    ]
    parts = {"info": INFO, "licenses": LICENSES, "images": IMAGES, "annotations": annotations, "categories": categories}
    put(folder / "in.json", parts)
    return parts


def test_panoptic(tmp_path: Path) -> None:
    content = panoptic_file(tmp_path)
    found, report = there_and_back(tmp_path, content, "coco-panoptic", "coco-panoptic")
    assert report["lost"] == {}
    assert by_id(found["categories"]) == by_id(content["categories"])
    assert by_id(found["images"]) == by_id(content["images"])
    before, after = ({one["image_id"]: one for one in part["annotations"]} for part in (content, found))
    assert after.keys() == before.keys()
    for image_id, one in before.items():
        assert after[image_id]["file_name"] == one["file_name"]
        segments = by_id(after[image_id]["segments_info"])
        assert segments.keys() == by_id(one["segments_info"]).keys()
        for segment in one["segments_info"]:
            assert {key: segments[segment["id"]][key] for key in segment} == segment
        same = [(tmp_path / folder / one["file_name"]) for folder in ("in", "to/panoptic")]
        assert np.array_equal(*(np.asarray(Image.open(path)) for path in same))


def test_ids_that_are_no_numbers_stand_beside_the_numbers(tmp_path: Path) -> None:
    content = {
        **COCO,
        "images": [{**IMAGES[0], "id": "000139"}],
        "annotations": [annotation("a1", "000139", 1, [PART])],
    }
    found, _ = there_and_back(tmp_path, content, "coco", "coco")
    assert (found["images"][0]["id"], found["images"][0]["source_image_id"]) == (1, "000139")
    assert found["annotations"][0]["source_mask_id"] == "a1"
