"""One image from Python: the mask alone, or all that is known of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.configuration import resolve
from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.masks.gate import UNCALIBRATED
from pipeline.models.loading import pick_device
from schemas.config import Gate
from tests.conftest import DEMO
from tests.results import ellipse, mask_row, write_result

PHOTO = DEMO / "images" / "chelsea.jpg"


def eye() -> np.ndarray:
    coarse = np.zeros((300, 451), np.uint8)
    coarse[90:150, 135:208] = 1
    return coarse


def test_the_mask_is_the_one_that_the_outcome_keeps() -> None:
    [outcome] = pipeline.refine_with_scores(PHOTO, eye())
    assert np.array_equal(outcome.mask, pipeline.refine(PHOTO, eye()))
    assert outcome.decision.decision in ("refined", "kept_coarse", "review")
    assert outcome.calibration_id.startswith("lite")
    assert 0 < outcome.kept_quality <= 1
    assert outcome.kept_quality == getattr(outcome.quality, outcome.decision.kept)
    assert outcome.scores["coarse_iou"] < 1


def test_a_gate_that_never_trusts_keeps_the_coarse_mask() -> None:
    [outcome] = pipeline.refine_with_scores(PHOTO, eye(), gate=Gate(min_quality_gain=1.0))
    assert outcome.decision.kept == "coarse"
    assert np.array_equal(outcome.mask, eye())
    assert outcome.kept_quality == outcome.quality.coarse


def test_trials_of_a_box_vote_the_same_way_always_and_are_judged_without_a_calibration() -> None:
    method = resolve("fast", "method: {box_trials: 2}").method
    [first], [again] = (pipeline.refine_with_scores(PHOTO, eye(), method=method, threads=1) for _ in range(2))
    assert np.array_equal(first.refined, again.refined)
    assert first.scores == again.scores
    assert 0.5 < first.scores["trial_iou"] <= 1
    assert first.calibration_id == UNCALIBRATED
    [plain] = pipeline.refine_with_scores(PHOTO, eye(), method=resolve("fast").method, threads=1)
    assert "trial_iou" not in plain.scores
    assert binary.iou(first.refined, plain.refined) > 0.9


def test_an_adapter_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"no adapter")
    with pytest.raises(RefusedError, match="adapter"):
        pipeline.refine(PHOTO, eye(), adapter=str(path))


def test_a_device_is_found_or_refused() -> None:
    device = pick_device("auto")
    assert device in ("cpu", "cuda")
    if device == "cpu":
        with pytest.raises(RefusedError, match="device cuda"):
            pipeline.refine(PHOTO, eye(), device="cuda")


def test_figures_of_labels_against_the_truth(tmp_path: Path) -> None:
    true = ellipse((40, 24), 9)
    row = mask_row("a.png", 1, np.roll(true, 4, axis=1), true, quality=0.8)
    write_result(tmp_path / "out", [[row]], str(tmp_path))
    size = {"height": row["height"], "width": row["width"]}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": row["refined_rle"]}
    truth = {"images": [{"id": 1, "file_name": "a.png", **size}], "categories": [], "annotations": [annotation]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    figures = pipeline.evaluate(str(tmp_path / "out"), str(tmp_path / "truth.json"), replicates=10)
    levels = figures["groups"]["all"]["levels"]
    assert levels["mask"]["mean_iou"]["value"] == 1
    assert levels["coarse"]["mean_iou"]["value"] == pytest.approx(row["coarse_iou"], abs=1e-3)
