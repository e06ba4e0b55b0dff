"""Two results compared: what was added, removed and changed, in every place that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.comparison.compare import compare
from pipeline.comparison.join import joined
from pipeline.comparison.sides import find_side
from pipeline.dataset.result import Result
from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.output.manifest import Retention
from pipeline.storage import Access
from schemas.config import Gate
from tests.pipeline.outputs import Output
from tests.results import ellipse, mask_row, write_photo, write_result

SMALL, LARGE = ellipse((20, 24), 8), ellipse((40, 24), 20)
MOVED = ellipse((22, 24), 8)


def relabel(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    """Before: four masks on two images, one failed. After: one moved, one relabelled, one gone, one new, in one more
    image; the failed one is there; and the shards are in another order.
    """
    folder = tmp_path_factory.mktemp("diff")
    for name in ("a.png", "b.png", "c.png"):
        write_photo(folder / "photos" / name, [SMALL, LARGE], 1)
    before = [
        mask_row("a.png", 0, SMALL, SMALL, category="cat"),
        mask_row("a.png", 1, LARGE, LARGE, category="<b>dog"),
        mask_row("b.png", 0, SMALL, SMALL, category="cat"),
        mask_row("b.png", 1, LARGE, LARGE, decision="failed"),
    ]
    after = [
        mask_row("a.png", 0, SMALL, MOVED, category="cat", decision="refined"),
        mask_row("a.png", 1, LARGE, LARGE, category="wolf", category_id=2, decision="kept_coarse"),
        mask_row("b.png", 1, LARGE, LARGE),
        mask_row("c.png", 0, SMALL, SMALL, category="cat"),
    ]
    photos = str(folder / "photos")
    first = write_result(folder / "before", [before[:2], before[2:]], photos)
    return first, write_result(folder / "after", [after[3:], after[2:3], after[:2]], photos)


def test_counts(pair: tuple[Result, Result]) -> None:
    sides = [find_side(result.store.uri, Access()) for result in pair]
    found = compare(sides[0], sides[1], 10)
    assert dict(found.all.states) == {"changed": 2, "removed": 1, "added": 2}
    assert dict(found.images) == {"both": 2, "after": 1}
    assert dict(found.failed) == {"before": 1, "after": 0}
    assert dict(found.decisions) == {("refined", "kept_coarse"): 1}
    assert (found.relabelled, found.recrowded, found.resized) == (1, 0, 0)
    iou = binary.iou(SMALL, MOVED)
    cats = found.groups["category"]["cat"]
    assert cats.iou_sum == pytest.approx(iou)
    assert cats.area_change_sum == pytest.approx(MOVED.sum() / SMALL.sum() - 1)
    assert {name: dict(one.states) for name, one in found.groups["category"].items()} == {
        "cat": {"changed": 1, "removed": 1, "added": 1},
        "wolf": {"changed": 1},
        "thing": {"added": 1},
    }
    assert [one.change.row["source_mask_id"] for one in found.examples["changed"]] == ["0", "1"]  # the lowest IoU first
    assert [one.image["image_uri"] for one in found.examples["removed"]] == ["b.png"]


def test_pictures_that_cannot_be_drawn_are_told(pair: tuple[Result, Result], tmp_path: Path) -> None:
    uris = [result.store.uri for result in pair]
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    found = relabel("diff", *uris, "--html", page, "--json", figures)
    assert (found.exit_code, json.loads(figures.read_text())["unread"]) == (0, [])
    write_photo(tmp_path / "photos" / "a.png", [SMALL], 1)
    found = relabel("diff", *uris, "--html", page, "--json", figures, "--images", tmp_path / "photos")
    assert found.exit_code == 3
    assert f"{page} has no picture of 2 images: b.png (image_missing), c.png (image_missing)." in found.stderr
    unread = [{"image_uri": name, "why": "image_missing"} for name in ("b.png", "c.png")]
    assert json.loads(figures.read_text())["unread"] == unread
    assert page.read_text().count("no picture: image_missing") == 3  # b.png: one added, one removed


def test_both_ways_are_each_others_mirror(pair: tuple[Result, Result]) -> None:
    sides = [find_side(result.store.uri, Access()) for result in pair]
    there, back = compare(sides[0], sides[1], 0), compare(sides[1], sides[0], 0)
    mirror = {"added": "removed", "removed": "added"}
    assert {mirror.get(state, state): count for state, count in back.all.states.items()} == dict(there.all.states)
    assert back.all.iou_sum == pytest.approx(there.all.iou_sum)


def test_a_small_buffer_joins_the_same(pair: tuple[Result, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [find_side(result.store.uri, Access()) for result in pair]
    whole = sorted(str(one) for one in joined(*sides))
    monkeypatch.setattr("pipeline.comparison.join.HELD_MASKS", 1)
    assert sorted(str(one) for one in joined(*sides)) == whole
    assert len(whole) == 3


def test_the_command_shows_and_writes_all_of_it(pair: tuple[Result, Result], tmp_path: Path) -> None:
    done = relabel(
        "diff", *(one.store.uri for one in pair), "--html", tmp_path / "p.html", "--json", tmp_path / "f.json"
    )
    assert done.exit_code == 0, done.output
    for said in (
        "0 same, 2 changed, 2 added, 1 removed",
        "2 in both, 1 only after",
        "1 mask of another class",
        "wolf",
    ):
        assert said in done.stdout
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["all"]["changed"], sum(figures["all"]["iou_histogram"])) == (2, 2)
    html = (tmp_path / "p.html").read_text()
    assert "<b>dog" not in html
    assert "&lt;b&gt;dog -&gt; wolf" in html
    assert html.count("data:image/webp") == 5
    only = relabel("diff", *(one.store.uri for one in pair), "--json", "-")
    assert json.loads(only.stdout) == figures


def test_what_came_in_against_what_came_out(pair: tuple[Result, Result]) -> None:
    done = relabel("diff", pair[1].store.uri)
    assert done.exit_code == 0, done.output
    assert "@coarse -> " in done.stdout
    assert "3 same, 1 changed, 0 added, 0 removed" in done.stdout


def test_generations(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.plan({0: (4, ord("a")), 1: (2, ord("b"))})
    output.refine(output.pending())
    output.seal(Gate(enabled=False), Retention(keep_generations=2))
    output.seal(Gate(min_quality_gain=0.99), Retention(keep_generations=2))
    done = relabel("diff", f"{output.folder}@0", output.folder)
    assert done.exit_code == 0, done.output
    assert "decision refined -> review: 6" in done.stdout
    assert "no generation 7" in str(relabel("diff", f"{output.folder}@7", output.folder).exception)
    output.seal(Gate(enabled=False, min_coarse_iou=0.2))
    gone = relabel("diff", f"{output.folder}@1", output.folder).exception
    assert isinstance(gone, RefusedError)


def test_an_image_of_another_size_has_no_iou(tmp_path: Path) -> None:
    other = np.zeros((30, 40), np.uint8)
    other[5:9, 5:9] = 1
    results = [
        write_result(tmp_path / str(number), [[mask_row("a.png", 0, mask, mask)]], str(tmp_path))
        for number, mask in enumerate((SMALL, other))
    ]
    found = compare(*(find_side(result.store.uri, Access()) for result in results), 1)
    assert (found.resized, found.all.measured, found.all.states["changed"]) == (1, 0, 1)


def test_one_side_alone_needs_the_other(pair: tuple[Result, Result]) -> None:
    refused = relabel("diff", f"{pair[0].store.uri}@coarse").exception
    assert isinstance(refused, RefusedError)
    assert "relabel diff BEFORE AFTER" in str(refused)
