"""The page without a browser: nothing gets out of its quotes, nothing comes from elsewhere, the figures are right."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.dataset import Result
from pipeline.dataset.verdicts import digest
from pipeline.errors import RefusedError
from pipeline.report import risk
from pipeline.report.document import as_json
from pipeline.report.page import report
from pipeline.report.survey import BINS
from pipeline.storage import Access
from tests.pipeline.report.conftest import HOSTILE
from tests.results import ellipse, mask_row, write_photo, write_result


class Elements(HTMLParser):
    """Every element with its attributes, and the text of each script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self.text = self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, _tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.inside.append((self._open, data))
        self.text += data


@pytest.fixture(scope="module")
def html(result: Result) -> str:
    return report(result.store.uri, per_stratum=20).html


def test_hostile_names_stay_text(html: str) -> None:
    parsed = Elements(html)
    assert [tag for tag, _ in parsed.found].count("script") == 2
    assert not [tag for tag, _ in parsed.found if tag in ("img", "iframe", "object", "embed", "link", "base", "form")]
    assert not [name for _, values in parsed.found for name in values if name.startswith("on") or name == "style"]
    for name in HOSTILE:
        assert name not in html
    assert HOSTILE[1] in parsed.text  # escaped, it is there to read
    data = json.loads(next(text for tag, text in parsed.inside if tag == "script"))
    assert {item["category"] for item in data["items"]} == {*HOSTILE, "plain cat"}
    assert json.loads(as_json({"a": "</script>&"})) == {"a": "</script>&"}


def test_nothing_is_loaded_and_only_the_pages_own_script_runs(html: str) -> None:
    parsed = Elements(html)
    [policy] = [v["content"] for tag, v in parsed.found if v.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        text = [text for name, text in parsed.inside if name == tag][-1]
        digest_of = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest_of}'" in policy
    links = [v for _, values in parsed.found for name, v in values.items() if name in ("src", "href") and v]
    assert all(link.startswith("#") for link in links)
    without_data = re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\"' ]+", without_data)) == {"http://www.w3.org/2000/svg"}


def test_the_same_result_gives_the_same_bytes(result: Result, html: str) -> None:
    assert report(result.store.uri, per_stratum=20).html == html


def test_figures(result: Result, html: str, truth: Path) -> None:
    text = " ".join(Elements(html).text.split())
    assert "18masks" in text.replace(" ", "")
    assert "33.3 %" in text
    assert "expected from the result’s own quality estimate (uncalibrated-1), not measured" in text
    assert "mask_unreadable" in text
    measured = report(result.store.uri, ground_truth=str(truth), per_stratum=1).html
    assert "measured on 2 masks with ground truth" in measured


def test_risk_by_estimate() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[[50, 900]] = 1, 3
    curve = risk.by_estimate(counts, "c")
    assert curve is not None
    assert curve.risk[9] == pytest.approx(1 - 0.9005)
    assert curve.risk[-1] == pytest.approx((3 * (1 - 0.9005) + 1 - 0.0505) / 4)
    assert risk.by_estimate(np.zeros(BINS, np.int64), None) is None


def test_a_result_without_qualities_or_categories(tmp_path: Path) -> None:
    shape = ellipse((30, 20), 9)
    rows = [mask_row("a.png", 1, shape, shape, decision="failed", category=None, quality_coarse=None)]
    html = report(write_result(tmp_path / "out", [rows], str(tmp_path)).store.uri).html
    assert "No mask of this result has a quality" in html
    assert "image_missing" in html


def test_images_that_cannot_be_shown_are_told_unless_the_result_says_so_itself(tmp_path: Path) -> None:
    shape = ellipse((30, 20), 9)
    write_photo(tmp_path / "there.png", [shape], 1)
    failed = mask_row("gone.png", 1, shape, shape, decision="failed", reason="image_missing")
    rows = [failed, mask_row("there.png", 1, shape, shape)]
    output = write_result(tmp_path / "out", [rows], str(tmp_path)).store.uri
    command = ["report", output, "--to", str(tmp_path / "report.html")]
    assert CliRunner().invoke(app, command).exit_code == 0
    (tmp_path / "there.png").write_bytes(b"no image")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 3
    assert "report.html has no picture of 1 image: there.png (image_unreadable)." in done.stderr


def test_truth_that_fits_nothing_is_refused(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "gt.json"
    path.write_text('{"images": [], "annotations": []}')
    with pytest.raises(RefusedError):
        risk.by_truth(result, str(path), Access())


def test_the_commands(result: Result, tmp_path: Path) -> None:
    page, said = tmp_path / "report.html", tmp_path / "verdicts.json"
    run = CliRunner().invoke
    done = run(app, ["report", result.store.uri, "--to", str(page), "--sample", "2"], catch_exceptions=False)
    assert done.exit_code == 3
    assert "no picture of 1 image: gone 5 <b>&amp;.png (image_missing)" in done.stderr
    assert f"wrote {page}" in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    row = result.masks().to_pylist()[0]
    entry = {"mask_id": row["mask_id"], "digest": digest(row), "verdict": "better", "strata": ["random"]}
    said.write_text(json.dumps({"kind": "relabel-verdicts", "schema_version": 1, "verdicts": [entry]}))
    copy = write_result(tmp_path / "copy", [result.masks().to_pylist()], str(tmp_path))
    done = run(app, ["review", copy.store.uri, str(said)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "kept 1 verdict (1 better)" in done.stdout
    assert '"better"' in report(copy.store.uri, per_stratum=1).html
