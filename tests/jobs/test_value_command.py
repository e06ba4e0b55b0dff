"""`relabel value` on a set small enough for a test: it shows what it is there to show."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from jobs.value import value
from pipeline.errors import RefusedError
from pipeline.masks import binary
from tests.results import SIZE_HW, ellipse, mask_row, write_photo, write_result

IMAGES = 24

app = typer.Typer()
app.command()(value)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--features", "lite", "--threads", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarse masks are 5 pixels too wide; refined ones are the truth but for a shift of one pixel."""
    folder, random = tmp_path_factory.mktemp("value"), np.random.default_rng(0)
    rows, annotations = [], []
    for number in range(IMAGES):
        name = f"{number:02}.png"
        centre = int(random.integers(20, 44)), int(random.integers(16, 32))
        shape = ellipse(centre, int(random.integers(9, 14)), float(random.uniform(0, 180)))
        write_photo(folder / "photos" / name, [shape], number)
        rows.append(mask_row(name, number, cv2.dilate(shape, np.ones((11, 11), np.uint8)), np.roll(shape, 1, axis=0)))
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": binary.encode(shape)})
    write_result(folder / "out", [rows], str(folder / "photos"))
    images = [{"id": n, "file_name": f"{n:02}.png", "height": SIZE_HW[0], "width": SIZE_HW[1]} for n in range(IMAGES)]
    names = [image["file_name"] for image in images]
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (folder / "split.json").write_text(json.dumps({"A": names[::2], "B": names[1::2]}))
    return folder


def test_refined_labels_teach_the_better_segmenter(made: Path) -> None:
    given = [str(made / "out"), "--ground-truth", str(made / "truth.json"), "--test", f"{made}/split.json:B"]
    given += ["--train", f"{made}/split.json:A", "--seeds", "1", "--epochs", "30", "--cache", str(made / "trainings")]
    told = run(*given, "--json", str(made / "worth.json"))
    worth = json.loads((made / "worth.json").read_text())
    labels = worth["labels"]
    assert list(labels) == ["coarse", "refined", "weighted", "filtered", "true"]
    assert (worth["tested"], labels["coarse"]["masks"], labels["filtered"]["masks"]) == (12, 12, 9)
    assert labels["refined"]["over_coarse"]["low"] > 0.05
    assert labels["refined"]["mean_iou"]["value"] > 0.8
    assert "refined: better than coarse" in told
    assert json.loads(run(*given, "--json", "-")) == worth


def test_a_truth_of_other_ids_is_refused(made: Path, tmp_path: Path) -> None:
    truth = json.loads((made / "truth.json").read_text())
    for annotation in truth["annotations"]:
        annotation["id"] += 1000
    (tmp_path / "other.json").write_text(json.dumps(truth))
    with pytest.raises(RefusedError, match="no mask to be tested on"):
        run(str(made / "out"), "--ground-truth", str(tmp_path / "other.json"))
