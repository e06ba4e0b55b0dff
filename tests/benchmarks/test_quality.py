"""The benchmark's own arithmetic, on rows whose truth is made up: fitting, the gate's figures, pairing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline.masks.binary import encode, iou
from pipeline.models.lite.training.damage import KINDS
from pipeline.models.lite.training.data import Photo
from pipeline.models.lite.training.real_damage import REAL_KINDS
from schemas.config import Gate, Method
from schemas.records import SCORES
from tests.benchmarks.lite_dev import DEV_KINDS
from tests.benchmarks.quality import tables
from tests.benchmarks.quality.cases import (
    CHANCES,
    FAMILIES,
    MEASURED,
    OTHER,
    Case,
    Picture,
    of_another_photograph,
)
from tests.benchmarks.quality.figures import HARM, SOURCES, harmed, kept_share, mean, table
from tests.benchmarks.quality.fit import (
    fit_calibration,
    trusting_margin,
    with_margin,
    without,
)
from tests.benchmarks.quality.networks import NETWORKS, PHOTOS, Networks, inside, seen, taught, widened


def made_up(kinds: tuple[str, ...], images: int, seed: int) -> list[dict[str, Any]]:
    """Rows whose scores know the IoUs but for some noise; a third of the masks get worse by refining."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(images):
        for kind in kinds:
            coarse = 1.0 if kind == "true" else float(rng.uniform(0.5, 0.95))
            refined = float(np.clip(coarse + rng.normal(0.05, 0.1), 0.1, 0.99))
            scores = {name: 1.0 for name, _ in SCORES}
            scores |= {
                "expected_iou": refined + rng.normal(0, 0.03),
                "coarse_expected_iou": coarse + rng.normal(0, 0.03),
                "predicted_iou": refined - 0.1 + rng.normal(0, 0.05),
                "coarse_iou": min(0.99, 1 - abs(refined - coarse)),
            }
            row = {"image": f"{seed}-{number}.jpg", "source": SOURCES[number % 2], "mask_id": str(number)}
            row |= {"kinds": [kind], "area": 4000, "true_coarse": coarse, "true_refined": refined, "scores": scores}
            rows.append(row | {"boundary_coarse": coarse - 0.1, "boundary_refined": refined - 0.1})
    return rows


def test_what_is_fitted_on_one_set_gates_another() -> None:
    kinds, damage = (*MEASURED, "true"), ("polygon", "warp", "true")
    train, seen, dev_a = (made_up(*of) for of in ((damage, 60, 1), (damage, 120, 6), ((*DEV_KINDS, "true"), 60, 2)))
    fitted = fit_calibration(train, seen, dev_a, Method())
    masks = table(made_up(kinds, 80, 3), fitted, Gate())
    for kind in MEASURED:
        mine = masks.of(kind)
        assert mean(mine, mine.kept) > mean(mine, mine.coarse)
        assert kept_share(mine) > 0.9
        assert harmed(mine) < np.mean(mine.refined < mine.coarse - HARM)
    true = masks.of("true")
    assert mean(true, true.kept) > 0.98 > mean(true, true.refined)
    text = "\n".join([tables.gate_table(masks), tables.score_table(masks), tables.kinds_table(masks)])
    assert "mean of five" in tables.ungated_table(made_up(kinds, 80, 3))
    sizes = tables.sizes_table(made_up(kinds, 80, 3), fitted)
    assert f"| {80 * len(DEV_KINDS)} |" in sizes  # every mask of the five kinds is of one size
    assert all(f"| {kind} |" in text for kind in kinds)
    left_out = tables.left_out_table(made_up(kinds, 80, 3), dict.fromkeys(FAMILIES, fitted))
    assert all(f": {kind} |" in left_out for kind in MEASURED)
    assert "nan" not in text + left_out


def test_the_margin_alone_can_be_fitted() -> None:
    kinds = ("poly", "true")
    first = fit_calibration(made_up(kinds, 60, 1), [], made_up(kinds, 60, 2), Method())
    again = with_margin(first.model_copy(update={"margin": 0.1}), made_up(kinds, 60, 2), "lite")
    assert (again.estimators, again.maps, again.margin) == (first.estimators, first.maps, first.margin)


def test_the_margin_trusts_the_model_as_far_as_right_masks_allow() -> None:
    rows = made_up(("true", "poly"), 200, 7)
    for row in rows:
        row["true_refined"] = 0.9
    for row in rows[1::2]:
        row["kinds"] = [OTHER, "true"]  # not right where another photograph is shown
    estimated = np.where(np.arange(len(rows)) % 4 == 0, 0.04, -0.2)
    margin = trusting_margin(estimated, rows)
    assert margin == pytest.approx(0.0425)
    assert trusting_margin(np.full(len(rows), -0.2), rows) == -0.05


def test_a_kind_can_be_left_out_with_its_like() -> None:
    rows = made_up(("polygon", "warp"), 3, 0)
    rows[0]["kinds"] = ["warp", "polygon"]
    assert {kind for row in without(rows, ["polygon"]) for kind in row["kinds"]} == {"warp"}
    assert len(without(rows, ["polygon"])) == 3


def test_baselines_are_paired_mask_by_mask() -> None:
    rows = made_up(DEV_KINDS, 20, 4)
    worse = [{**row, "true_refined": row["true_coarse"]} for row in rows[::-1] if row["mask_id"] != "0"]
    masks = table(rows, None)
    text = tables.baselines_table(masks, {"none": worse})
    mine, theirs = tables.paired(masks.of("poly"), table(worse, None).of("poly"))
    assert len(mine.kept) == 19
    assert (mine.mask_id == theirs.mask_id).all()
    expected = mean(mine, mine.refined - mine.coarse)
    assert f"{100 * expected:+.1f} [" in text


def test_means_weigh_the_sources_alike() -> None:
    rows = made_up(("poly",), 9, 5)  # five of one source, four of the other
    masks = table(rows, None)
    halves = [np.mean([row["true_coarse"] for row in rows if row["source"] == source]) for source in SOURCES]
    assert mean(masks, masks.coarse) == pytest.approx(np.mean(halves))


def test_every_kind_of_damage_has_one_family() -> None:
    kinds = {*KINDS, *REAL_KINDS, *MEASURED}
    named = [kind for family in FAMILIES.values() for kind in family]
    assert set(named) == kinds
    assert len(named) == len(kinds)
    assert set(CHANCES) == set(FAMILIES)
    assert sum(CHANCES.values()) == pytest.approx(1)


def test_another_photograph_is_shown_at_the_same_size_and_told() -> None:
    pixels = [np.full((20 + number, 30, 3), number, np.uint8) for number in range(6)]
    rle = encode(np.eye(5, dtype=np.uint8))
    pictures = [Picture(str(n), "s", image, (Case("0", ("true",), rle, rle),)) for n, image in enumerate(pixels)]
    [shown] = of_another_photograph(pictures)
    assert (shown.name, shown.cases[0].kinds) == ("1", (OTHER, "true"))
    assert shown.image.shape == pixels[1].shape
    assert (shown.image == 4).all()


def test_a_segmenter_learns_and_stays_in_its_box() -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    image[20:60, 30:80] = 200
    truth = (image[..., 0] > 0).astype(np.uint8)
    network = taught([Photo("a", "s", image, (encode(truth),))] * 160)
    box = torch.tensor([28.0, 18.0, 82.0, 62.0])
    x1, y1, x2, y2 = window = widened(box, truth.shape)
    assert (x1, y1, x2, y2) == (17, 9, 93, 71)
    with torch.inference_mode():
        soft = network(seen(image, window, box)[None])[0, 0].numpy()
    mask = np.zeros_like(truth)
    mask[y1:y2, x1:x2] = cv2.resize(soft, (x2 - x1, y2 - y1)) > 0
    assert iou(inside(mask, box), truth) > 0.7
    assert not inside(np.ones_like(truth), box)[:18].any()


def test_networks_are_made_when_they_are_first_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing in the cache; the second time they come from there."""
    image = np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)
    truth = np.zeros((80, 100), np.uint8)
    truth[20:60, 30:80] = 1
    photo = Photo("a", "s", image, (encode(truth),))
    monkeypatch.setattr(Networks, "_photos", [photo, photo])
    answers = []
    for _ in range(2):
        networks = Networks(tmp_path / "no data", tmp_path)
        answers.append([networks.answers(kind, photo, np.random.default_rng(1))[0] for kind in NETWORKS])
    assert {path.name for path in tmp_path.iterdir()} == {f"network-{kind}.safetensors" for kind in PHOTOS}
    assert all((first == second).all() for first, second in zip(*answers, strict=True))
