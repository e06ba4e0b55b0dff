"""The example runs, and shows what it is there to show, on a set small enough for a test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from pipeline.masks import binary
from tests.conftest import ROOT
from tests.results import SIZE_HW, ellipse, mask_row, write_photo, write_result

IMAGES = 24


def test_refined_labels_train_the_better_segmenter(tmp_path: Path) -> None:
    """Coarse masks are 5 pixels too wide; refined ones are the truth but for a shift of one pixel."""
    random = np.random.default_rng(0)
    rows, annotations = [], []
    for number in range(IMAGES):
        name = f"{number:02}.png"
        centre = int(random.integers(20, 44)), int(random.integers(16, 32))
        shape = ellipse(centre, int(random.integers(9, 14)), float(random.uniform(0, 180)))
        write_photo(tmp_path / "photos" / name, [shape], number)
        rows.append(mask_row(name, number, cv2.dilate(shape, np.ones((11, 11), np.uint8)), np.roll(shape, 1, axis=0)))
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": binary.encode(shape)})
    write_result(tmp_path / "out", [rows], str(tmp_path / "photos"))
    images = [{"id": n, "file_name": f"{n:02}.png", "height": SIZE_HW[0], "width": SIZE_HW[1]} for n in range(IMAGES)]
    truth, split = tmp_path / "truth.json", tmp_path / "split.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations}))
    split.write_text(
        json.dumps({"A": [i["file_name"] for i in images[::2]], "B": [i["file_name"] for i in images[1::2]]})
    )
    command = [sys.executable, "-m", "jobs.examples.train_segmenter", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--truth", str(truth), "--split", str(split), "--epochs", "12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    coarse, refined = (float(x) for x in re.findall(r"labels +([0-9.]+)", done.stdout))
    assert "mIoU on 12 true masks" in done.stdout
    assert refined > coarse + 0.05
    assert refined > 0.8
