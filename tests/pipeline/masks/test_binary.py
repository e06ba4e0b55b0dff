"""Run-length encoding against pycocotools, and measures against their definitions."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.errors import MaskError
from pipeline.masks import binary

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1))


@given(MASKS)
def test_rle_round_trip_and_measures(mask: np.ndarray) -> None:
    rle = binary.encode(mask)
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(binary.decode(rle), mask)
    assert sum(binary.run_lengths(rle["counts"])) == mask.size
    assert binary.area(rle) == mask.sum()
    if mask.any():
        x, y, w, h = (int(value) for value in binary.bbox_xywh(rle))
        outside = mask.copy()
        outside[y : y + h, x : x + w] = 0
        assert outside.sum() == 0
        assert mask[y].any()
        assert mask[:, x + w - 1].any()


@given(MASKS)
def test_uncompressed_runs_are_the_compressed_ones(mask: np.ndarray) -> None:
    rle = binary.encode(mask)
    assert binary.from_run_lengths(binary.run_lengths(rle["counts"]), mask.shape) == rle


@given(st.text(max_size=30), st.integers(-2, 50), st.integers(-2, 50))
@settings(max_examples=300)
def test_any_text_is_either_a_mask_of_its_size_or_an_error(counts: str, height: int, width: int) -> None:
    with suppress(MaskError):
        assert binary.decode({"size": [height, width], "counts": counts}).shape == (height, width)


def test_runs_that_overrun_the_size_are_refused() -> None:
    rle = binary.encode(np.ones((10, 10), np.uint8))
    with pytest.raises(MaskError, match="100 pixels of 81"):
        binary.decode({"size": [9, 9], "counts": rle["counts"]})


def test_iou() -> None:
    first, second = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    assert binary.iou(first, second) == 1.0
    first[:, :2] = 1
    second[:, 1:3] = 1
    assert binary.iou(first, second) == pytest.approx(4 / 12)


def test_boundary_is_a_band_and_the_image_border_is_an_outline() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 30:70] = 1
    band = binary.boundary(mask, 3)
    assert band[50, 30:33].all()
    assert not band[50, 33:67].any()
    assert band[:3, 30:70].all()
    assert binary.boundary_iou(mask, mask) == 1.0
    shifted = np.roll(mask, 3, axis=1)
    assert binary.boundary_iou(mask, shifted, 3) < binary.iou(mask, shifted)


def test_components_and_holes() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:8, 2:8] = 1
    mask[4:6, 4:6] = 0
    mask[8, 8] = 1  # touches the first by a corner: one 8-connected piece
    mask[15, 15] = 1
    assert binary.component_areas(mask) == [33, 1]
    assert binary.component_areas(np.zeros((5, 5), np.uint8)) == []
    assert binary.count_holes(mask) == 1
    assert binary.count_holes(np.ones((5, 5), np.uint8)) == 0


def test_polygons() -> None:
    square = [2.0, 1.0, 8.0, 1.0, 8.0, 5.0, 2.0, 5.0]
    decoded = binary.decode(binary.from_polygons([square, [0, 0]], (10, 10)))
    assert decoded[1:5, 2:8].all()
    assert decoded.sum() == 24
    with pytest.raises(MaskError, match="three points"):
        binary.from_polygons([[1, 2]], (10, 10))
    with pytest.raises(MaskError, match="not finite"):
        binary.from_polygons([[0, 0, float("nan"), 5, 5, 5]], (10, 10))
