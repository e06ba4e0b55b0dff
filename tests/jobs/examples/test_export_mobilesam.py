"""MobileSAM's own package, with random weights of the real architecture: exported, and refined with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.examples import export_mobilesam
from tests.conftest import DEMO, ROOT, Cli

UV = Path(sys.executable).parent / "uv"
PACKAGES = [
    "mobilesam-mirror==1.0.0",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
]
RANDOM = """
import sys, torch
from mobile_sam import sam_model_registry
torch.manual_seed(0)
torch.save(sam_model_registry["vit_t"]().state_dict(), sys.argv[1])
"""


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mobile_sam", None)
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path / "mobile_sam.pt"), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="pip install mobilesam-mirror"):
        export_mobilesam.main()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not UV.exists(), reason=f"makes an environment with uv, which is not at {UV}")
def test_it_is_exported_and_refines(tmp_path: Path, relabel: Cli) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    python, weights, folder = tmp_path / "env" / "bin" / "python", tmp_path / "mobile_sam.pt", tmp_path / "mobile-sam"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True)
    pinned = ["--constraint", ROOT / "constraints.txt", *PACKAGES]
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, *pinned], check=True, timeout=900)
    subprocess.run([python, "-c", RANDOM, weights], check=True)
    export = [python, "-m", "jobs.examples.export_mobilesam", weights, folder]
    done = subprocess.run(export, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(re.search(r"correlate with ([\d.]+)", done.stdout)[1]) >= export_mobilesam.LEAST_CORRELATION  # type: ignore[index]
    again = subprocess.run(export, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (again.returncode, "exists: name a new folder" in again.stderr) == (1, True)
    coarse = json.loads((DEMO / "coarse.json").read_text())
    [image] = [one for one in coarse["images"] if one["file_name"] == "chelsea.jpg"]
    mask = next(one for one in coarse["annotations"] if one["image_id"] == image["id"])
    canvas = np.zeros((image["height"], image["width"]), np.uint8)
    outline = np.array(mask["segmentation"][0], np.int32).reshape(-1, 2)
    cv2.imwrite(str(tmp_path / "coarse.png"), cv2.fillPoly(canvas, [outline], (255,)))
    given = [DEMO / "images" / "chelsea.jpg", tmp_path / "coarse.png", "--output", tmp_path / "refined.png"]
    refined = relabel("refine", *given, "--model", "exported", "--checkpoint", folder)
    assert refined.returncode == 0, refined.stderr
    assert cv2.imread(str(tmp_path / "refined.png")).shape[:2] == (image["height"], image["width"])
