"""The Dockerfile, as far as it can be checked without Docker: linted, and everything it copies is there and sent."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCKERFILE = ROOT / "infra" / "Dockerfile"
TEXT = DOCKERFILE.read_text()
LAST_STAGE = TEXT[TEXT.rindex("\nFROM ") :]


HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
needs_hadolint = pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed; it is GPL, so no extra has it")


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HADOLINT), "--no-color", str(path)], capture_output=True, text=True, check=False)


@needs_hadolint
def test_it_is_linted() -> None:
    done = lint(DOCKERFILE)
    assert done.returncode == 0, done.stdout


@needs_hadolint
def test_the_linter_notices(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT.replace("libgomp1=12.*", "libgomp1") + "\nUSER root\n")
    done = lint(tmp_path / "Dockerfile")
    assert done.returncode != 0
    assert "DL3008" in done.stdout
    assert "DL3002" in done.stdout


def test_the_last_stage_is_small_pinned_and_not_root() -> None:
    assert re.findall(r"^FROM (\S+) AS (\w+)$", TEXT, re.M) == [
        ("${PYTHON_IMAGE}", "build"),
        ("${PYTHON_IMAGE}", "weights"),
        ("${PYTHON_IMAGE}", "runtime"),
    ]
    [base] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", TEXT, re.M)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert "pip install" not in LAST_STAGE
    assert re.search(r"^USER (\d+):\d+$", LAST_STAGE, re.M)[1] == "10001"
    assert "ENTRYPOINT [" not in LAST_STAGE


def test_what_it_copies_is_sent_to_the_builder() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {source for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.M) for source in line.split()[:-1]}
    assert copied == {line[1:] for line in ignore if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)


def test_the_command_that_lists_the_dependencies(tmp_path: Path) -> None:
    """The python -c of the Dockerfile, run as it stands there."""
    tomllib = pytest.importorskip("tomllib", reason="the image's Python is newer than this one")
    [script] = re.findall(r'^RUN python -c "(.+?)" > requirements.txt', TEXT, re.M | re.S)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{script}"'], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert done.stdout.splitlines() == [*wanted["dependencies"], *wanted["optional-dependencies"]["cluster"]]
    assert any(line.startswith("ray[default]") for line in done.stdout.splitlines())


@pytest.mark.parametrize("good", [True, False])
def test_weights_are_fetched_and_checked(tmp_path: Path, good: bool) -> None:
    """The step of the Dockerfile, run as it stands there on a file instead of a URL of the network."""
    [step] = re.findall(r"^RUN (mkdir /weights.+?; fi)$", TEXT, re.M | re.S)
    source = tmp_path / "sam.pth"
    source.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights" if good else b"other").hexdigest()
    script = (
        step.replace("/tmp/wanted", str(tmp_path / "wanted"))
        .replace("/weights", str(tmp_path / "weights"))
        .replace("python -c", f"{sys.executable} -c")
    )
    env = {"PATH": "/usr/bin:/bin", "WEIGHTS_URL": source.as_uri(), "WEIGHTS_SHA256": sha256}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is good, done.stderr
    assert (tmp_path / "weights" / "sam.pth").exists()
