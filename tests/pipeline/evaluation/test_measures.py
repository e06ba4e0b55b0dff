"""Pixel measures against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.evaluation.measures import boundary_accuracy, measure
from pipeline.evaluation.pairing import Pair
from pipeline.masks import binary
from tests.pipeline.evaluation.cases import SIZE_HW, prediction, rectangle, rle, truth


def test_shifted_square() -> None:
    # truth 20 x 20, shifted right by 10: 200 pixels shared, 600 in the union
    side = measure([Pair(truth(), prediction(mask=rle(20, 10, 20, 20)))]).sides["mask"]
    assert side.intersection.tolist() == [200]
    assert side.union.tolist() == [600]
    assert side.iou.tolist() == [1 / 3]
    # bands 1 px wide (2 % of the diagonal 72.1 is 1.44): rings of 76 pixels; they share two stretches of 10 in the
    # rows of the upper and lower edge
    assert side.boundary_iou.tolist() == [20 / (2 * 76 - 20)]


def test_ignored_pixels_count_for_no_measure() -> None:
    # the prediction misses the truth's right half, which is ignored, and is wrong nowhere else
    pair = Pair(truth(ignore=rle(20, 0, 40, 40)), prediction(mask=rle(10, 10, 10, 20)))
    side = measure([pair]).sides["mask"]
    assert side.intersection.tolist() == [200]
    assert side.union.tolist() == [200]
    assert side.boundary_iou.tolist() == [1.0]
    assert side.boundary_accuracy.tolist() == [1.0]


def test_ignored_pixels_do_not_hide_errors_elsewhere() -> None:
    pair = Pair(truth(ignore=rle(20, 0, 40, 40)), prediction(mask=rle(5, 10, 15, 20)))
    side = measure([pair]).sides["mask"]
    assert side.intersection.tolist() == [200]
    assert side.union.tolist() == [300]
    assert side.boundary_accuracy[0] < 1


def test_sides_that_are_absent_and_sides_that_are_empty() -> None:
    both = prediction("1", coarse=rle(10, 10, 20, 10), refined=rle(10, 10, 20, 20))
    nothing_refined = prediction("2", coarse=rle(10, 10, 20, 10), refined=None, mask=rle(10, 10, 20, 10))
    measures = measure([Pair(truth("1"), both), Pair(truth("2"), nothing_refined)])
    assert measures.sides["coarse"].iou.tolist() == [0.5, 0.5]
    assert measures.sides["refined"].iou.tolist() == [1.0, 0.0]
    oracle = measures.oracle()
    assert oracle is not None
    assert oracle.iou.tolist() == [1.0, 0.5]
    bare = measure([Pair(truth(), prediction())])
    assert bare.sides.keys() == {"mask"}
    assert bare.oracle() is None


def test_scores_of_some_masks_are_nan_for_the_others() -> None:
    pairs = [Pair(truth("1"), prediction("1", scores={"quality": 0.9})), Pair(truth("2"), prediction("2"))]
    np.testing.assert_array_equal(measure(pairs).scores["quality"], [0.9, np.nan])


def test_boundary_accuracy_of_a_straight_edge() -> None:
    # left half of the canvas is truth; (40 + 60) / 300 < 3, so every radius is 3. A pixel is near when the 7-wide disk
    # around it meets both sides: columns 27 ... 32, six of them. One column too much is one of the six wrong.
    left_half, one_more = rectangle(0, 0, 30, 40), rectangle(0, 0, 31, 40)
    assert boundary_accuracy(left_half, one_more) == pytest.approx(5 / 6)


def test_boundary_accuracy_averages_radii_on_large_images() -> None:
    # (1200 + 1200) / 300 = 8: radii 3, 4.25, 5.5, 6.75, 8 rounded to 3, 4, 6 (numpy rounds half to even), 7, 8;
    # the regions are 2 r columns wide, and two columns are wrong
    size_hw = (1200, 1200)
    truth_mask, mask = rectangle(0, 0, 600, 1200, size_hw), rectangle(0, 0, 602, 1200, size_hw)
    expected = np.mean([1 - 2 / (2 * radius) for radius in (3, 4, 6, 7, 8)])
    assert boundary_accuracy(truth_mask, mask) == pytest.approx(expected)


def test_boundary_accuracy_without_an_outline_is_undefined() -> None:
    everything = rectangle(0, 0, 60, 40)
    assert np.isnan(boundary_accuracy(everything, everything))


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, SIZE_HW, elements=st.integers(0, 1)), arrays(np.uint8, SIZE_HW, elements=st.integers(0, 1)))
def test_measures_are_shares_and_an_ignore_region_of_nothing_changes_nothing(
    first: binary.Mask, second: binary.Mask
) -> None:
    first[0, 0] = 1
    plain = Pair(truth(mask=binary.encode(first)), prediction(mask=binary.encode(second)))
    nothing = Pair(truth(mask=binary.encode(first), ignore=rle(0, 0, 0, 0)), prediction(mask=binary.encode(second)))
    one, other = measure([plain]).sides["mask"], measure([nothing]).sides["mask"]
    assert one.iou[0] == binary.iou(first, second) == other.iou[0]
    assert one.boundary_iou[0] == binary.boundary_iou(first, second) == other.boundary_iou[0]
    np.testing.assert_array_equal(one.boundary_accuracy, other.boundary_accuracy)
    assert 0 <= one.iou[0] <= 1
