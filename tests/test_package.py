"""The distribution: its name and what is in it, and that it works where it is installed, wherever it is started."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.exports import EXPORTS
from pipeline.extras import DISTRIBUTION
from pipeline.refiners import REFINERS
from pipeline.storage import file_systems
from tests.conftest import ROOT

UV = Path(sys.executable).parent / "uv"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_messages_name_the_distribution_and_extras_that_there_are(project: dict[str, Any]) -> None:
    assert project["name"] == DISTRIBUTION
    named = {refiner.extra[0] for refiner in REFINERS.values() if refiner.extra}
    named |= {*file_systems.EXTRAS.values(), "plots"}
    assert named <= set(project["optional-dependencies"])
    assert "relabel[" not in "".join(path.read_text() for path in ROOT.glob("pipeline/**/*.py"))


def test_what_the_package_shows() -> None:
    assert {"open", "refine", "run"} <= set(dir(pipeline))
    assert all(getattr(pipeline, name) is not None for name in dir(pipeline))
    assert re.fullmatch(r"\d+\.\d+\.\d+", pipeline.__version__)
    for folder in ("pipeline", "jobs", "schemas"):
        assert (ROOT / folder / "py.typed").exists()


def test_the_readme_is_whole_on_a_package_page() -> None:
    """There a relative link, or one to a heading, leads nowhere."""
    readme = (ROOT / "README.md").read_text()
    assert not re.findall(r"\]\((?!https?://)[^)]*\)", readme)
    for path in re.findall(r"`((?:\.github|infra|jobs|tests|pipeline)/[\w./]+|[A-Z]+(?:\.md)?)`", readme):
        assert (ROOT / path).exists() or path.isupper(), path


def test_the_documents_name_files_that_there_are() -> None:
    for document in ("CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"):
        text = (ROOT / ".github" / document).read_text()
        for path in re.findall(r"`((?:pipeline|jobs|schemas|tests|infra|\.github)/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{document}: {path}"
    assert all(f"`{name}`" in (ROOT / "REFERENCE.md").read_text() for name in EXPORTS)


def demo_beside_strangers(relabel: Path, folder: Path, **env: str) -> None:
    """`relabel demo` in a folder with modules by this project's names, which nobody may import."""
    for name in ("pipeline.py", "schemas/__init__.py", "jobs/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise RuntimeError('a stranger was imported')\n")
    command = [relabel, "demo", "--output", folder / "demo"]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        command, cwd=folder, env={**clean, **env}, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rocket.jpg" in done.stdout
    assert len(list((folder / "demo").glob("result/runs/*/masks/*.parquet"))) == 1


@pytest.mark.slow
def test_it_runs_beside_strangers_as_it_is_installed_here(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "relabel"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom jobs.__main__ import main\nmain()\n")
    script.chmod(0o755)
    demo_beside_strangers(script, tmp_path, PYTHONPATH=str(ROOT))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_wheel_runs_beside_strangers_without_the_repository(tmp_path: Path) -> None:
    if not UV.exists():
        pytest.skip(f"builds and installs with uv, which is not at {UV}")
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", ROOT], check=True, timeout=300)
    [wheel] = (tmp_path / "dist").glob("relabel_masks-*.whl")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=300)
    constraint = ["--constraint", ROOT / "constraints.txt"]
    install = [UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python", *constraint, wheel]
    subprocess.run(install, check=True, timeout=1200)
    (tmp_path / "elsewhere").mkdir()
    demo_beside_strangers(environment / "bin" / "relabel", tmp_path / "elsewhere")
