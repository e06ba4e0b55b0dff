"""Where it is started does not matter, and which modules Python found is said where it does."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster.worker_path import driver_folder, strangers
from tests.conftest import ROOT


@pytest.fixture
def beside_strangers(tmp_path: Path) -> Path:
    """A folder with modules by this project's names, which must not be imported."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "jobs").mkdir()
    for name in ("pipeline.py", "schemas/__init__.py", "jobs/__init__.py"):
        (tmp_path / name).write_text("raise RuntimeError('a stranger was imported')\n")
    return tmp_path


def test_strangers_are_files_that_would_be_imported(
    beside_strangers: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = {Path(origin).relative_to(beside_strangers).as_posix() for origin in strangers(beside_strangers)}
    assert found == {"pipeline.py", "schemas/__init__.py", "jobs/__init__.py"}
    assert strangers(ROOT) == []
    plain = tmp_path_factory.mktemp("plain")
    (plain / "jobs").mkdir()  # without __init__.py it gives way to what is installed
    assert strangers(plain) == []


def test_the_driver_starts_here_unless_strangers_do(beside_strangers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(beside_strangers)
    with driver_folder() as folder:
        assert list(Path(folder).iterdir()) == []
    assert not Path(folder).exists()
    monkeypatch.chdir(ROOT)
    with driver_folder() as folder:
        assert Path(folder) == ROOT


def python(*arguments: str, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("name", "stranger"), [("pipeline", "pipeline.py"), ("schemas", "schemas/__init__.py")])
def test_the_command_says_which_file_it_would_get(name: str, stranger: str, tmp_path: Path) -> None:
    (tmp_path / stranger).parent.mkdir(exist_ok=True)
    (tmp_path / stranger).write_text("raise RuntimeError('a stranger was imported')\n")
    done = python("-m", "jobs", "--help", folder=ROOT, path=str(tmp_path))
    assert done.returncode == 0, done.stderr  # the folder of `-m` comes before PYTHONPATH
    script = "import sys; from jobs.__main__ import main; sys.path.insert(0, sys.argv[1]); main()"
    done = python("-c", script, str(tmp_path), folder=ROOT, path=str(ROOT))
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"relabel: Python finds {tmp_path / stranger} for `{name}`")


def test_importing_the_package_says_which_schemas_it_would_get(beside_strangers: Path) -> None:
    (beside_strangers / "pipeline.py").unlink()
    done = python("-c", "import pipeline", folder=beside_strangers, path=str(ROOT))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "needs the package `schemas` beside it" in last
    assert str(beside_strangers / "schemas" / "__init__.py") in last
