"""Split-then-merge: regions partition the mask, and merge exactly as the published method does."""

from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.masks import regions

small_masks = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 1))
blobs = st.lists(
    st.tuples(st.integers(0, 47), st.integers(0, 47), st.integers(1, 14), st.integers(1, 14)), min_size=0, max_size=9
)


def drawn(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    mask = np.zeros((60, 60), np.uint8)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = 1
    return mask


def published(mask: np.ndarray) -> set[frozenset[int]]:
    """The regions as sets of pixel numbers, straight from the method's words, pair by pair and pixel by pixel."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    order = sorted(range(1, count), key=lambda i: (statistics[i][1], statistics[i][0], statistics[i][4]))
    pieces = [set(np.flatnonzero(labels == label).tolist()) for label in order]
    pieces = [piece for piece in pieces if len(piece) >= 5]

    def box(piece: set[int]) -> tuple[int, int, int, int]:
        rows, columns = np.unravel_index(sorted(piece), mask.shape)
        return columns.min(), rows.min(), columns.max(), rows.max()

    def size(corners: tuple[int, int, int, int]) -> int:
        return (corners[2] - corners[0] + 1) * (corners[3] - corners[1] + 1)

    for i, j in combinations(range(len(pieces)), 2):
        if not pieces[i] or not pieces[j]:
            continue
        a, b = box(pieces[i]), box(pieces[j])
        merged = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        density = min(len(pieces[i]) / size(a), len(pieces[j]) / size(b))
        both = len(pieces[i]) + len(pieces[j])
        if size(a) + size(b) > 0.5 * merged and both > min(0.5, density - 0.1) * merged:
            pieces[i] |= pieces[j]
            pieces[j] = set()
    return {frozenset(piece) for piece in pieces if piece}


def found(mask: np.ndarray) -> set[frozenset[int]]:
    labels = regions.split(mask)
    return {frozenset(np.flatnonzero(labels == k).tolist()) for k in range(1, labels.max() + 1)}


@settings(max_examples=150, deadline=None)
@given(small_masks)
def test_noise_is_split_as_published(mask: np.ndarray) -> None:
    assert found(mask) == published(mask)


@settings(max_examples=150, deadline=None)
@given(blobs)
def test_shapes_are_split_as_published(boxes: list[tuple[int, int, int, int]]) -> None:
    assert found(drawn(boxes)) == published(drawn(boxes))


@settings(max_examples=100, deadline=None)
@given(small_masks)
def test_regions_partition_the_mask_without_its_specks(mask: np.ndarray) -> None:
    labels = regions.split(mask)
    assert labels.shape == mask.shape
    assert sorted(np.unique(labels[labels > 0])) == list(range(1, labels.max() + 1))
    _, components, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    specks = statistics[components][..., 4] < regions.MIN_REGION_PX
    assert np.array_equal(labels > 0, (mask > 0) & ~specks)


def test_what_belongs_together() -> None:
    halves = drawn([(5, 5, 10, 20), (17, 5, 10, 20)])  # an object cut by a thin post
    assert regions.split(halves).max() == 1
    far = drawn([(0, 0, 8, 8), (50, 50, 8, 8)])  # two objects
    assert regions.split(far).max() == 2
    touching = drawn([(5, 5, 6, 6), (11, 11, 6, 6)])  # corner to corner is connected
    assert regions.split(touching).max() == 1


def test_only_the_largest_pieces_of_noise_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MAX_REGIONS", 2)
    mask = drawn([(0, 0, 3, 3), (50, 0, 6, 6), (0, 50, 9, 9)])
    labels = regions.split(mask)
    assert labels.max() == 2
    assert labels[1, 1] == 0
    assert labels[2, 52] == 1
    assert labels[55, 2] == 2


def test_the_highest_claim_wins_and_nobody_gets_the_rest() -> None:
    left, right = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    left[:, :3] = right[0, 1:] = 1
    strength = np.array([[1, 1, 5, 5], [1, 1, 1, 1]], np.float32)
    owner = regions.highest([(7, left, np.ones((2, 4), np.float32)), (9, right, strength)], (2, 4))
    assert owner.tolist() == [[7, 7, 9, 9], [7, 7, 7, -1]]
    assert regions.highest([], (2, 2)).tolist() == [[-1, -1], [-1, -1]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_an_owner_always_claimed_its_pixel(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 2, (count, 6, 7), np.uint8)
    fields = rng.normal(size=(count, 6, 7)).astype(np.float32)
    owner = regions.highest(zip(range(count), masks, fields, strict=True), (6, 7))
    claimed = np.where(masks > 0, fields, -np.inf)
    assert np.array_equal(owner >= 0, masks.any(axis=0))
    assert np.array_equal(owner[owner >= 0], claimed.argmax(axis=0)[owner >= 0])
