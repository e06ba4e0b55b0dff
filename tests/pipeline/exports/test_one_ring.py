"""One polygon for any mask: what OpenCV draws, which cuts coordinates, and what pycocotools fills."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter

from pipeline.exports.one_ring import draw, one_ring
from pipeline.masks import binary

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = SIZES.flatmap(lambda size: hnp.arrays(np.uint8, size, elements=st.integers(0, 1))).filter(np.any)


def filled(ring: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """As our own reader of YOLO does."""
    return binary.decode(binary.from_polygons([ring.ravel().tolist()], size_hw))


@settings(max_examples=300, deadline=None)
@given(mask=MASKS)
def test_of_any_mask(mask: np.ndarray) -> None:
    ring = one_ring(mask)
    drawn, inside = draw(ring, mask.shape), filled(ring, mask.shape)
    assert not (inside & (1 - mask)).any()
    assert (drawn >= inside).all()
    if len(binary.component_areas(mask)) == 1:
        assert np.array_equal(drawn, mask)
        assert np.array_equal(inside, mask)


def test_of_large_masks_with_many_holes() -> None:
    rng = np.random.default_rng(0)
    for side in (3, 4, 6):
        mask = (gaussian_filter(rng.random((120, 160)), side) > 0.49).astype(np.uint8)
        mask[:, 0] = mask[0] = 1
        areas = binary.component_areas(mask)
        ring = one_ring(mask)
        assert binary.count_holes(mask) > 0
        assert filled(ring, mask.shape).sum() >= areas[0]
        assert binary.iou(draw(ring, mask.shape), mask) > 0.97


def test_a_part_is_joined_where_it_outweighs_its_line() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[2:18, 2:12] = 1
    mask[5:8, 15:18] = 1  # 9 pixels, 3 away
    mask[10, 39] = 1  # one pixel, 27 away
    ring = one_ring(mask)
    wanted = mask.copy()
    wanted[10, 39] = 0
    assert np.array_equal(filled(ring, mask.shape), wanted)
    assert (draw(ring, mask.shape) - wanted.astype(int)).sum() == 3


def test_coordinates_may_be_cut_to_single_precision() -> None:
    mask = np.ones((3, 6000), np.uint8)
    mask[1, 4321] = 0
    ring = one_ring(mask)
    shares = (ring / [6000, 3]).astype(np.float32)
    assert np.array_equal(draw(shares * np.float32([6000, 3]), mask.shape), mask)
