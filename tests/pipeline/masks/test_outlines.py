"""Outlines: what pycocotools draws from them is the mask, but for its holes."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.masks import binary
from pipeline.masks.outlines import outlines, signed_area

MASKS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


def drawn(found: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    if not found:
        return np.zeros(size_hw, np.uint8)
    return binary.decode(binary.from_polygons([[float(v) for v in outline.ravel()] for outline in found], size_hw))


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_outer_outlines_less_holes_are_the_mask(mask: np.ndarray) -> None:
    outer, holes = outlines(mask)
    assert sum(signed_area(outline) for outline in outer + holes) == mask.sum()
    filled = drawn(outer, mask.shape)
    within = np.zeros_like(mask)
    for hole in holes:
        within |= drawn([hole], mask.shape)
    assert (filled >= mask).all()
    assert not (filled & ~mask & ~within & 1).any()
    if not holes:
        assert (filled == mask).all()


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_parts_touch_at_corners_and_holes_do_not(mask: np.ndarray) -> None:
    outer, holes = outlines(mask)
    assert len(outer) == len(binary.component_areas(mask))
    assert len(holes) == binary.count_holes(mask)


def test_a_large_mask() -> None:
    y, x = np.mgrid[:600, :800]
    mask = ((np.hypot(x - 400, y - 300) < 250) & (np.hypot(x - 350, y - 300) > 60)).astype(np.uint8)
    outer, holes = outlines(mask)
    assert (len(outer), len(holes)) == (1, 1)
    assert drawn(outer, mask.shape).sum() == cv2.fillPoly(mask.copy(), [holes[0]], 1).sum()
