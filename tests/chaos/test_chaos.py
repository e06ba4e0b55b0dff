"""The short modes of the chaos scripts."""

import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import Access, Store
from tests.chaos import damage, fields, kills, pauses, scale
from tests.chaos.runs import s3_server


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_kill_of_each_kind_leaves_the_same_bytes(tmp_path: Path) -> None:
    landed: list[dict[str, Any]] = []
    for count in range(8, 16):  # one that comes too late does not land, and is drawn again
        rounds = kills.kill(count, seed=0, folder=tmp_path, per_round=1)
        landed = [kill for entry in rounds for kill in entry["landed"]]
        if {kill["kind"] for kill in landed} == set(kills.KINDS):
            break
    assert {kill["kind"] for kill in landed} == set(kills.KINDS)
    assert {kill["remote"] for kill in landed} == {False, True}  # local disk, S3 behind faults
    assert all(entry["same"] for entry in rounds)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_driver_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    figures = scale.measure(tmp_path, images=5000)
    assert figures.code == 0, figures.error
    assert figures.driver_peak_mb < 1024
    assert figures.driver_slope_kb_per_image < 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_corpus_larger_than_memory(tmp_path: Path) -> None:
    """400 images of 12 MB decoded (5 GB) through an object store of 256 MiB and workers of 1.5 GiB."""
    figures = scale.measure(tmp_path, images=400, side=2048, chunk_images=4, object_store_mb=256, worker_memory_mb=1536)
    assert figures.code == 0, figures.error


def test_who_was_paused_and_overtaken_changes_nothing(tmp_path: Path) -> None:
    tried = pauses.play(tmp_path, 12, seed=0)
    assert [entry for entry in tried if entry["wrong"]] == []
    assert len(tried) == 12


def test_a_damaged_file_is_one_line_and_nothing_else_is_lost(tmp_path: Path) -> None:
    tried = damage.play(tmp_path, 8, seed=0)
    assert [entry for entry in tried if entry["wrong"]] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_who_was_paused_on_an_object_store_changes_nothing(tmp_path: Path) -> None:
    with s3_server() as endpoint:
        tried = pauses.play(tmp_path, 24, 0, Store("s3://chaos/pauses", Access(endpoint)))
    assert [entry for entry in tried if entry["wrong"]] == []


@pytest.mark.parametrize("number", [60, pytest.param(6000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_a_wrong_value_in_any_field_is_a_row_or_a_line(number: int) -> None:
    found: list[str] = []
    ended = fields.tried(random.Random(0).sample(fields.cases(), number), found.append)
    assert found == []
    assert ended["rows"] > ended["refused"] > 0
