"""The operator's page: what it names exists, and its table is its formula."""

import math
import re

import pytest
import yaml

from tests.conftest import ROOT, Cli

README = (ROOT / "infra" / "README.md").read_text()
ROW = re.compile(r"^\| ([\d ]+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \| (\d+) \| ([\d ]+) \| ([\d ]+) \|", re.MULTILINE)


def number(text: str) -> float:
    return float(text.replace(" ", ""))


def test_the_sizing_table_is_the_formula() -> None:
    share, hours = 0.7, 8
    rows = [[number(cell) for cell in row] for row in ROW.findall(README.replace("1 417", "1417"))]
    assert [row[0] for row in rows] == [1e4, 1e5, 1e6, 1e7]
    for images, *by_model, chunks, gets in rows:
        for rate, (gpu_hours, gpus) in zip((12.1, 2.8), (by_model[:2], by_model[2:]), strict=True):
            exact = images / (3600 * rate * share)
            assert gpu_hours == pytest.approx(exact, rel=0.1)
            assert gpus == math.ceil(exact / hours)
        assert chunks == math.ceil(images / 64)
        assert gets == pytest.approx(images + 6 * chunks, rel=0.02)


def test_files_that_it_names_exist() -> None:
    named = set(re.findall(r"`((?:kubernetes|base|gpu-spot|nightly|kueue)/[\w./-]+?)/?`", README))
    named |= set(re.findall(r"\]\(([^)#]+)\)", README))
    assert len(named) > 8
    for path in named:
        places = [ROOT / "infra" / path, ROOT / "infra/kubernetes" / path, ROOT / "infra/kubernetes/overlays" / path]
        assert any(place.exists() for place in places), path


def test_options_and_settings_that_it_names_exist(relabel: Cli) -> None:
    known = relabel("run", "--help", COLUMNS="200").stdout
    for name in set(re.findall(r"RELABEL_(?!RUN_ID)[A-Z]+", README)) | {"--limit", "--new-version", "--address"}:
        assert name in known, name
    fields = (ROOT / "schemas" / "config.py").read_text()
    named = "chunk_images max_failed_share gpus_per_actor actors_min actors_max encode_batch decode_batch fetch_threads"
    for field in [*named.split(), "metrics_port", "metrics_linger_s", "log_format"]:
        assert f"`{field}" in README or f".{field}" in README, field
        assert f"    {field}:" in fields, field


def test_numbers_of_the_manifests() -> None:
    """The page says what the manifests do."""
    spec = yaml.safe_load((ROOT / "infra/kubernetes/base/rayjob.yaml").read_text())["spec"]
    assert f"`backoffLimit` ({spec['backoffLimit']})" in README
    assert f"`activeDeadlineSeconds` ({spec['activeDeadlineSeconds'] // 3600} h" in README
    assert spec["ttlSecondsAfterFinished"] == 300
    assert "the head after 5" in README
    assert spec["rayClusterSpec"]["autoscalerOptions"]["idleTimeoutSeconds"] == 120
    assert "after 2 idle minutes" in README
