"""The whole report on four masks whose figures are worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from pipeline.evaluation import plots, show
from pipeline.evaluation.pairing import Pairing, pair
from pipeline.evaluation.report import MEAN, evaluate, to_json
from tests.pipeline.evaluation.cases import prediction, rle, truth

TRUE = rle(10, 10, 20, 20)
HALF = rle(10, 10, 20, 10)  # IoU 0.5
THREE_QUARTERS = rle(10, 10, 20, 15)  # IoU 0.75


def _pairing() -> Pairing:
    """Source A: one refined mask accepted (0.5 -> 1), one refined to the worse and kept (0.75, refined 0.5).
    Source B: one refined to the worse and accepted (0.75 -> 0.5), one failed."""
    truths = [
        truth("1", source="A"),
        truth("2", source="A", image_id="2", category="[crate]"),
        truth("3", source="B", image_id="3"),
        truth("4", source="B", image_id="4"),
    ]
    predictions = [
        prediction("1", coarse=HALF, refined=TRUE, mask=TRUE, decision="refined", scores={"quality": 0.9}),
        prediction("2", coarse=THREE_QUARTERS, refined=HALF, mask=THREE_QUARTERS, decision="kept_coarse"),
        prediction("3", coarse=THREE_QUARTERS, refined=HALF, mask=HALF, decision="refined", scores={"quality": 0.6}),
        prediction("4", mask=None, decision="failed", reason="image_truncated"),
    ]
    return pair(truths, predictions)


@pytest.fixture(scope="module")
def report() -> Any:
    return to_json(evaluate(_pairing(), replicates=20)[0])


def _values(tree: dict[str, dict[str, Any]], metric: str) -> dict[str, float]:
    return {side: figures[metric]["value"] for side, figures in tree.items()}


def test_levels_and_gains(report: Any) -> None:
    everyone = report["groups"]["all"]
    means = {"coarse": 2.0 / 3, "refined": 2.0 / 3, "mask": 2.25 / 3, "oracle": 2.5 / 3}
    assert _values(everyone["levels"], "mean_iou") == pytest.approx(means)
    # all truths have 400 pixels and no mask goes beyond: cumulative and mean IoU agree
    assert _values(everyone["levels"], "cumulative_iou") == pytest.approx(means)
    gains = {side: mean - means["coarse"] for side, mean in means.items() if side != "coarse"}
    assert _values(everyone["gains"], "mean_iou") == pytest.approx(gains)


def test_harm_and_gate(report: Any) -> None:
    everyone = report["groups"]["all"]
    assert _values(everyone["harm"], "worse_by_2_points") == pytest.approx(
        {"refined": 2 / 3, "mask": 1 / 3, "oracle": 0}
    )
    assert everyone["harm"]["mask"]["mean_loss_of_worse"]["value"] == pytest.approx(0.25)
    assert everyone["harm"]["mask"]["largest_loss"] == pytest.approx(0.25)
    assert everyone["harm"]["oracle"]["mean_loss_of_worse"]["value"] is None
    gate = everyone["gate"]
    assert gate["acceptance"]["value"] == pytest.approx(2 / 3)
    assert gate["decisions"] == {"refined": 2, "kept_coarse": 1}
    # the label gains 0.25 / 3, the oracle 0.5 / 3; always refining gains nothing, and a share of that is not given
    assert gate["share_of_oracle_gain"]["value"] == pytest.approx(0.5)
    assert "kept_share_of_gain" not in gate
    # source A: always refining gains 0.25, the label 0.5
    assert report["groups"]["A"]["gate"]["kept_share_of_gain"]["value"] == pytest.approx(2.0)


def test_sources_apart_and_their_mean(report: Any) -> None:
    assert list(report["groups"]) == ["all", "A", "B", MEAN]
    assert _values(report["groups"]["A"]["levels"], "mean_iou")["mask"] == pytest.approx(0.875)
    assert _values(report["groups"]["B"]["levels"], "mean_iou")["mask"] == pytest.approx(0.5)
    assert _values(report["groups"][MEAN]["levels"], "mean_iou")["mask"] == pytest.approx((0.875 + 0.5) / 2)


def test_what_was_left_out_is_stated(report: Any) -> None:
    assert report["counts"]["left_out"] == {"failed: image_truncated": 1}
    assert report["groups"]["all"]["mean_iou_left_out_as_zero"] == pytest.approx(2.25 / 4)
    assert report["groups"]["A"]["left_out"] == 0
    assert report["groups"]["B"]["mean_iou_left_out_as_zero"] == pytest.approx(0.25)


def test_bins(report: Any) -> None:
    everyone = report["groups"]["all"]
    assert {row["name"]: row["masks"] for row in everyone["by_coarse_iou"]} == {"0.5-0.6": 1, "0.7-0.8": 2}
    assert [row["gain"]["value"] for row in everyone["by_coarse_iou"]] == pytest.approx([0.5, -0.125])
    assert {row["name"]: row["masks"] for row in everyone["by_size"]} == {"small": 3}
    categories = {row["name"]: row for row in everyone["by_category"]}
    assert categories["[crate]"]["mean_iou"] == pytest.approx(0.75)
    # IoU 0.75 passes six of the ten thresholds 0.50 ... 0.95
    assert categories["[crate]"]["mask_ap"] == pytest.approx(0.6)


def test_scores_are_held_against_the_side_they_speak_of(report: Any) -> None:
    quality = report["groups"]["all"]["scores"]["quality of mask"]
    assert quality["masks"] == 2
    assert quality["spearman"]["value"] == pytest.approx(1.0)
    assert quality["auroc"]["value"] == pytest.approx(1.0)
    assert quality["mean_absolute_error"]["value"] == pytest.approx(0.1)  # 0.9 for 1.0, 0.6 for 0.5
    assert quality["bias"]["value"] == pytest.approx(0.0)


def test_json_is_plain(report: Any) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_predictions_with_nothing_but_masks(tmp_path: Any) -> None:
    tree, measures = evaluate(pair([truth()], [prediction()]), replicates=5)
    everyone = tree["groups"]["all"]
    assert everyone["levels"].keys() == {"mask"}
    assert "gains" not in everyone
    assert not everyone["scores"]
    with pytest.raises(Exception, match="nothing to plot"):
        plots.draw(tree, measures, tmp_path)


def test_tables_say_what_was_left_out_and_name_every_side() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(show.tables(evaluate(_pairing(), replicates=5)[0]), markup=False)
    text = capture.get()
    assert "3 of 4 annotations measured" in text
    assert "failed: image_truncated 1" in text
    for word in ("coarse", "refined", "label", "oracle", "mean of", "+8.3 [", "of mask", "[crate]"):
        assert word in text, word


def test_tables_break_no_word_and_no_interval_at_80_columns() -> None:
    console = Console(width=80, soft_wrap=True)
    with console.capture() as capture:
        console.print(show.tables(evaluate(_pairing(), replicates=5)[0]), markup=False)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.count("[") != line.count("]") and "resampling" not in line] == []
    for word in ("of mask", "accuracy; AP, bAP", "kept of always refining"):
        assert any(word in line for line in lines), word


def test_plots_are_written(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    tree, measures = evaluate(_pairing(), replicates=5)
    names = {path.name for path in plots.draw(tree, measures, tmp_path / "plots")}
    assert names == {"reliability.png", "risk_coverage.png", "iou_before_and_after.png", "gain_by_coarse_iou.png"}
    assert all((tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in names)
