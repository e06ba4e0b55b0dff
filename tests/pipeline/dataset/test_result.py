"""What a notebook does: open, filter, show one mask."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow.compute as pc
import pytest

from pipeline import open as open_output
from pipeline.dataset import Result
from pipeline.errors import ImageError, RefusedError
from pipeline.storage import Store
from pipeline.storage.tables import Ranges
from tests.results import SIZE_HW, ellipse, mask_row, write_photo, write_result

SHAPE = ellipse((40, 24), 9)


@pytest.fixture
def result(tmp_path: Path) -> Result:
    write_photo(tmp_path / "photos" / "a.png", [SHAPE], 0)
    rows = [
        mask_row("a.png", 1, np.roll(SHAPE, 4, axis=1), SHAPE, quality=0.8),
        mask_row("a.png", 2, SHAPE, SHAPE, decision="failed", category=None),
        mask_row("gone.png", 3, SHAPE, SHAPE, decision="kept_coarse"),
    ]
    return write_result(tmp_path / "out", [rows[:2], rows[2:]], str(tmp_path / "photos"))


def test_filters_and_columns(result: Result) -> None:
    opened = open_output(result.store.uri)
    table = opened.masks(pc.field("decision") == "refined", columns=["source_mask_id", "quality"])
    assert table.to_pylist() == [{"source_mask_id": "1", "quality": pytest.approx(0.8)}]
    assert opened.masks()["source_mask_id"].to_pylist() == ["1", "2", "3"]
    assert opened.images(columns=["masks"])["masks"].to_pylist() == [2, 1]


def test_a_filter_reads_the_row_groups_that_may_hold_what_it_asks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By their statistics: of a file in a store only those are fetched, whatever is asked."""
    shape = ellipse((30, 20), 10)
    noise = np.random.default_rng(0)  # what is fetched, larger than a footer
    rows = [
        mask_row(f"{n:03d}.jpg", 0, shape, shape, category_id=n // 100, quality=n / 400, extra=noise.bytes(4000).hex())
        for n in range(400)
    ]
    stored = write_result(tmp_path / "out", [rows[:200], rows[200:]], "/photos", row_group_rows=50)
    fetched: list[int] = []

    def counted(self: Store, path: str, start: int, length: int) -> bytes:
        fetched.append(length)
        return (tmp_path / "out" / path).read_bytes()[start : start + length]

    def remote(self: Store, path: str, ahead_bytes: int = 0) -> BinaryIO:
        return cast(BinaryIO, Ranges(self.size(path), partial(self.read_range, path), ahead=1))

    monkeypatch.setattr(Store, "read_range", counted)
    monkeypatch.setattr(Store, "open", remote)

    def bytes_for(where: str | None) -> tuple[int, int]:
        fetched.clear()
        return stored.masks(where, ["mask_id", "extra"]).num_rows, sum(fetched)

    everything, nothing = bytes_for(None), bytes_for("quality > 2")
    assert (everything[0], nothing[0]) == (400, 0)
    assert nothing[1] < everything[1] / 3, "but for the footers"
    groups = [
        (bytes_for(where)[1] - nothing[1]) / (everything[1] - nothing[1]) * 8
        for where in ("image_id = '123.jpg'", "category_id = 3", "quality between 0.3 and 0.31", "quality >= 0.6")
    ]
    assert [round(count) for count in groups] == [1, 2, 1, 4]


def test_one_mask_is_shown_beside_its_photograph(result: Result) -> None:
    first, failed, missing = result.masks()["mask_id"].to_pylist()
    picture = result.show(first)
    assert picture.size[0] > 3 * SIZE_HW[0]  # three panels, cropped to the mask
    pixels = np.asarray(picture)
    assert (pixels == (255, 59, 48)).all(axis=2).any()  # the coarse outline
    assert (pixels == (0, 230, 118)).all(axis=2).any()  # the refined one
    assert not (np.asarray(result.show(failed)) == (0, 230, 118)).all(axis=2).any()
    with pytest.raises(ImageError, match=r"image_missing.*gone.png"):
        result.show(missing)
    with pytest.raises(RefusedError, match="has no mask 'x'"):
        result.show("x")


def test_a_filter_is_an_expression_or_the_text_of_where(result: Result) -> None:
    asked = result.masks("decision = 'refined' and quality >= 0.5", columns=["source_mask_id"])
    assert asked == result.masks((pc.field("decision") == "refined") & (pc.field("quality") >= 0.5), ["source_mask_id"])
    with pytest.raises(RefusedError, match="qualty"):
        result.masks("qualty > 0.5")


def test_what_a_notebook_shows_of_it(result: Result) -> None:
    assert repr(result).startswith(f"Result('{result.store.uri}': ")
    assert "3 masks" in repr(result)
    assert result.head(2)["image_uri"].to_pylist() == ["a.png", "a.png"]
    assert result.head(2, "decision = 'kept_coarse'")["image_uri"].to_pylist() == ["gone.png"]
    html = result._repr_html_()
    assert html.count("<tr>") == 4
    assert "gone.png" in html
    assert "0.800" in html


def test_names_from_the_data_are_text_in_a_notebook(tmp_path: Path) -> None:
    rows = [mask_row("<b>.png", 1, SHAPE, SHAPE, category="<script>alert(1)</script>")]
    html = write_result(tmp_path / "out", [rows], str(tmp_path))._repr_html_()
    assert "<script>" not in html
    assert "&lt;b&gt;.png" in html
