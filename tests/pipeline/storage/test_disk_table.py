"""Scratch space on disk: what was put in comes out in order, nothing stays behind, a full disk is one line."""

import errno
import math
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.storage import disk_table
from pipeline.storage.disk_table import DiskTable, scratch_folder, temporary_database
from tests.conftest import DEMO, Cli, small_disk
from tests.pipeline.sources.test_json_stream import write_large

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that TMPDIR names."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # where it was found before
    return tmp_path


@settings(max_examples=40, deadline=None)
@given(entries=st.lists(st.tuples(st.integers(0, 5), VALUES), max_size=40), held=st.sampled_from([0, 30, 1 << 20]))
def test_each_partition_comes_back_in_the_order_in_which_it_was_filled(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, object]], held: int
) -> None:
    table = DiskTable(tmp_path_factory.mktemp("table"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_table, "HELD_CHARACTERS", held)
        for partition, value in entries:
            table.add(partition, value)
        for low, high in ((0, 5), (1, 3), (4, 4), (9, 9)):
            wanted = [value for n in range(low, high + 1) for partition, value in entries if partition == n]
            assert table.read(low, high) == wanted


def test_half_a_surrogate_pair_and_no_number_come_back(tmp_path: Path) -> None:
    table = DiskTable(tmp_path)
    table.add(0, ["\ud800", float("inf"), float("nan")])
    [[text, infinite, no_number]] = table.read(0, 0)
    assert (text, infinite) == ("\ud800", float("inf"))
    assert math.isnan(no_number)


def test_temporary_files_lie_below_tmpdir_and_are_gone_whatever_happens(scratch: Path) -> None:
    with scratch_folder("test") as folder, temporary_database("CREATE TABLE t (x)") as database:
        database.execute("INSERT INTO t VALUES (1)")
        assert folder.parent == scratch
        assert len(list(scratch.rglob("*.db"))) == 1

    def breaks_off() -> None:
        with scratch_folder("test") as folder, temporary_database("CREATE TABLE t (x)"):
            DiskTable(folder).add(0, "x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaks_off()
    assert not list(scratch.iterdir())


def test_other_errors_pass_as_they_are(scratch: Path) -> None:
    with pytest.raises(PermissionError), scratch_folder("test"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with pytest.raises(sqlite3.OperationalError, match="no such table"), temporary_database() as database:
        database.execute("SELECT * FROM t")


def test_nowhere_to_write_is_one_line(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/no such folder"])
    with pytest.raises(JobError, match=r"no room for temporary files: .*Set TMPDIR"), scratch_folder("test"):
        pass


def test_a_full_disk_for_temporary_files_is_one_line(tmp_path: Path, relabel: Cli) -> None:
    write_large(tmp_path / "large.json", 24)
    with small_disk(tmp_path / "disk", "4m") as disk:
        arguments = ["--images", DEMO / "images", "--masks", tmp_path / "large.json", "--output", tmp_path / "out"]
        done = relabel("plan", *arguments, TMPDIR=str(disk))
        assert done.returncode == 1, done.stderr
        *_, line = [line for line in done.stderr.splitlines() if line]
        assert f"no room for temporary files in {disk}: database or disk is full" in line
        assert not list(disk.iterdir())
