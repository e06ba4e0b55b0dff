"""The rules of the house: which module may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TORCH = {
    Path("pipeline/dataset/feed.py"),  # it is PyTorch datasets; imported when asked for
    Path("jobs/examples/train_segmenter.py"),  # what a user of the feed writes
}
MODULES = sorted(path for top in ("pipeline", "jobs", "schemas") for path in (ROOT / top).rglob("*.py"))
RAY = {"planning/increment.py", "refining/ray_pipeline.py", "seal.py", "job.py"}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def test_whoever_imports_the_feed_does_so_when_it_is_needed() -> None:
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and path.relative_to(ROOT) not in TORCH:
                assert node.module != "pipeline.dataset.feed", path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    where = path.relative_to(ROOT)
    if "torch" in tops(path) or "segment_anything" in tops(path):
        assert where.parts[:2] == ("pipeline", "models") or where in TORCH, "only models/ and the feed import torch"
    if "ray" in tops(path):
        assert where.parent == Path("pipeline"), "only plan, stages, seal and run import Ray"
        assert where.name in RAY, "only plan, stages, seal and run import Ray"
    if where.parts[0] == "schemas":
        assert not tops(path) & {"pipeline", "jobs"}, "schemas imports nothing of ours"
    if where.parts[0] == "pipeline":
        assert "jobs" not in tops(path), "pipeline does not know the command line"


def test_the_pure_modules_do_no_input_or_output() -> None:
    for name in ("masks/binary.py", "masks/frames.py", "prompts.py", "masks/scores.py", "regions.py", "cams.py"):
        assert not tops(ROOT / "pipeline" / name) & {"fsspec", "ray", "torch", "pyarrow", "os", "pathlib"}


def test_run_reads_like_the_design() -> None:
    body = (ROOT / "pipeline" / "job.py").read_text()
    assert body.index("plan_increment(") < body.index("refine_chunks(tasks") < body.index("return seal(")


def test_the_top_level_is_fixed() -> None:
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.is_dir()}
    allowed = {"pipeline", "jobs", "schemas", "tests", "infra", "demo", "build"}
    assert {name for name in visible if not name.endswith(".egg-info")} <= allowed


def test_the_command_line_starts_without_the_slow_libraries() -> None:
    script = "import sys, jobs.cli; print(*{'torch', 'ray', 'pandas', 'scipy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
