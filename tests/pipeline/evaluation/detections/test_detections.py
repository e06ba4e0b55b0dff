"""Detections in the real formats (COCO and LVIS instances, COCO results), against pycocotools and by hand."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from jobs.evaluate import evaluate
from pipeline.errors import RefusedError
from pipeline.evaluation.detections import annotations, compare
from pipeline.evaluation.detections.precision import average_precision
from pipeline.masks import binary
from pipeline.storage import Access
from tests.results import mask_row, write_result

HEIGHT, WIDTH, IMAGES = 60, 80, 6
AS_CONFIGURED = Access()

app = typer.Typer()
app.command()(evaluate)

Row = dict[str, Any]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def disc(number: int, radius: int = 14) -> np.ndarray:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    return cv2.circle(canvas, (25 + 5 * number, 28), radius, 1, -1)


def polygons(mask: np.ndarray) -> list[list[float]]:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour.ravel().astype(float).tolist() for contour in contours]


def instances(masks: list[np.ndarray], first_id: int = 100, **of_images: Any) -> Row:
    """As COCO's instances_val2017.json: polygons, areas, boxes; 0.jpg has a crowd too, as uncompressed RLE."""
    images = [
        {"id": 1000 + n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH, **of_images} for n in range(IMAGES)
    ]
    entries: list[Row] = [
        {"id": first_id + n, "image_id": 1000 + n, "category_id": 1 + n % 2, "segmentation": polygons(mask)}
        for n, mask in enumerate(masks)
    ]
    entries.append({"id": first_id + 99, "image_id": 1000, "category_id": 1, "iscrowd": 1, "segmentation": crowd()})
    for entry in entries:
        rle = binary.from_segmentation(entry["segmentation"], (HEIGHT, WIDTH))
        entry |= {"area": float(binary.area(rle)), "bbox": binary.bbox_xywh(rle), "iscrowd": entry.get("iscrowd", 0)}
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]
    return {"images": images, "annotations": entries, "categories": categories}


def crowd() -> Row:
    """The last ten columns."""
    return {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * (WIDTH - 10), HEIGHT * 10]}


def results(masks: list[np.ndarray], scores: list[float] | None = None, first_image: int = 1000) -> list[Row]:
    """As detectors write them."""
    return [
        {
            "image_id": first_image + n,
            "category_id": 1 + n % 2,
            "segmentation": binary.encode(mask),
            "score": scores[n] if scores else 0.9 - n / 100,
        }
        for n, mask in enumerate(masks)
    ]


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def noisy(random: np.random.Generator) -> list[Row]:
    """Three detections an image of other sizes, and one in the crowd."""
    found = [one for _ in range(3) for one in results([disc(n, int(random.integers(9, 18))) for n in range(IMAGES)])]
    for one in found:
        one["score"] = float(random.random())
    in_crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    in_crowd[10:30, WIDTH - 8 :] = 1
    return [*found, {"image_id": 1000, "category_id": 1, "segmentation": binary.encode(in_crowd), "score": 0.99}]


def by_pycocotools(truth: str, found: list[Row]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(truth)
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


def test_mask_ap_is_that_of_pycocotools(tmp_path: Path) -> None:
    truth = write(tmp_path / "instances.json", instances([disc(n) for n in range(IMAGES)]))
    found = noisy(np.random.default_rng(0))
    annotated = annotations.of_coco(truth, AS_CONFIGURED)
    own = annotations.detections(write(tmp_path / "found.json", found), annotated.images, AS_CONFIGURED)
    figures = average_precision(annotated, own.found, annotated.images, bounded=False)
    expected = by_pycocotools(truth, found)
    assert 0.1 < expected[0] < 0.9
    wanted = [float("nan") if value == -1 else value for value in expected]
    assert list(figures.values()) == pytest.approx(wanted, nan_ok=True)


def test_boundary_ap_takes_the_lesser_overlap(tmp_path: Path) -> None:
    """A disc that is one pixel too wide: mask IoU 0.87, boundary IoU 0.5; in a crowd the mask alone counts."""
    truth = write(tmp_path / "instances.json", instances([disc(n, 20) for n in range(IMAGES)]))
    annotated = annotations.of_coco(truth, AS_CONFIGURED)
    found = results([disc(n, 21) for n in range(IMAGES)])
    in_crowd = {
        **found[0],
        "segmentation": binary.encode(np.pad(np.ones((HEIGHT, 9), np.uint8), ((0, 0), (WIDTH - 9, 0)))),
    }
    file = write(tmp_path / "found.json", [*found, {**in_crowd, "score": 1.0}])
    own = annotations.detections(file, annotated.images, AS_CONFIGURED)
    mask, boundary = (average_precision(annotated, own.found, annotated.images, bounded) for bounded in (False, True))
    truth_mask = binary.decode(binary.from_segmentation(polygons(disc(1, 20)), (HEIGHT, WIDTH)))
    overlaps = [binary.iou(truth_mask, disc(1, 21)), binary.boundary_iou(truth_mask, disc(1, 21))]
    assert overlaps[1] < overlaps[0] - 0.2
    at = [sum(threshold <= overlap for threshold in np.linspace(0.5, 0.95, 10)) / 10 for overlap in overlaps]
    assert (mask["ap"], boundary["ap"]) == pytest.approx(at)


def lvis(tmp_path: Path, **of_images: Any) -> annotations.Annotations:
    content = instances([disc(n) for n in range(IMAGES)], **of_images)
    content["annotations"] = [one for one in content["annotations"] if not one.pop("iscrowd")]
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}"
    return annotations.of_coco(write(tmp_path / "lvis.json", content), AS_CONFIGURED)


def test_lvis_says_which_classes_count(tmp_path: Path) -> None:
    """A second detection is false where its class was looked for, and all of its objects are annotated."""
    drawn = [binary.decode(binary.from_segmentation(polygons(disc(n)), (HEIGHT, WIDTH))) for n in range(IMAGES)]
    found = results(drawn)
    wrong = [{**one, "category_id": 3 - one["category_id"], "score": 0.95} for one in found]
    twice = [{**one, "segmentation": binary.encode(disc(0, 8)), "score": 0.96} for one in found]

    def ap(extra: list[Row], **of_images: Any) -> float:
        annotated = lvis(tmp_path, **of_images)
        own = annotations.detections(write(tmp_path / "f.json", [*found, *extra]), annotated.images, AS_CONFIGURED)
        return float(average_precision(annotated, own.found, annotated.images, bounded=False)["ap"])

    assert (
        annotations.Image("0.jpg", (HEIGHT, WIDTH), frozenset()) == lvis(tmp_path, neg_category_ids=[]).images["1000"]
    )
    assert ap([], neg_category_ids=[]) == pytest.approx(1)
    assert ap(wrong, neg_category_ids=[]) == pytest.approx(1)
    assert ap(wrong, neg_category_ids=[1, 2]) < 0.7
    assert ap(wrong) < 0.7
    assert ap(twice, neg_category_ids=[]) < 0.7
    assert ap(twice, neg_category_ids=[], not_exhaustive_category_ids=[1, 2]) == pytest.approx(1)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Labels 3 pixels too wide; a truth with ids of its own and `source_id`; two detectors, each trained on one."""
    wide, true = ([disc(n, radius) for n in range(IMAGES)] for radius in (17, 14))
    truth = instances(true, first_id=500_000)
    for number, one in enumerate(truth["annotations"]):
        one |= {"source": "coco" if number else "lvis", "source_id": one["id"] - 500_000 + 100}
    write(tmp_path / "instances_val2017.json", instances(wide))
    write(tmp_path / "instances_valrem.json", truth)
    write(tmp_path / "rough.json", results(wide))
    write(tmp_path / "exact.json", results([disc(n, 15) for n in range(IMAGES)]))
    return tmp_path


def evaluated(files: Path, *more: str, predictions: str = "instances_val2017.json") -> tuple[str, Row]:
    detectors = ("--detections", str(files / "rough.json"), "--detections", str(files / "exact.json"))
    given = ("--predictions", str(files / predictions), "--ground-truth", str(files / "instances_valrem.json"))
    shown = run(*given, *detectors, *more, "--replicates", "10", "--json", str(files / "figures.json"))
    return shown, json.loads((files / "figures.json").read_text())


def test_another_annotation_ranks_detectors_anew(files: Path) -> None:
    shown, told = evaluated(files, "--truth-ids", "source_id", "--truth-source", "coco")
    assert told["groups"]["all"]["masks"] == 5
    of = told["detections"]
    assert of["images"] == IMAGES
    assert of["annotations"]["truth"] == {"objects": 6, "crowds": 1, "unreadable": 0}
    ranks = {Path(file).name: [one["rank"] for one in of["precision"].values()] for file, of in of["files"].items()}
    assert ranks == {"rough.json": [1, 2], "exact.json": [2, 1]}
    assert "the order of the detectors changes" in shown
    [exact] = [one for file, one in of["files"].items() if "exact" in file]
    assert exact["precision"]["truth"]["boundary"]["ap"] < exact["precision"]["truth"]["mask"]["ap"]


def test_a_truth_without_common_ids(files: Path) -> None:
    """As Sama-COCO: its masks have no ids of COCO's."""
    with pytest.raises(RefusedError, match="no prediction joins the ground truth"):
        evaluated(files)
    shown, told = evaluated(files, "--only-detections")
    assert "groups" not in told
    assert told["detections"]["files"][str(files / "rough.json")]["measured"] == IMAGES
    assert "Agreement" not in shown
    with pytest.raises(RefusedError, match="--only-detections goes with --detections"):
        run("--predictions", "x.json", "--ground-truth", "y.json", "--only-detections")


def test_an_output_has_what_came_in_and_the_labels(files: Path) -> None:
    rows = [
        mask_row(f"{n}.jpg", 100 + n, disc(n, 17), disc(n), source_image_id=str(1000 + n), category_id=1 + n % 2)
        for n in range(IMAGES)
    ]
    write_result(files / "out", [rows], str(files))
    _, told = evaluated(
        files, "--only-detections", "--images", write(files / "some.json", ["0.jpg", "1001"]), predictions="out"
    )
    of = told["detections"]
    assert of["images"] == 2
    assert list(of["annotations"]) == ["coarse", "label", "truth"]
    [rough] = [one for file, one in of["files"].items() if "rough" in file]
    assert rough["precision"]["coarse"]["mask"]["ap"] == pytest.approx(1)
    assert rough["precision"]["label"]["mask"]["ap"] < 0.9
    assert rough["left_out"] == {"on_other_images": 4}


def test_what_is_no_results_file_is_refused(files: Path) -> None:
    images = annotations.of_coco(str(files / "instances_valrem.json"), AS_CONFIGURED).images
    [first, second, *_] = results([disc(0), disc(1)])
    cases = {
        "not COCO results": {"images": []},
        "detections without masks: none of 1": [{"image_id": 1000, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}],
        "no detection can be measured: {'on_other_images': 1}": [{**first, "image_id": 7}],
    }
    for message, content in cases.items():
        with pytest.raises(RefusedError) as refused:
            annotations.detections(write(files / "x.json", content), images, AS_CONFIGURED)
        assert message in str(refused.value)
    broken = {**second, "segmentation": {"size": [HEIGHT, WIDTH], "counts": "1"}}
    small = {**second, "segmentation": binary.encode(np.ones((4, 4), np.uint8))}
    nameless = {key: value for key, value in second.items() if key != "score"}
    read = annotations.detections(write(files / "x.json", [first, broken, small, nameless]), images, AS_CONFIGURED)
    assert len(read.found) == 1
    assert read.left_out == {"unreadable": 2, "mask_size_mismatch": 1}


def test_annotations_of_other_images_are_refused(files: Path) -> None:
    content = instances([disc(n) for n in range(IMAGES)])
    for image in content["images"]:
        image["id"] += 1
        image["id"] *= 7
    for one in content["annotations"]:
        one["image_id"] = 7 * (one["image_id"] + 1)
    given = (write(files / "other.json", content), None, str(files / "instances_valrem.json"))
    with pytest.raises(RefusedError, match="the annotations have no image id in common: label: 6 ids"):
        compare.compare([str(files / "rough.json")], given, None, AS_CONFIGURED)
