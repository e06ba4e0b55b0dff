"""Batches made on the device: their prompts are those of prompts.py, they repeat, and the damage keeps its bounds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pipeline.masks.binary import encode
from pipeline.masks.frames import Frame
from pipeline.masks.prompts import NO_POINT, distance_to_background
from pipeline.models.device.prompts import distance
from pipeline.models.lite.training.batched_prompts import box_of, prompts_of
from pipeline.models.lite.training.data import Photo, prompt_arrays
from pipeline.models.lite.training.device_damage import KINDS, MIN_IOU, damaged
from pipeline.models.lite.training.device_feed import DeviceFeed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def ellipse(seed: int, side: int) -> np.ndarray:
    rng, mask = np.random.default_rng(seed), np.zeros((side, side), np.uint8)
    centre = tuple(int(v) for v in rng.integers(0.35 * side, 0.65 * side, 2))
    axes = tuple(int(v) for v in rng.integers(0.1 * side, 0.3 * side, 2))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    rng, made = np.random.default_rng(0), []
    for seed, (height, width) in enumerate([(120, 160), (160, 100), (90, 150)]):
        masks = [ellipse(10 * seed + index, 160)[:height, :width] for index in range(3)]
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        coarse = [(encode(cv2.dilate(mask, np.ones((9, 9), np.uint8))),) for mask in masks]
        made.append(Photo(f"{seed}.png", "drawn", image, tuple(encode(mask) for mask in masks), tuple(coarse)))
    return made


def test_distances_are_exact() -> None:
    mask = np.stack([ellipse(seed, 64) for seed in range(4)])
    found = distance(torch.from_numpy(mask > 0), border_counts=False).numpy()
    for one, answer in zip(mask, found, strict=True):
        np.testing.assert_allclose(answer, distance_to_background(one), rtol=1e-6)


def test_a_border_counts_as_background_where_asked() -> None:
    full = torch.ones(1, 9, 9, dtype=torch.bool)
    assert distance(full, border_counts=True)[0, 4, 4] == 5
    assert distance(full, border_counts=True)[0, 0, 0] == 1


@pytest.mark.parametrize("form", ["paper", "code"])
def test_prompts_are_those_of_one_mask_to_a_pixel(form: str) -> None:
    frame = Frame((256, 256), 256)
    masks = [ellipse(seed, 256) for seed in range(5)]
    expected = [prompt_arrays(mask, frame, form, 15.0) for mask in masks]  # type: ignore[arg-type]
    coarse = torch.from_numpy(np.stack([one.coarse for one in expected]))
    found = prompts_of(coarse, torch.full((5,), form == "paper"), torch.full((5,), 15.0))
    for row, one in enumerate(expected):
        assert np.array_equal(found.point_labels[row].numpy(), one.point_labels)
        np.testing.assert_allclose(found.box_xyxy[row].numpy(), one.box_xyxy, atol=9)  # two pixels of 256
        depth = distance(coarse > 0.5, border_counts=True)[row]
        x, y = (found.points_xy[row, 0].numpy() / 8).astype(int)
        assert depth[y, x] >= depth.max() - 1e-5
        assert np.abs(found.mask_logits[row].numpy() - one.mask_logits).mean() < 1.0  # of 30 from end to end


def test_a_mask_that_fills_its_box_has_no_negative_point() -> None:
    coarse = torch.zeros(1, 32, 32)
    coarse[:, 8:20, 4:30] = 1
    found = prompts_of(coarse, torch.tensor([True]), torch.tensor([1.0]))
    assert found.point_labels[0].tolist() == [1, NO_POINT]
    assert box_of(coarse > 0)[0].tolist() == [4, 8, 29, 19]


def test_damage_stays_in_its_bounds_and_changes_masks() -> None:
    masks = torch.from_numpy(np.stack([ellipse(seed, 128) for seed in range(24)])).float()
    coarse = damaged(masks, masks, torch.Generator().manual_seed(0))
    iou = (coarse * masks).sum((1, 2)) / torch.maximum(coarse, masks).sum((1, 2))
    assert set(coarse.unique().tolist()) == {0.0, 1.0}
    assert float(iou.min()) >= MIN_IOU
    assert float((iou < 0.95).float().mean()) > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_damages(kind: object) -> None:
    masks = torch.from_numpy(np.stack([ellipse(seed, 128) for seed in range(8)])).float()
    field = kind(masks, masks.sum((1, 2)).sqrt(), torch.Generator().manual_seed(3))  # type: ignore[operator]
    iou = ((field > 0.5) * masks).sum((1, 2)) / torch.maximum((field > 0.5).float(), masks).sum((1, 2))
    assert field.isfinite().all()
    assert 0.2 < float(iou.mean()) < 0.98


def test_a_batch_repeats_and_fits_the_network(photos: list[Photo]) -> None:
    first, again = (DeviceFeed(photos, 2, 3, 5, DEVICE).batch(7, 256) for _ in range(2))
    assert first.images.shape == (2, 3, 256, 256)
    assert first.prompts.coarse.shape == first.truth.shape == (6, 128, 128)
    assert first.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.prompts.mask_logits, again.prompts.mask_logits)
    assert not torch.equal(first.truth, DeviceFeed(photos, 2, 3, 5, DEVICE).batch(8, 256).truth)
    assert (first.truth.amax((1, 2)) == 1).all()
    outside = 1 - first.filled[first.image_index]
    assert float((first.prompts.coarse * outside).sum()) == 0
    assert all(values.isfinite().all() for values in first.prompts)
