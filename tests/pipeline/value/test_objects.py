"""Windows, and who learns and who is tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.result import Result
from pipeline.dataset.samples import Photos
from pipeline.errors import RefusedError
from pipeline.evaluation.pairing import Truth
from pipeline.masks import binary
from pipeline.storage import Access
from pipeline.value import objects
from pipeline.value.objects import LABEL_SIDE, Exam, Window
from tests.results import SIZE_HW, ellipse, mask_row, write_photo, write_result

SHAPE = ellipse((30, 24), 12)


def truth(number: int, image: str, mask: np.ndarray = SHAPE, **more: object) -> Truth:
    return Truth(str(number), str(number), image, "all", "thing", binary.encode(mask), **more)  # type: ignore[arg-type]


def result(folder: Path, images: int = 4, **values: object) -> Result:
    for number in range(images):
        write_photo(folder / "photos" / f"{number}.png", [SHAPE], number)
    rows = [mask_row(f"{number}.png", number, SHAPE, SHAPE, **values) for number in range(images)]
    return write_result(folder / "out", [rows], str(folder / "photos"))


def test_a_window_outside_the_image_is_zero_there() -> None:
    part = objects.cut_out(np.ones((4, 6), np.uint8), Window(-1, 4, 3, 4))
    assert part.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert objects.cut_out(np.ones((4, 6, 3), np.uint8), Window(9, 9, 2, 2)).sum() == 0


def test_the_true_outline_as_a_prediction_has_nearly_the_whole_iou() -> None:
    window = objects.window_around(binary.bbox_xywh(binary.encode(SHAPE)))
    counted = np.ones_like(SHAPE)
    exam = Exam("m", "a.png", objects.cut_out(SHAPE, window), objects.cut_out(counted, window), int(SHAPE.sum()))
    label = objects.brought_to(objects.cut_out(SHAPE, window).astype(np.float32), LABEL_SIDE)
    assert objects.iou_of(exam, label - 0.5) > 0.97
    assert objects.iou_of(exam, np.full_like(label, -1)) == 0
    twice = Exam("m", "a.png", exam.truth, exam.counted, 2 * exam.area)  # half of the object lies outside
    assert objects.iou_of(twice, label - 0.5) == pytest.approx(0.5, abs=0.02)


def test_ignored_pixels_do_not_count(tmp_path: Path) -> None:
    half = SHAPE.copy()
    half[:, :30] = 0
    ignore = np.zeros_like(SHAPE)
    ignore[:, :30] = 1
    chosen = objects.choose(
        result(tmp_path), [truth(0, "0.png", SHAPE, ignore=binary.encode(ignore))], {"0.png"}, (), 9
    )
    [exam] = [one.of for one in objects.seen(chosen, Photos.of(result(tmp_path))) if isinstance(one.of, Exam)]
    window = objects.window_around(binary.bbox_xywh(binary.encode(SHAPE)))
    label = objects.brought_to(objects.cut_out(half, window).astype(np.float32), LABEL_SIDE)
    assert objects.iou_of(exam, label - 0.5) > 0.95


def test_every_mask_is_a_lesson_an_exam_or_left_out(tmp_path: Path) -> None:
    """2.png has no truth, though it is to be tested on; 3.png is a crowd in the truth."""
    truths = [truth(0, "0.png"), truth(1, "1.png"), truth(3, "3.png", crowd=True)]
    chosen = objects.choose(result(tmp_path), truths, {"1.png", "2.png", "3.png"}, (), 9)
    assert [row["image_uri"] for row in chosen.lessons] == ["0.png"]
    assert [row["image_uri"] for row in chosen.exams] == ["1.png"]
    assert +chosen.left_out == {"no_truth": 2}


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    found = result(tmp_path, 5)
    (tmp_path / "photos" / "2.png").write_bytes(b"no image")
    truths = [truth(0, "0.png"), truth(1, "1.png", np.ones((9, 9), np.uint8))]
    chosen = objects.choose(found, truths, {"0.png", "1.png"}, {"2.png", "3.png"}, 9)
    names = [one.of.mask_id for one in objects.seen(chosen, Photos.of(found))]
    assert len(names) == 2
    assert +chosen.left_out == {"image_unreadable": 1, "mask_size_mismatch": 1, "other_image": 1}


def test_the_limit_takes_the_same_sample_each_time(tmp_path: Path) -> None:
    found = result(tmp_path, 12)
    truths = [truth(number, f"{number}.png") for number in range(12)]
    test = {f"{number}.png" for number in range(4)}
    once, again = (objects.choose(found, truths, test, (), 3) for _ in range(2))
    assert [row["mask_id"] for row in once.lessons] == [row["mask_id"] for row in again.lessons]
    assert (len(once.lessons), len(once.exams), once.left_out["over_the_limit"]) == (3, 3, 6)


def test_nothing_to_be_tested_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"no mask to be tested on; left out: {'no_truth': 1}"):
        objects.choose(result(tmp_path), [truth(99, "0.png")], {"0.png"}, (), 9)
    with pytest.raises(RefusedError, match="no mask to learn from"):
        objects.choose(result(tmp_path), [truth(0, "0.png")], {f"{n}.png" for n in range(4)}, (), 9)


def test_names_in_lists_may_lack_folders(tmp_path: Path) -> None:
    assert objects.is_named("val2017/1.png", {"1.png"})
    assert objects.is_named("val2017/1.png", {"val2017/1.png"})
    assert not objects.is_named("val2017/11.png", {"1.png"})
    lists = tmp_path / "split.json"
    lists.write_text(json.dumps({"A": ["0"], "B": ["1.png"]}))
    truths = [truth(0, "0.png"), truth(1, "1.png")]
    assert objects.images_of(truths, f"{lists}:B", f"{lists}:A", Access()) == ({"1.png"}, {"0.png"})
    with pytest.raises(RefusedError, match=r"at once: 1 image, 1\.png"):
        objects.images_of(truths, f"{lists}:B", f"{lists}:B", Access())


def test_half_of_the_truth_is_tested_on_by_default() -> None:
    names = [f"{number}.png" for number in range(200)]
    tested, learned = objects.images_of(
        [truth(n, name, np.ones(SIZE_HW, np.uint8)) for n, name in enumerate(names)], None, None, Access()
    )
    assert 70 < len(tested) < 130
    assert not learned
