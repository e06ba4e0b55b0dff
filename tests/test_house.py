"""The rules of the house that no tool checks; which module may import what is in pyproject.toml (import-linter)."""

import subprocess
import sys

from tests.conftest import ROOT


def test_run_reads_like_the_design() -> None:
    body = (ROOT / "pipeline" / "job.py").read_text()
    assert body.index("plan_increment(") < body.index("refine(tasks") < body.index("return seal(")


def test_the_top_level_is_fixed() -> None:
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.is_dir()}
    allowed = {"pipeline", "jobs", "schemas", "tests", "infra", "demo", "build"}
    assert {name for name in visible if not name.endswith(".egg-info")} <= allowed


def test_the_command_line_starts_without_the_slow_libraries() -> None:
    script = "import sys, jobs.cli; print(*{'torch', 'ray', 'pandas', 'scipy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
