"""Standard output and error that take no more: a full disk, a reader that has gone, closed ones. Real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from tests.conftest import ROOT
from tests.results import ellipse, mask_row, write_photo, write_result

MASK = ellipse((40, 24), 20)
FULL = "relabel: standard output takes no more: No space left on device. Files that are written stay; rerun it\n"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write_photo(folder / "photos" / "a.png", [MASK], 1)
    write_result(folder / "out", [[mask_row("a.png", 0, MASK, MASK)]], str(folder / "photos"))
    return folder / "out"


def relabel(*words: str | Path, **given: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **given.pop("env", {})}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **given}
    return subprocess.run(command, env=env, timeout=120, check=False, **streams)


@pytest.fixture
def full() -> Any:
    with Path("/dev/full").open("wb") as device:
        yield device


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["config"], ["files"], ["diff"], ["diff", "--json", "-"]]
)
def test_a_full_disk_below_standard_output_is_one_line_and_exit_code_1(
    words: list[str], output: Path, full: IO[bytes]
) -> None:
    given = [words[0], output, *words[1:]] if words[0] in ("files", "diff") else words
    done = relabel(*given, stdout=full)
    assert done.stderr.decode() == FULL
    assert done.returncode == 1


@pytest.mark.parametrize("words", [["--help"], ["config", "--schema"], ["files"], ["diff", "--json", "-"]])
def test_a_reader_that_has_gone_is_no_news(words: list[str], output: Path) -> None:
    given = [words[0], output, *words[1:]] if words[0] in ("files", "diff") else words
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = relabel(*given, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_work_goes_on_without_standard_error_and_says_so_by_its_exit_code(
    output: Path, tmp_path: Path, full: IO[bytes]
) -> None:
    done = relabel("diff", output, "--html", tmp_path / "page.html", stderr=full)  # says there that it wrote it
    assert done.returncode == 1
    assert b"1 same" in done.stdout
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")
    assert relabel("status", tmp_path / "nothing", stderr=full).returncode == 2  # its own code, where it has one


def test_a_reader_of_standard_error_that_has_gone_is_no_reader_of_results(output: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = relabel("diff", output, "--html", tmp_path / "page.html", stderr=writing)
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert b"1 same" in done.stdout


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_streams_swallow_what_they_are_given(closed: int, output: Path) -> None:
    done = relabel("diff", output, preexec_fn=lambda: os.close(closed))
    assert done.returncode == 0
    assert done.stderr == b""
    assert (b"1 same" in done.stdout) is (closed != 1)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("name", ["größe 😀".encode(), b"caf\xe9"])
def test_names_that_the_encoding_has_no_character_for(encoding: str, name: bytes, output: Path, tmp_path: Path) -> None:
    copy = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118 - paths of bytes
    shutil.copytree(os.fsencode(output), copy)
    env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    for command in ("files", "diff"):
        done = relabel(command, os.fsdecode(copy), env=env)
        assert (done.returncode, done.stderr) == (0, b"")
    done = relabel("report", os.fsdecode(copy), "--to", tmp_path / "page.html", env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"wrote" in done.stdout
