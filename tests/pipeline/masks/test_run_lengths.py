"""The decoder of COCO's compressed run lengths, against runs counted one by one."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.errors import MaskError
from pipeline.masks import binary


@settings(max_examples=200, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)))
@example(np.zeros((700, 900), np.uint8))
@example(np.pad(np.ones((600, 10), np.uint8), ((50, 50), (400, 3))))
def test_runs_are_those_of_the_pixels(mask: binary.Mask) -> None:
    flat = mask.ravel(order="F").tolist()
    expected = [len(list(run)) for _, run in groupby(flat)]
    if flat[0] == 1:
        expected = [0, *expected]  # background comes first
    assert binary.run_lengths(binary.encode(mask)["counts"]) == expected


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("P", "end inside a run"),  # a continuation bit and nothing after it
        ("\x20", "hold the character"),
        ("é1", "hold characters outside ASCII"),
        ("O", "negative length"),
        ("P" * 40 + "0", "end inside a run"),
    ],
)
def test_malformed_counts_are_refused(counts: str, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        binary.run_lengths(counts)


def test_no_counts_are_no_runs() -> None:
    assert binary.run_lengths("") == []
