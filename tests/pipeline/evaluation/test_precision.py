"""Average precision: equal to pycocotools where it has the measure, by hand where it has not."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.evaluation.pairing import Pair
from pipeline.evaluation.precision import average_precision
from pipeline.masks import binary
from tests.pipeline.evaluation.cases import prediction, rle, truth


def _pairs(count: int) -> list[Pair]:
    """`count` random rectangles on five images in two categories, predictions of random width."""
    rng = np.random.default_rng(5)
    pairs = []
    for number in range(count):
        x, y, width = (int(value) for value in rng.integers((0, 0, 4), (20, 10, 30)))
        where = {"image_id": str(number % 5), "image_name": f"{number % 5}.jpg"}
        pairs.append(
            Pair(
                truth(str(number), category=f"kind {number % 2}", mask=rle(x, y, width, 20), **where),
                prediction(
                    str(number), mask=rle(x, y, width + int(rng.integers(-3, 8)), 20), score=float(rng.random())
                ),
            )
        )
    return pairs


def _reference(pairs: list[Pair]) -> np.ndarray:
    """pycocotools' own twelve figures of the same masks."""

    def annotations(rles: list[binary.Rle]) -> list[dict[str, object]]:
        return [
            {
                "id": number + 1,
                "image_id": int(pair.truth.image_id) + 1,
                "category_id": int(pair.truth.category[-1]) + 1,
                "segmentation": dict(mask),
                "area": binary.area(mask),
                "iscrowd": 0,
                "score": pair.prediction.score,
            }
            for number, (pair, mask) in enumerate(zip(pairs, rles, strict=True))
        ]

    sets = []
    with contextlib.redirect_stdout(io.StringIO()):
        for rles in ([pair.truth.mask for pair in pairs], [pair.prediction.mask for pair in pairs]):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": number, "height": 40, "width": 60} for number in range(1, 6)],
                "categories": [{"id": 1}, {"id": 2}],
                "annotations": annotations([mask for mask in rles if mask is not None]),
            }
            coco.createIndex()
            sets.append(coco)
        evaluation = COCOeval(*sets, iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)


def test_mask_ap_is_that_of_pycocotools() -> None:
    pairs = _pairs(30)
    found = average_precision([pair.truth for pair in pairs], pairs, "mask", bounded=False)
    reference = _reference(pairs)
    assert [found["ap"], found["ap50"], found["ap75"]] == pytest.approx(reference[:3])
    assert 0.2 < found["ap"] < 0.9  # neither all right nor all wrong: the comparison means something
    assert np.mean(list(found["by_category"].values())) == pytest.approx(found["ap"])


def test_boundary_ap_is_bounded_by_both_overlaps() -> None:
    # one square too wide by one of 20 columns: mask IoU 400/420 = 0.952, above all ten thresholds. The rings of 76 and
    # 78 pixels share their left, upper and lower edges: 58 pixels of 96, IoU 0.604, above 0.50, 0.55 and 0.60
    pairs = [Pair(truth(), prediction(mask=rle(10, 10, 21, 20)))]
    truths = [pair.truth for pair in pairs]
    assert average_precision(truths, pairs, "mask", bounded=False)["ap"] == pytest.approx(1.0)
    assert average_precision(truths, pairs, "mask", bounded=True)["ap"] == pytest.approx(0.3)


@pytest.mark.parametrize("bounded", [False, True])
def test_ignored_pixels_do_not_count(bounded: bool) -> None:
    pairs = [Pair(truth(ignore=rle(20, 0, 40, 40)), prediction(mask=rle(10, 10, 10, 20)))]
    assert average_precision([pairs[0].truth], pairs, "mask", bounded)["ap"] == pytest.approx(1.0)


def test_an_annotation_that_was_left_out_was_not_found() -> None:
    pairs = [Pair(truth("1"), prediction("1"))]
    lost = truth("2", mask=rle(40, 0, 10, 10))
    # one of two found: precision 1 up to recall 0.5, then 0; 51 of pycocotools' 101 recall levels
    assert average_precision([truth("1"), lost], pairs, "mask", bounded=False)["ap"] == pytest.approx(51 / 101)


def test_a_side_that_found_nothing() -> None:
    pairs = [Pair(truth("1"), prediction("1"))]
    assert average_precision([truth("1")], pairs, "refined", bounded=True)["ap"] == 0
