"""`relabel evaluate` end to end on the real dev set, where it is present, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from jobs.evaluate import evaluate
from pipeline.errors import RefusedError
from pipeline.evaluation import inputs
from pipeline.evaluation.measures import measure
from pipeline.evaluation.pairing import pair
from pipeline.masks import binary

MEAN_IOU = {"superpixel": 0.794, "morph": 0.694, "poly": 0.807, "lowres": 0.744, "patches": 0.852}  # its README

app = typer.Typer()
app.command()(evaluate)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("kind", MEAN_IOU)
def test_coarse_masks_have_the_documented_iou(kind: str, dev_data: Path) -> None:
    predictions = inputs.read_predictions(str(dev_data / f"coarse_{kind}.json"), set())
    pairing = pair(inputs.read_truth(str(dev_data / "gt.json")), predictions)
    assert len(pairing.pairs) == 401
    assert measure(pairing.pairs).sides["mask"].iou.mean() == pytest.approx(MEAN_IOU[kind], abs=0.0006)


def test_truth_against_coarse_on_one_split(tmp_path: Path, dev_data: Path) -> None:
    """The truth as prediction gains all that there is to gain, and harms nothing."""
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    out = run(
        *("--predictions", str(dev_data / "gt.json"), "--ground-truth", str(dev_data / "gt.json")),
        *("--coarse", str(dev_data / "coarse_poly.json"), "--images", f"{dev_data / 'split.json'}:B"),
        *("--json", str(tmp_path / "figures.json"), "--plots", str(tmp_path / "plots"), "--replicates", "50"),
    )
    groups = json.loads((tmp_path / "figures.json").read_text())["groups"]
    assert list(groups) == ["all", "COCO_MVal", "PennFudan", "mean of sources"]
    everyone = groups["all"]
    levels = everyone["levels"]
    assert levels["mask"]["mean_iou"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    gain = everyone["gains"]["mask"]["mean_iou"]
    assert gain["value"] == pytest.approx(1 - levels["coarse"]["mean_iou"]["value"])
    assert 0.1 < gain["low"] < gain["value"] < gain["high"] < 0.3
    assert everyone["harm"]["mask"]["worse"]["value"] == 0
    assert everyone["precision"]["mask"]["boundary"]["ap"] == pytest.approx(1.0)
    assert (tmp_path / "plots" / "gain_by_coarse_iou.png").stat().st_size > 1000
    assert "Gain over the coarse masks" in out


def test_coarse_beside_an_output_folder_is_refused(tmp_path: Path) -> None:
    truth = tmp_path / "gt.json"
    truth.write_text('{"images": [], "annotations": []}')
    with pytest.raises(RefusedError, match="--coarse goes with COCO JSON predictions"):
        run("--predictions", str(tmp_path), "--ground-truth", str(truth), "--coarse", str(truth))


def test_json_to_standard_output_is_nothing_but_json(tmp_path: Path) -> None:
    square = {
        "size": [40, 60],
        "counts": binary.encode(np.pad(np.ones((20, 20), np.uint8), ((10, 10), (10, 30))))["counts"],
    }
    truth = tmp_path / "gt.json"
    truth.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": square}],
            }
        )
    )
    report = json.loads(run("--predictions", str(truth), "--ground-truth", str(truth), "--json", "-"))
    assert report["groups"]["all"]["levels"]["mask"]["mean_iou"]["value"] == 1.0
    assert report["ground_truth"] == str(truth)
