"""Every command that takes a URI, without the package that its kind of URI needs: one line, exit code 2."""

import importlib.util
import shutil
import signal
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from jobs import cli
from pipeline.errors import RefusedError
from pipeline.evaluation.plots import check_available
from pipeline.refiners import REFINERS, check_refiner
from tests.conftest import DEMO, Demo

PHOTO, COARSE = str(DEMO / "images" / "coffee.jpg"), str(DEMO / "coarse.json")
OUT, RESULT = "gs://b/x", "RESULT"

COMMANDS = {
    "run": [["--images", "gs://b/x", "--masks", COARSE, "--output", "OUT"], ["--masks", OUT, "--output", "OUT"]],
    "plan": [["--images", str(DEMO / "images"), "--masks", COARSE, "--output", OUT]],
    "inspect": [["--images", "gs://b/x", "--masks", COARSE], ["--images", str(DEMO / "images"), "--masks", OUT]],
    "config": [["--config", "gs://b/relabel.yaml"]],
    "refine": [[PHOTO, PHOTO, "--output", "OUT", "--model", "vit_b", "--checkpoint", "gs://b/x.pth"]],
    "status": [[OUT], ["az://c/x"], ["abfs://c/x"], ["nosuch://x"]],
    "files": [[OUT]],
    "verify": [[OUT]],
    "gc": [[OUT]],
    "export": [[OUT, "--format", "coco", "--to", "OUT"], [RESULT, "--format", "coco", "--to", OUT]],
    "evaluate": [
        ["--predictions", OUT, "--ground-truth", "gs://b/truth.json"],
        ["--predictions", RESULT, "--ground-truth", "gs://b/truth.json"],
        ["--predictions", OUT, "--ground-truth", COARSE],
        ["--predictions", RESULT, "--ground-truth", COARSE, "--json", "gs://b/figures.json"],
    ],
    "value": [
        [OUT, "--ground-truth", "gs://b/truth.json"],
        [RESULT, "--ground-truth", COARSE, "--json", "gs://b/worth.json"],
    ],
    "adapt": [
        ["--images", "gs://b/x", "--masks", COARSE, "--output", "OUT"],
        ["--images", str(DEMO / "images"), "--masks", COARSE, "--output", "gs://b/a.safetensors"],
    ],
    "calibrate": [
        [OUT, "--ground-truth", COARSE, "--output", "OUT"],
        [RESULT, "--verdicts", "--output", "gs://b/c.json"],
    ],
    "seal": [[OUT], [RESULT, "--calibration", "gs://b/c.json"]],
    "report": [[OUT], [RESULT, "--to", "gs://b/r.html"]],
    "review": [[OUT, "verdicts.json"], [RESULT, "gs://b/verdicts.json"]],
    "diff": [[OUT, RESULT], [RESULT, OUT], [RESULT, RESULT, "--html", "gs://b/d.html"]],
    "findings": [[OUT], [RESULT, "--as-patches", "gs://b/p.json"]],
    "patch": [[OUT, "--from", "patches.json"], [RESULT, "--from", "gs://b/p.json"]],
    "merge": [["gs://b/a.json", COARSE, "--images", str(DEMO / "images"), "--output", "OUT.json"]],
    "bench": [["--model", "vit_b", "--checkpoint", "gs://b/x.pth", "--images", "1"]],
}
LOCAL = {"demo", "doctor", "train-lite"}
"""They take no URI, or say what is wrong with it in a table."""


def test_every_command_is_here() -> None:
    assert set(get_command(cli.app).commands) == set(COMMANDS) | LOCAL


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)  # an import of it fails, as where it is not installed


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, tried in COMMANDS.items() for arguments in tried]
)
def test_a_missing_file_system_is_one_line(
    name: str,
    arguments: list[str],
    without_extras: None,
    demo: Demo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "verdicts.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo.folder / "result", tmp_path / "result")
    places = {"OUT": str(tmp_path / "out"), RESULT: str(tmp_path / "result")}
    monkeypatch.setattr(sys, "argv", ["relabel", name, *(places.get(one, one) for one in arguments)])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert end.value.code == 2, line
    if "nosuch://x" in arguments:
        assert "nosuch:// is no kind of URI" in line
    else:
        wanted = "azure" if any(one.startswith(("az:", "abfs:")) for one in arguments) else "gcs"
        assert f"pip install 'relabel-masks[{wanted}]'" in line


def test_other_extras_are_asked_for_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    extras = {name: refiner.extra for name, refiner in REFINERS.items() if refiner.extra}
    hidden = {"matplotlib", *(module for _, module in extras.values())}
    monkeypatch.setattr("pipeline.extras.find_spec", lambda name: None if name in hidden else found(name))
    with pytest.raises(RefusedError, match=r"--plots needs matplotlib: pip install 'relabel-masks\[plots\]'"):
        check_available()
    for name, (extra, module) in extras.items():
        with pytest.raises(RefusedError, match=rf"{module}: pip install 'relabel-masks\[{extra}\]'"):
            check_refiner(name)
