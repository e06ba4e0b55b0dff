"""Run lengths read without pixels, against the pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.errors import MaskError
from pipeline.masks import binary, spans
from pipeline.masks.frames import tight_box_xyxy

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 1))


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_stretches_are_the_masks(mask: np.ndarray) -> None:
    drawn = spans.of(binary.encode(mask))
    again = np.zeros_like(mask)
    for column, top, bottom in zip(*drawn, strict=True):
        assert not again[top:bottom, column].any()
        again[top:bottom, column] = 1
    np.testing.assert_array_equal(again, mask)
    assert spans.tight_box_xyxy(drawn) == tight_box_xyxy(mask)


@given(MASKS, st.integers(1, 5), st.integers(0, 7), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_coverage_is_the_mean_of_a_cell(mask: np.ndarray, cell: int, x: int, y: int) -> None:
    count = 4
    padded = np.zeros((60, 60))
    padded[: mask.shape[0], : mask.shape[1]] = mask
    part = padded[y : y + count * cell, x : x + count * cell]
    expected = part.reshape(count, cell, count, cell).mean(axis=(1, 3))
    found = spans.coverage(spans.of(binary.encode(mask)), (y, x), (cell, cell), (count, count))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ((found > 0) == (expected > 0)).all()


def test_coverage_of_cells_that_are_no_whole_number_of_pixels() -> None:
    mask = (np.random.default_rng(0).random((90, 120)) < 0.5).astype(np.uint8)
    fine = np.repeat(np.repeat(mask, 4, 0), 4, 1)  # quarters of a pixel: cells of 2.5 and 3.75 pixels
    expected = fine.reshape(36, 10, 32, 15).mean(axis=(1, 3))
    found = spans.coverage(spans.of(binary.encode(mask)), (0, 0), (2.5, 3.75), (36, 32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(MASKS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_box_is_coded_as_the_whole_mask(mask: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    whole = np.pad(mask, ((top, bottom), (left, right)))
    size_hw = whole.shape[0], whole.shape[1]
    assert spans.encode(np.ascontiguousarray(mask.T), left, top, size_hw) == binary.encode(whole)


def test_no_box_is_the_empty_mask() -> None:
    assert spans.encode(np.zeros((0, 0), np.uint8), 0, 0, (4, 7)) == binary.encode(np.zeros((4, 7)))


def test_wrong_runs_are_refused_as_by_decoding() -> None:
    rle = binary.encode(np.ones((4, 4)))
    with pytest.raises(MaskError, match="cover 16 pixels of 20"):
        spans.of({"size": [4, 5], "counts": rle["counts"]})
