"""Score components by hand-made cases, and the gate's reasons."""

import math

import numpy as np
import pytest

from pipeline.masks import gate
from pipeline.masks import scores as mask_scores
from pipeline.masks.gate import Quality
from schemas.config import Gate

GOOD = {
    "predicted_iou": 0.9,
    "stability": 0.95,
    "coarse_iou": 0.8,
    "iteration_iou": 1.0,
    "area_ratio": 1.1,
    "components": 1,
    "coarse_components": 1,
    "main_share": 0.95,
}


def estimate(scores: dict[str, float]) -> Quality:
    return Quality(*gate.formula(scores["predicted_iou"], scores["stability"], scores["coarse_iou"]))


def test_expected_iou_of_sure_and_unsure_pixels() -> None:
    mask, probability = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32)
    mask[:2] = 1
    probability[:2] = 1
    assert mask_scores.expected_iou(mask, probability) == 1.0
    probability[2] = 0.5  # half a row may belong to it as well
    assert mask_scores.expected_iou(mask, probability) == pytest.approx(8 / 10)
    assert mask_scores.expected_iou(1 - mask, probability) == pytest.approx(2 / 16)
    assert mask_scores.expected_iou(np.zeros_like(mask), probability) == 0.0


def test_stability_compares_two_cuts() -> None:
    logits = np.full((10, 10), -5, np.float32)
    assert mask_scores.stability(logits) == 0.0
    logits[:5] = 5
    assert mask_scores.stability(logits) == 1.0
    logits[5] = 0.0  # between the cuts
    assert mask_scores.stability(logits) == pytest.approx(5 / 6)


def test_boundary_contrast_tells_a_right_outline_from_a_wrong_one() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[30:70, 30:70] = 255
    right, wrong = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    right[30:70, 30:70] = 1
    wrong[10:40, 80:95] = 1
    assert mask_scores.boundary_contrast(pixels, right) == pytest.approx(1.0, abs=0.01)
    assert mask_scores.boundary_contrast(pixels, wrong) == 0.0
    assert mask_scores.boundary_contrast(pixels, np.ones((100, 100), np.uint8)) == 0.0
    twice = np.kron(right, np.ones((2, 2), np.uint8))  # a mask in original pixels, twice the model's input
    assert mask_scores.boundary_contrast(pixels, twice) == pytest.approx(1.0, abs=0.01)


def test_score_of_a_known_change() -> None:
    coarse, refined = np.zeros((50, 50), np.uint8), np.zeros((50, 50), np.uint8)
    coarse[10:20, 10:20] = 1
    refined[10:20, 10:30] = 1
    refined[14:16, 14:16] = 0
    refined[40, 40] = 1
    scores = mask_scores.shape_scores(np.zeros((50, 50, 3), np.uint8), coarse, refined, refined)
    assert scores["coarse_iou"] == pytest.approx(96 / 201)
    assert scores["iteration_iou"] == 1.0
    assert scores["area_ratio"] == pytest.approx(1.97)
    assert (scores["components"], scores["coarse_components"], scores["holes"]) == (2, 1, 1)
    assert scores["main_share"] == pytest.approx(196 / 197)


@pytest.mark.parametrize(
    ("change", "decision", "reason"),
    [
        ({}, "refined", "improved"),
        ({"coarse_iou": 1.0}, "refined", "unchanged"),
        ({"area_ratio": 0.0, "coarse_iou": 0.0}, "kept_coarse", "refined_empty"),
        ({"coarse_iou": 0.1}, "kept_coarse", "refined_ran_away"),
        ({"area_ratio": 4.0}, "kept_coarse", "refined_ran_away"),
        ({"area_ratio": 0.2}, "kept_coarse", "refined_ran_away"),
        ({"main_share": 0.6}, "kept_coarse", "refined_shattered"),
        ({"components": 30, "main_share": 0.99}, "refined", "improved"),  # specks around one good piece
    ],
)
def test_gate(change: dict[str, float], decision: str, reason: str) -> None:
    scores = {**GOOD, **change}
    found = gate.decide(scores, estimate(scores), Gate(), margin=0.0)
    assert (found.decision, found.reason) == (decision, reason)
    assert found.kept == ("refined" if decision == "refined" else "coarse")


def test_gate_thresholds_come_from_the_configuration() -> None:
    scores = {**GOOD, "coarse_iou": 0.1}
    assert gate.decide(scores, Quality(0.1, 0.9), Gate(min_coarse_iou=0.05), 0.0).decision == "refined"
    assert gate.decide(scores, Quality(0.1, 0.9), Gate(enabled=False), 0.0).decision == "refined"
    assert gate.decide(GOOD, Quality(0.8, 0.85), Gate(), margin=0.1).reason == "refined_less_certain"


def test_where_neither_mask_is_trusted_the_better_one_is_kept_for_review() -> None:
    low = gate.decide(GOOD, Quality(0.2, 0.4), Gate(review_below=0.5), 0.0)
    assert (low.decision, low.reason, low.kept) == ("review", "both_uncertain", "refined")
    worse = gate.decide(GOOD, Quality(0.4, 0.2), Gate(review_below=0.5), 0.0)
    assert (worse.decision, worse.kept) == ("review", "coarse")
    assert gate.decide(GOOD, Quality(0.2, 0.6), Gate(review_below=0.5), 0.0).decision == "refined"
    assert gate.decide(GOOD, Quality(math.nan, math.nan), Gate(), 0.0).decision == "refined"


@pytest.mark.parametrize(
    "change",
    [{"stability": 0.0}, {"iteration_iou": 0.2}, {"look_iou": 0.4}, {"trial_iou": 0.3}],
    ids=["stability", "rounds", "looks", "trials"],
)
def test_without_a_calibration_answers_that_fall_apart_keep_the_coarse_mask(change: dict[str, float]) -> None:
    sure = Quality(0.2, 0.9)
    kept = gate.decide({**GOOD, **change}, sure, Gate(), 0.0, calibrated=False)
    assert (kept.decision, kept.reason, kept.kept) == ("kept_coarse", "refined_unstable", "coarse")
    assert gate.decide({**GOOD, **change}, sure, Gate(), 0.0).kept == "refined"
    unknown = dict.fromkeys(change, math.nan)
    assert gate.decide({**GOOD, **unknown}, sure, Gate(), 0.0, calibrated=False).kept == "refined"


def test_without_a_calibration_a_review_keeps_the_coarse_mask() -> None:
    low = gate.decide(GOOD, Quality(0.2, 0.4), Gate(), 0.0, calibrated=False)
    assert (low.decision, low.reason, low.kept) == ("review", "both_uncertain", "coarse")
    assert gate.decide(GOOD, Quality(0.2, 0.6), Gate(), 0.0, calibrated=False).kept == "refined"


def test_estimates_are_probabilities_in_order() -> None:
    better = estimate(GOOD)
    worse = estimate({**GOOD, "predicted_iou": 0.5})
    assert 0 <= worse.coarse < better.coarse <= better.refined <= 1


@pytest.mark.parametrize(
    ("value", "name"), [(0.0, "0.1"), (0.1, "0.1"), (0.1001, "0.2"), (0.3, "0.3"), (0.95, "1.0"), (1.0, "1.0")]
)
def test_tenths_are_those_of_the_shards_numbers(value: float, name: str) -> None:
    assert gate.tenth(value) == gate.tenth(float(np.float32(value))) == name
