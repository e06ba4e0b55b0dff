"""`relabel evaluate` end to end on the real dev set, where it is present, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from jobs.evaluate import evaluate
from pipeline.errors import RefusedError

DEV = Path(__file__).parents[2] / ".." / "shared" / "data" / "dev"
needs_dev = pytest.mark.skipif(not (DEV / "gt.json").exists(), reason="the dev set (../shared/data/dev) is not here")
MEAN_IOU = {"superpixel": 0.794, "morph": 0.694, "poly": 0.807, "lowres": 0.744, "patches": 0.852}  # its README

app = typer.Typer()
app.command()(evaluate)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@needs_dev
@pytest.mark.parametrize("kind", MEAN_IOU)
def test_coarse_masks_have_the_documented_iou(kind: str) -> None:
    out = run(
        *("--predictions", str(DEV / f"coarse_{kind}.json"), "--ground-truth", str(DEV / "gt.json")),
        *("--json", "-", "--replicates", "1"),
    )
    report = json.loads(out)
    assert report["counts"]["measured"] == 401
    assert report["groups"]["all"]["levels"]["mask"]["mean_iou"]["value"] == pytest.approx(MEAN_IOU[kind], abs=0.0006)
    assert list(report["groups"]) == ["all", "COCO_MVal", "PennFudan", "mean of sources"]


@needs_dev
def test_truth_against_coarse_on_one_split(tmp_path: Path) -> None:
    """The truth as prediction gains all that there is to gain, and harms nothing."""
    out = run(
        *("--predictions", str(DEV / "gt.json"), "--ground-truth", str(DEV / "gt.json")),
        *("--coarse", str(DEV / "coarse_poly.json"), "--images", f"{DEV / 'split.json'}:B"),
        *("--json", str(tmp_path / "figures.json"), "--plots", str(tmp_path / "plots"), "--replicates", "50"),
    )
    everyone = json.loads((tmp_path / "figures.json").read_text())["groups"]["all"]
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
