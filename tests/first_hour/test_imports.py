"""How soon a command answers, told by what it imports before its first line; clocks differ from machine to machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import COMMANDS
from tests.conftest import DEMO, ROOT

SLOW = {"torch", "ray", "scipy", "sklearn", "pandas", "s3fs", "botocore", "transformers"}
"""Each takes a second or more where it is not in the page cache."""

SCRIPT = """
import json, sys
sys.argv = ["relabel", *json.loads(sys.argv[1])]
from jobs import cli
try:
    cli.main()
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""

UNTIL_IT_SPEAKS = """
from jobs import console
console.Screen.doing = lambda screen, what: sys.exit(sys.modules.update(spoke=sys))
"""


def imported_by(*arguments: str, until: str = "") -> set[str]:
    """The packages that a command line has imported when it ends. until: what makes it end earlier."""
    command = [sys.executable, "-c", SCRIPT.replace("from jobs import cli\n", f"from jobs import cli\n{until}")]
    command.append(json.dumps(arguments))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_help_needs_neither_arrays_nor_tables() -> None:
    assert not imported_by("--help") & (SLOW | {"pyarrow", "numpy", "cv2", "PIL", "fsspec"})


def test_no_command_imports_what_is_slow_to_know_its_options() -> None:
    script = "import json, sys; from jobs.cli import COMMANDS; [one.load() for one in COMMANDS.values()]; "
    script += "print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & SLOW


@pytest.mark.parametrize("command", ["run", "plan", "inspect"])
def test_the_first_line_of_planning_comes_before_torch_and_ray(command: str, tmp_path: Path) -> None:
    """Refused right after it: there is no mask in the file."""
    (tmp_path / "masks.json").write_text('{"images": [], "annotations": []}')
    given = ["--images", str(DEMO / "images"), "--masks", f"{tmp_path}/masks.json", "--output", f"{tmp_path}/out"]
    assert not imported_by(command, *given) & SLOW


IN = ("--images", str(DEMO / "images"), "--masks", str(DEMO / "coarse.json"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("adapt", *IN, "--output", "{here}/a.safetensors"),
        ("bench",),
        ("calibrate", "{here}/out", "--ground-truth", "truth.json", "--output", "{here}/c.json"),
        ("plan", *IN, "--output", "{here}/out", "--estimate"),
        ("seal", "{here}/out"),
        ("train-lite", "{here}/data", "{here}/out", "--steps", "1"),
        ("value", "{here}/out", "--ground-truth", "truth.json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_takes_seconds_to_import_is_imported_behind_a_spinner(arguments: tuple[str, ...], tmp_path: Path) -> None:
    imported = imported_by(*(word.format(here=tmp_path) for word in arguments), until=UNTIL_IT_SPEAKS)
    assert "spoke" in imported
    assert not imported & SLOW


def test_refine_reads_its_arguments_before_torch() -> None:
    assert not imported_by("refine", "nowhere.jpg", "nowhere.png", "--output", "x.png") & SLOW


def test_every_command_has_its_place_and_its_help() -> None:
    for name, place in COMMANDS.items():
        command = place.load()
        assert (command.name, command.rich_help_panel) == (name, place.panel)
        assert (place.outline(name).help or "").split() == (command.help or "").split()
