"""Damage: binary, of the right size, between bounds, repeatable; never a shift."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.masks.binary import iou
from pipeline.models.lite.training.damage import KINDS, MIN_IOU, damage, near_perfect, warp, watershed_regions


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:160, :200]
    mask = (((rows - 80) / 50) ** 2 + ((columns - 95) / 60) ** 2 < 1).astype(np.uint8)
    noise = np.random.default_rng(1).integers(0, 40, (160, 200, 3))
    return (np.where(mask[..., None] > 0, (190, 90, 60), (50, 60, 90)) + noise).astype(np.uint8), mask


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_gives_a_binary_mask_and_changes_it_sooner_or_later(
    kind: str, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    _, mask = scene
    image = np.random.default_rng(2).integers(100, 112, (*mask.shape, 3)).astype(np.uint8)  # no edges to hold on to
    overlaps = []
    for seed in range(12):
        coarse = KINDS[kind](image, mask, np.random.default_rng(seed))
        assert coarse.shape == mask.shape
        assert coarse.dtype == np.uint8
        assert coarse.max() <= 1
        overlaps.append(iou(coarse, mask))
    assert min(overlaps) < 0.97
    assert max(overlaps) > 0.5


def test_damage_is_bounded_repeatable_and_sometimes_absent(scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    overlaps = []
    for seed in range(60):
        coarse = damage(image, mask, np.random.default_rng(seed))
        assert np.array_equal(coarse, damage(image, mask, np.random.default_rng(seed)))
        overlaps.append(iou(coarse, mask))
    assert min(overlaps) >= MIN_IOU
    assert np.mean(np.array(overlaps) > 0.97) > 0.05
    assert np.mean(np.array(overlaps) < 0.9) > 0.5


def test_a_tiny_mask_survives_every_kind() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[0, :3] = 1  # on the border
    for kind in KINDS.values():
        assert kind(image, mask, np.random.default_rng(0)).shape == mask.shape
    assert damage(image, mask, np.random.default_rng(0)).any()
    assert near_perfect(mask, np.random.default_rng(3)).any()


def test_a_warp_moves_the_mask_nowhere_on_the_whole(scene: tuple[np.ndarray, np.ndarray]) -> None:
    _, mask = scene
    moves = []
    for seed in range(20):
        warped = warp(mask, np.random.default_rng(seed))
        moves.append([a.mean() - b.mean() for a, b in zip(np.nonzero(warped), np.nonzero(mask), strict=True)])
    assert np.abs(np.mean(moves, axis=0)).max() < 1.5
    assert np.abs(moves).mean() < 0.04 * np.sqrt(mask.sum())


def test_regions_partition_the_image_and_follow_its_edge(scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    labels = watershed_regions(image, 20, np.random.default_rng(0))
    assert labels.shape == mask.shape
    assert labels.min() >= 0
    share = np.bincount(labels.ravel(), mask.ravel()) / np.maximum(np.bincount(labels.ravel()), 1)
    assert iou((share > 0.5)[labels], mask) > 0.9


def test_a_mask_that_damage_makes_fill_the_image_is_not_damaged_again() -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    mask = np.ones((48, 48), np.uint8)
    mask[0] = 0
    for seed in range(60):
        assert damage(image, mask, np.random.default_rng(seed)).any()
