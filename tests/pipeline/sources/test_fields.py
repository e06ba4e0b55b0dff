"""One place that knows how far each type goes."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import mask_id
from pipeline.sources.fields import as_flag, as_float, as_id, as_int, as_size, extra_of

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(value=ANY)
def test_no_value_raises(value: Any) -> None:
    number, side = as_int(value), as_size(value, value)
    assert number is None or -(2**63) <= number < 2**63
    assert side is None or 0 < side[0] < 2**31
    found = as_float(value)
    assert found is None or math.isfinite(found)
    assert isinstance(as_id(value), str)
    assert isinstance(as_flag(value), bool)
    assert isinstance(extra_of({"a": value}, ()), str)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3),
        (3.0, 3),
        ("3", 3),
        (" 3.0 ", 3),
        (Decimal(3), 3),
        ("-1", -1),
        (2**63 - 1, 2**63 - 1),
        ("0x3", None),
        ("6_20", None),
        (True, None),
        (2.5, None),
        (math.nan, None),
        (math.inf, None),
        ("", None),
        (2**63, None),
        (1e300, None),
        ("²", None),
        ("9" * 5000, None),
        (10**400, None),
        ("1e400", None),
        ([3], None),
        (None, None),
    ],
)
def test_whole_numbers(value: Any, number: int | None) -> None:
    assert as_int(value) == number


def test_ids_of_masks_are_kept_and_never_shared() -> None:
    assert mask_id("a.jpg", "1", 0) == "ee3ee78f19263cac505fa961f4df90d9"
    assert mask_id("a.jpg", "b\0c", 0) != mask_id("a.jpg\0b", "c", 0)
    assert mask_id("a\0", "b", 0) != mask_id("a", "\0b", 0)
