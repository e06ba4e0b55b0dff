"""The operator's page: what it names exists, and its table is its formula."""

import math
import re

import pytest
import yaml

from tests.conftest import ROOT, Cli

README = (ROOT / "infra" / "README.md").read_text()
GPUS, REQUESTS = 9, 6  # columns of the two tables of "Sizing"


def rows(columns: int) -> list[list[float]]:
    """The numbers of the table of "Sizing" that has so many columns."""
    section = README[README.index("## Sizing") : README.index("## Runbook")]
    lines = [line.strip("| ").split("|") for line in section.splitlines() if re.match(r"\| \d", line)]
    return [
        [float(re.sub(r"[^0-9.]", "", cell.replace("GiB", ""))) for cell in line]
        for line in lines
        if len(line) == columns
    ]


def test_the_sizing_table_is_the_formula() -> None:
    share, hours, price, memory = 0.7, 8, 2, 28
    assert [row[0] for row in rows(GPUS)] == [1e4, 1e5, 1e6, 1e7]
    for images, *by_model in rows(GPUS):
        for rate, (gpu_hours, gpus, gib, cost) in zip((12.1, 2.8), (by_model[:4], by_model[4:]), strict=True):
            exact = images / (3600 * rate * share)
            assert gpu_hours == pytest.approx(exact, rel=0.1)
            assert gpus == math.ceil(exact / hours)
            assert gib == memory * gpus
            assert cost == pytest.approx(exact * price, rel=0.1)
    worker = yaml.safe_load((ROOT / "infra/kubernetes/base/rayjob.yaml").read_text())
    [group] = worker["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == f"{memory}Gi"


def test_the_table_of_requests_is_the_formula() -> None:
    assert [row[0] for row in rows(REQUESTS)] == [1e4, 1e5, 1e6, 1e7]
    for images, chunks, gets, puts, lists, cost in rows(REQUESTS):
        assert chunks == math.ceil(images / 64)
        assert gets == images + 3 * chunks
        assert chunks < puts < 1.01 * chunks
        assert lists == math.ceil((images + chunks) / 1000)
        assert cost == pytest.approx(0.4e-6 * gets + 5e-6 * (puts + lists), abs=0.005)


def test_files_that_it_names_exist() -> None:
    named = set(re.findall(r"`((?:kubernetes|base|gpu-spot|nightly|kueue)/[\w./-]+?)/?`", README))
    named |= set(re.findall(r"\]\(([^)#]+)\)", README))
    assert len(named) > 8
    for path in named:
        places = [ROOT / "infra" / path, ROOT / "infra/kubernetes" / path, ROOT / "infra/kubernetes/overlays" / path]
        assert any(place.exists() for place in places), path


def test_options_and_settings_that_it_names_exist(relabel: Cli) -> None:
    known = relabel("run", "--help", COLUMNS="200").stdout
    for name in set(re.findall(r"RELABEL_(?!RUN_ID)[A-Z]+", README)) | {"--new-version", "--address"}:
        assert name in known, name
    planned = relabel("plan", "--help", COLUMNS="200").stdout
    assert all(f"--{name}" in planned for name in ("estimate", "machines", "price-per-machine-hour"))
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
