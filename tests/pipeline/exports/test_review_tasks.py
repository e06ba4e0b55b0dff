"""Review tasks hold to the formats of the tools they are for, and to nothing beyond them.

Structure: closed schemas of what the tools document (labelstud.io/guide/task_format, /tags/brushlabels;
docs.cvat.ai, "XML annotation format" 1.1 and the labels of its API). Where the tools' own SDKs are installed, they
read the files too; no extra has them, since they pin other versions of OpenCV and Pillow than this project.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from pipeline.dataset import Result
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result, write

Json = dict[str, Any]

SIZE = (40, 60)
CAT = np.zeros(SIZE, np.uint8)
CAT[3:25, 4:22] = 1
CAT[8:12, 8:12] = 0
DOG = np.zeros(SIZE, np.uint8)
DOG[20:36, 30:55] = 1
DOG[0, 0] = 1
CLASSES = {'a "cat" & <co>': CAT, "dog": DOG}


def closed(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def listed(items: Json, at_least: int = 0) -> Json:
    return {"type": "array", "items": items, "minItems": at_least}


TEXT: Json = {"type": "string", "minLength": 1}
BYTE: Json = {"type": "integer", "minimum": 0, "maximum": 255}
SCORE: Json = {"type": "number", "minimum": 0, "maximum": 1}
PIXELS: Json = {"type": "integer", "minimum": 1}
REGION = closed(
    {
        "id": TEXT,
        "type": {"const": "brushlabels"},
        "from_name": {"const": "label"},
        "to_name": {"const": "image"},
        "original_width": PIXELS,
        "original_height": PIXELS,
        "image_rotation": {"const": 0},
        "score": SCORE,
        "meta": {"type": "object", "additionalProperties": listed(TEXT)},
        "value": closed({"format": {"const": "rle"}, "rle": listed(BYTE, 8), "brushlabels": listed(TEXT, 1)}),
    }
)
PREDICTION = closed({"model_version": TEXT, "score": SCORE, "result": listed(REGION)})
DATA = closed({"image": TEXT, "image_uri": TEXT, "image_id": TEXT})
TASKS = listed(closed({"data": DATA, "predictions": listed(PREDICTION, 1)}), 1)
ATTRIBUTE = closed(
    {
        "name": TEXT,
        "mutable": {"type": "boolean"},
        "input_type": {"enum": ["checkbox", "radio", "number", "text", "select"]},
        "default_value": {"type": "string"},
        "values": listed({"type": "string"}),
    }
)
LABELS = listed(closed({"name": TEXT, "type": {"const": "any"}, "attributes": listed(ATTRIBUTE)}), 1)
XML: dict[str, tuple[set[str], set[str]]] = {
    "annotations": (set(), {"version", "meta", "image"}),
    "version": (set(), set()),
    "meta": (set(), {"task"}),
    "task": (set(), {"labels"}),
    "labels": (set(), {"label"}),
    "label": (set(), {"name"}),
    "name": (set(), set()),
    "image": ({"id", "name", "width", "height"}, {"mask"}),
    "mask": ({"label", "source", "occluded", "rle", "left", "top", "width", "height", "z_order"}, {"attribute"}),
    "attribute": ({"name"}, set()),
}
"""Element -> its attributes, all required, and the elements it may hold."""


@pytest.fixture
def result(tmp_path: Path) -> Result:
    masks = [MaskCase(mask, number, name, 0.9) for number, (name, mask) in enumerate(CLASSES.items(), start=5)]
    return make_result(tmp_path, [ImageCase(f"{n} ü.png", SIZE, masks) for n in range(3)], shards=2)


def label_studio(result: Result, folder: Path) -> list[Json]:
    write(result, folder, "label-studio")
    tasks: list[Json] = json.loads((folder / "tasks.json").read_text())
    return tasks


def cvat(result: Result, folder: Path) -> tuple[ElementTree.Element, list[Json]]:
    write(result, folder, "cvat")
    labels: list[Json] = json.loads((folder / "labels.json").read_text())
    return ElementTree.parse(folder / "annotations.xml").getroot(), labels


def test_label_studio_tasks(result: Result, tmp_path: Path) -> None:
    tasks = label_studio(result, tmp_path / "to")
    Draft202012Validator(TASKS).validate(tasks)
    config = ElementTree.parse(tmp_path / "to" / "label_config.xml").getroot()
    tags = {tag.attrib["name"]: tag for tag in config.iter() if "name" in tag.attrib}
    assert config.tag == "View"
    assert {name: tag.tag for name, tag in tags.items()} == {
        "image": "Image",
        "label": "BrushLabels",
        "crowd": "Choices",
    }
    assert tags["image"].attrib["value"] == "$image"
    assert tags["label"].attrib["toName"] == "image"
    assert [label.attrib["value"] for label in tags["label"]] == list(CLASSES)
    tasks[0]["predictions"][0]["result"][0]["value"]["rle"][0] = 256
    assert list(Draft202012Validator(TASKS).iter_errors(tasks))


def xml_errors(element: ElementTree.Element) -> list[str]:
    attributes, inside = XML[element.tag]
    errors = (
        [f"{element.tag}: attributes {set(element.attrib) ^ attributes}"] if set(element.attrib) != attributes else []
    )
    for child in element:
        errors += xml_errors(child) if child.tag in inside else [f"{element.tag} holds {child.tag}"]
    return errors


def test_cvat_annotations(result: Result, tmp_path: Path) -> None:
    root, labels = cvat(result, tmp_path / "to")
    assert xml_errors(root) == []
    assert root.findtext("version") == "1.1"
    Draft202012Validator(LABELS).validate(labels)
    known = {label["name"]: {attribute["name"] for attribute in label["attributes"]} for label in labels}
    assert list(known) == list(CLASSES) == [name.text for name in root.findall("meta/task/labels/label/name")]
    masks = list(root.iter("mask"))
    assert len(masks) == 6
    for mask in masks:
        assert {attribute.attrib["name"] for attribute in mask} == known[mask.attrib["label"]]
        runs = [int(run) for run in mask.attrib["rle"].split(",")]
        assert sum(runs) == int(mask.attrib["width"]) * int(mask.attrib["height"])
        assert min(runs[1:]) > 0
    masks[0].attrib.pop("z_order")
    assert xml_errors(root)


def test_label_studios_own_code_takes_the_tasks(result: Result, tmp_path: Path) -> None:
    reason = "label-studio-sdk is not installed: it pins OpenCV and Pillow"
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason=reason)
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason=reason)
    tasks = label_studio(result, tmp_path / "to")
    config = interface.LabelInterface((tmp_path / "to" / "label_config.xml").read_text())
    config.validate()
    for task in tasks:
        assert config.validate_task({"data": task["data"]})
        [prediction] = task["predictions"]
        assert config.validate_prediction(prediction, return_errors=True) == []
        for region in prediction["result"]:
            pixels = brush.decode_rle(region["value"]["rle"]).reshape(*SIZE, 4)[..., 3]
            assert np.array_equal(pixels, 255 * CLASSES[region["value"]["brushlabels"][0]])


def test_cvats_own_code_takes_labels_and_masks(result: Result, tmp_path: Path) -> None:
    reason = "cvat-sdk is not installed: it pins Pillow"
    models = pytest.importorskip("cvat_sdk.models", reason=reason)
    coded = pytest.importorskip("cvat_sdk.masks", reason=reason)
    root, labels = cvat(result, tmp_path / "to")
    for label in labels:
        attributes = [models.AttributeRequest(**attribute) for attribute in label["attributes"]]
        models.PatchedLabelRequest(**{**label, "attributes": attributes})
    for mask in root.iter("mask"):
        left, top, width, height = (int(mask.attrib[key]) for key in ("left", "top", "width", "height"))
        runs = [int(run) for run in mask.attrib["rle"].split(",")]
        points = [*runs, left, top, left + width - 1, top + height - 1]  # CVAT's form of the same in its API
        pixels = coded.decode_mask(points, image_width=SIZE[1], image_height=SIZE[0])
        assert np.array_equal(pixels, CLASSES[mask.attrib["label"]].astype(bool))


def test_datumaro_reads_the_cvat_annotations(result: Result, tmp_path: Path) -> None:
    """A library that reads CVAT's archives, photographs and annotations together."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed: it pins OpenCV and NumPy")
    cvat(result, tmp_path / "to")
    shutil.copytree(tmp_path / "images", tmp_path / "to" / "images")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "to" / "annotations.xml"), "cvat")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    assert names == list(CLASSES)
    assert sorted(item.id for item in dataset) == [f"{n} ü" for n in range(3)]
    for item in dataset:
        found = {names[one.label]: one.image for one in item.annotations if one.type.name == "mask"}
        assert found.keys() == CLASSES.keys()
        assert all(np.array_equal(pixels, CLASSES[name]) for name, pixels in found.items())
