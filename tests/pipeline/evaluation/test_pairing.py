"""Every annotation is accounted for exactly once."""

from __future__ import annotations

import pytest

from pipeline.errors import RefusedError
from pipeline.evaluation.pairing import pair
from pipeline.masks import binary
from tests.pipeline.evaluation.cases import prediction, rle, truth


def test_each_annotation_ends_in_one_place() -> None:
    whole_image = binary.encode(binary.decode(rle(0, 0, 60, 40)))
    truths = [
        truth("1"),
        truth("2"),
        truth("3"),
        truth("4"),
        truth("5", crowd=True),
        truth("6", mask=rle(0, 0, 0, 0)),
        truth("7", ignore=whole_image),
    ]
    predictions = [
        prediction("1"),
        prediction("2", mask=None, decision="failed", reason="image_truncated"),
        prediction(
            "3", mask={"size": [20, 30], "counts": binary.encode(binary.decode(rle(0, 0, 60, 40))[:20, :30])["counts"]}
        ),
        prediction("99"),
    ]
    pairing = pair(truths, predictions)
    assert [item.truth.annotation_id for item in pairing.pairs] == ["1"]
    assert [(left.annotation_id, reason) for left, reason in pairing.left_out] == [
        ("2", "failed: image_truncated"),
        ("3", "mask_size_mismatch"),
        ("4", "missing"),
    ]
    assert pairing.not_asked == {"crowd": 1, "truth_empty": 1, "truth_ignored": 1}
    assert pairing.without_truth == 1


def test_broken_rle_is_left_out() -> None:
    broken = {"size": [40, 60], "counts": "0"}
    pairing = pair([truth("1"), truth("2")], [prediction("1", mask=broken), prediction("2")])
    assert [reason for _, reason in pairing.left_out] == ["mask_unreadable"]


def test_nothing_that_joins_is_refused_with_both_sides_ids() -> None:
    with pytest.raises(RefusedError, match=r"no prediction joins.*1 ids \(x7\).*1 ids \(1\)"):
        pair([truth("1")], [prediction("x7")])


def test_two_predictions_for_one_annotation_are_refused() -> None:
    with pytest.raises(RefusedError, match="duplicate prediction for annotation 1"):
        pair([truth("1")], [prediction("1"), prediction("1")])


def test_coarse_masks_from_elsewhere() -> None:
    pairing = pair([truth("1"), truth("2")], [prediction("1"), prediction("2")], coarse={"1": rle(0, 0, 5, 5)})
    assert pairing.pairs[0].prediction.coarse == rle(0, 0, 5, 5)
    assert [reason for _, reason in pairing.left_out] == ["no_coarse_mask"]


def test_images_narrow_the_scope_by_name_or_id_without_losing_count_of_the_rest() -> None:
    truths = [truth("1"), truth("2", image_id="8", image_name="b.jpg"), truth("3", image_id="9", image_name="c.jpg")]
    predictions = [prediction("1"), prediction("2", image_name="b.jpg"), prediction("3", image_name="c.jpg")]
    pairing = pair(truths, predictions, images=["b.jpg", "9"])
    assert [item.truth.annotation_id for item in pairing.pairs] == ["2", "3"]
    assert pairing.without_truth == 0
    with pytest.raises(RefusedError, match="none of the 1 listed images"):
        pair(truths, predictions, images=["d.jpg"])


def test_other_file_names_are_counted_folders_are_not() -> None:
    truths = [truth("1"), truth("2")]
    pairing = pair(truths, [prediction("1", image_name="images/a.jpg"), prediction("2", image_name="b.jpg")])
    assert pairing.other_image == 1
