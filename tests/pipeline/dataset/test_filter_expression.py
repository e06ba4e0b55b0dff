"""The filter grammar: what it takes, as DuckDB does, and what it refuses."""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.dataset.filter_expression import as_expression, parse
from pipeline.errors import RefusedError

ROWS = pa.table(
    {
        "quality": pa.array([0.25, 0.5, None, 0.75, 1.0], pa.float32()),
        "category": ["cat", "dog", "o'hare", None, "cat_2"],
        "area": pa.array([1, 10, 100, 1000, None], pa.int64()),
        "decision": ["refined", "kept_coarse", "failed", "review", "refined"],
        "crowd": [True, False, None, False, False],
    }
)


@pytest.mark.parametrize(
    "text",
    [
        "quality >= 0.5",
        "quality > .25 AND area <= 1e3",
        "category = 'cat' or category == 'o''hare'",
        "not (quality < 0.5 or area = 10)",
        "category in ('cat', 'dog')",
        "category not in ('cat', 'dog')",
        "not category in ('cat')",
        "area between 10 and 100 and quality is null",
        "area not between 10 and 100",
        "category is not null and category <> 'cat'",
        "category like 'cat_%'",
        "category not like '%a%'",
        "crowd = true",
        "crowd <> TRUE and not crowd = false or crowd in (false, true) and area > 1",
        "decision != 'refined' and (area > -5 and (quality is null or quality >= 0.5))",
    ],
)
def test_takes_the_rows_that_sql_takes(text: str) -> None:
    rows = ROWS
    assert ROWS.filter(parse(text)).equals(duckdb.sql(f"select * from rows where {text}").to_arrow_table())
    del rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column"),
        ("secret = 1", "no column 'secret'"),
        ("mask_rle is null", "no column 'mask_rle'"),
        ("quality >= 'high'", "expected a number"),
        ("category = 3", "'text' in single quotes"),
        ("quality >= 0.5 area > 1", "expected the end"),
        ("quality", "expected a comparison"),
        ("(quality > 1", r"expected `\)`"),
        ("area = 99999999999999999999", "below 2"),
        ("__import__('os').system('x')", "cannot read"),
        ("quality > 1; drop", "cannot read"),
        ("not " * 5000 + "area > 1", "levels"),
        ("(" * 5000 + "area > 1", "levels"),
    ],
)
def test_refuses_in_one_line(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        parse(text)


def test_ones_and_zeros_are_true_and_false() -> None:
    for one, other in (("crowd = 1", "crowd = true"), ("crowd in (0)", "crowd in (false)")):
        assert ROWS.filter(parse(one)).equals(ROWS.filter(parse(other)))


@pytest.mark.parametrize("text", ["crowd like 'x'", "crowd = 2", "quality like 1", "crowd = 'true'", "quality = true"])
def test_what_does_not_fit_a_column_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="--where"):
        parse(text)


def test_an_expression_of_arrows_that_does_not_fit_is_no_damage() -> None:
    assert as_expression(pc.field("quality") > 0.5) is not None
    for wrong in (pc.field("crowd") > 1, pc.field("nosuch") == 1):
        with pytest.raises(RefusedError, match="--where"):
            as_expression(wrong)
