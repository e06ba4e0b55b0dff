"""Estimates from a calibration, what can be certified, drift, and a new seal without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from pipeline.calibration import apply, fit
from pipeline.calibration.certificates import certify, hoeffding_bentkus, images_needed
from pipeline.calibration.files import calibration_for, read_calibration
from pipeline.configuration import resolve
from pipeline.errors import RefusedError
from pipeline.evaluation.scores import calibration_error
from pipeline.models.weights import LITE_WEIGHTS, hash_weights
from pipeline.storage import Access
from schemas.calibration import Calibration, CalibrationError, Estimator, Map, Tree, method_key, parse_calibration
from schemas.config import Gate, Method
from schemas.records import SCORES
from tests.benchmarks.quality.fit import as_estimator


def rows(count: int, seed: int = 0) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Score rows whose predicted IoU is too high by a tenth, with the true IoU of coarse and refined."""
    rng = np.random.default_rng(seed)
    refined = rng.uniform(0.5, 0.95, count)
    coarse = np.clip(refined - rng.normal(0.05, 0.08, count), 0.05, 1)
    made = []
    for a, b in zip(coarse, refined, strict=True):
        row: dict[str, Any] = {name: 0.9 for name, _ in SCORES}
        row |= {"components": 1, "coarse_components": 1, "holes": 0, "area_ratio": 1.1, "main_share": 1.0}
        row |= {"stability": 1.0, "predicted_iou": min(1.0, b + 0.1 + rng.normal(0, 0.03)), "coarse_iou": a / b * 0.99}
        made.append(row)
    return made, coarse, refined


def sample(count: int, per_image: int = 2, seed: int = 0) -> fit.Sample:
    made, coarse, refined = rows(count, seed)
    return fit.Sample(made, coarse, refined, np.array([f"{i // per_image}.jpg" for i in range(count)]))


def test_trees_in_json_answer_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    features, target = rng.random((300, 4)), rng.random(300)
    fitted = GradientBoostingRegressor(n_estimators=20, max_depth=3, random_state=0).fit(features, target)
    written = Estimator.model_validate_json(as_estimator(fitted, ["a", "b", "c", "d"]).model_dump_json())
    columns = {name: features[:, i] for i, name in enumerate("abcd")}
    found = apply.raw_estimate(columns, written, "refined")
    assert found == pytest.approx(np.clip(fitted.predict(features), 0, 1), abs=1e-3)
    columns["b"] = np.full(300, np.nan)
    assert np.isnan(apply.raw_estimate(columns, written, "refined")).all()


def test_calibrating_corrects_a_score_that_is_too_high() -> None:
    gate, method = Gate(), Method()
    found = fit.calibrate(sample(600), None, method, gate)
    made, _, refined = rows(400, seed=1)
    judged = apply.judge(made, gate, found)
    before = apply.judge(made, gate, None)
    assert calibration_error(np.array([one.quality.refined for one in before]), refined) > 0.08
    assert calibration_error(np.array([one.quality.refined for one in judged]), refined) < 0.03
    assert {one.calibration_id for one in judged} == {found.calibration_id}
    lower = np.array([one.lower for one in judged], float)
    kept = np.array([one.kept for one in judged])
    assert (lower < kept).all()
    assert parse_calibration(found.model_dump_json()) == found
    assert found.method_key == method_key(method)


def test_too_few_masks_are_refused_and_few_certify_nothing() -> None:
    with pytest.raises(RefusedError, match="too few masks"):
        fit.calibrate(sample(40), None, Method(), Gate())
    few = fit.calibrate(sample(140), None, Method(), Gate())
    assert not any(one.certified for one in few.certificates if one.iou == 0.9)


def test_margins_keep_the_gain_and_bound_the_harm() -> None:
    rng = np.random.default_rng(0)
    gain = rng.normal(0.02, 0.05, 4000)
    estimated = gain + rng.normal(0, 0.02, 4000)
    margin = fit.fit_margin(estimated, gain)
    takes = estimated >= margin
    assert np.mean(takes & (gain < -0.02)) <= fit.MOST_HARMED
    assert gain[takes].sum() > 0.9 * gain[gain > 0].sum()


@pytest.mark.parametrize(("ious", "share"), [([0.8], 0.9), ([0.7, 0.8, 0.9], 0.9), ([0.8], 0.5)])
def test_how_many_images_a_certificate_takes(ious: list[float], share: float) -> None:
    enough = images_needed(len(ious), share, 0.9)
    for images, certified in ((enough, True), (enough - 1, False)):
        perfect = np.full(images, 0.97)
        found = certify(perfect, perfect, np.arange(images), ious=ious, share=share, confidence=0.9)
        assert {one.certified for one in found} == {certified}


def test_certificates_hold_as_often_as_they_promise() -> None:
    """Many draws of images, 12 % of whose masks are bad: 'at least 90 % are good' must hardly ever be certified."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        image = np.repeat(np.arange(150), 2)
        iou = np.where(rng.random(300) < 0.12, 0.5, 0.95)
        found = certify(np.full(300, 0.97), iou, image, ious=[0.8], share=0.9, confidence=0.9)
        wrong += any(one.certified for one in found)
    assert wrong <= 20
    good = certify(np.full(800, 0.97), np.full(800, 0.95), np.arange(800), ious=[0.8], share=0.9, confidence=0.9)
    assert all(one.certified and one.observed == 1.0 for one in good)
    above = certify(np.full(800, 0.72), np.full(800, 0.95), np.arange(800), ious=[0.8], share=0.9, confidence=0.9)
    assert [one.certified for one in above] == [one.quality <= 0.72 for one in above]  # no mask, no promise


def test_masks_of_one_image_are_one_piece_of_evidence() -> None:
    together = certify(np.full(400, 0.9), np.full(400, 0.95), np.zeros(400, int), ious=[0.8])
    assert not any(one.certified for one in together)
    assert hoeffding_bentkus(0.0, 1, 0.1) > 0.5


def test_drift_is_seen_and_sameness_is_not() -> None:
    found = fit.calibrate(sample(600), None, Method(), Gate())
    same, _, _ = rows(500, seed=2)
    moved = [{**row, "predicted_iou": row["predicted_iou"] - 0.2} for row in same]

    def drift(made: list[dict[str, Any]]) -> dict[str, float]:
        return apply.drifted(apply.drift_counts(apply.columns_of(made), found), found)

    assert drift(same) == {}
    assert next(iter(drift(moved))) == "predicted_iou"
    assert drift(moved[:50]) == {}  # too few to tell


@pytest.mark.parametrize("preset", ["default", "fast", "balanced", "best"])
def test_lite_comes_with_calibrations(preset: str) -> None:
    method = resolve(preset).method
    method = method.model_copy(update={"weights_sha256": hash_weights(LITE_WEIGHTS)})
    found = calibration_for(Gate(), method, Access())
    assert found is not None, "the weights or the method changed: make fit-quality"
    assert "no guarantee on your data" in found.note
    assert not found.certificates
    assert set(found.drift) == set(fit.DRIFT_SCORES)
    votes = bool(method.colour_vote)
    assert all(("colour_iou" in one.features) == votes for one in found.estimators.values())
    row: dict[str, Any] = {name: 0.95 for name, _ in SCORES} | {"area_ratio": 1.0}
    doubtful = row | {"expected_iou": 0.5, "stability": 0.5, "outline_logit": 0.3, "predicted_iou": 0.5}
    sure, unsure = apply.judge([row | {"outline_logit": 3.0}, doubtful], Gate(), found)
    assert sure.quality.refined > unsure.quality.refined + 0.05


def leaf(value: float) -> Tree:
    return Tree(feature=[-1], threshold=[0], left=[0], right=[0], value=[value])


def whole(**change: Any) -> Calibration:
    return Calibration(calibration_id="mine", note="", method_key=method_key(Method()), fitted_on={}, **change)


def test_broken_calibrations_are_refused_in_one_line(tmp_path: Path) -> None:
    good = json.loads(whole(maps={"refined": Map(score=[0, 1], iou=[0, 1])}).model_dump_json())
    loop = {"features": ["a"], "base": 0, "trees": [{**leaf(0).model_dump(), "feature": [0]}]}
    for change in (
        {"maps": {"refined": {"score": [0, 1], "iou": [1, 0]}}},
        {"estimators": {"refined": loop}},
        {"estimators": {"left": loop}},
        {"surprise": 1},
        {"margin": None},
    ):
        with pytest.raises(CalibrationError) as raised:
            parse_calibration(json.dumps({**good, **change}))
        assert "\n" not in str(raised.value)
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(RefusedError, match="is not a calibration"):
        read_calibration(str(path), Access())
    with pytest.raises(RefusedError, match="does not exist"):
        read_calibration(str(tmp_path / "absent.json"), Access())


def test_a_calibration_of_another_method_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(whole().model_dump_json())
    gate = Gate(calibration=str(path))
    assert calibration_for(gate, Method(), Access()) == whole()
    assert calibration_for(gate, Method(decode_batch=8), Access()) == whole()  # batch sizes change no score
    with pytest.raises(RefusedError, match="another method"):
        calibration_for(gate, Method(iterations=3), Access())
    assert calibration_for(Gate(calibration="none"), Method(), Access()) is None
