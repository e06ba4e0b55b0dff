"""Prompts against brute force and against the paper's formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from pipeline.masks import prompts

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 1)).filter(np.any)


def brute_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each foreground pixel to the background, everything outside the image being background."""
    padded = np.pad(mask, 1)
    background = np.argwhere(padded == 0)
    distances = np.zeros(padded.shape)
    for row, column in np.argwhere(padded == 1):
        distances[row, column] = np.sqrt(((background - (row, column)) ** 2).sum(axis=1).min())
    return distances[1:-1, 1:-1]


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_points_are_the_farthest_pixels(mask: np.ndarray) -> None:
    points, labels = prompts.distance_points(mask)
    inside = brute_distance(mask)
    x, y = points[0].astype(int)
    assert labels[0] == prompts.POSITIVE
    assert mask[y, x] == 1
    assert inside[y, x] == pytest.approx(inside.max(), abs=1e-5)
    rows, columns = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
    candidates = np.argwhere((box == 1) & (mask == 0))
    if not len(candidates):
        assert labels[1] == prompts.NO_POINT
        return
    assert labels[1] == prompts.NEGATIVE
    foreground = np.argwhere(mask == 1)
    distance = {tuple(p): np.sqrt(((foreground - p) ** 2).sum(axis=1).min()) for p in candidates}
    x, y = points[1].astype(int)
    assert distance[(y, x)] == pytest.approx(max(distance.values()), abs=1e-5)


def test_distances_are_exact_wherever_the_array_lies() -> None:
    mask = np.pad((np.random.default_rng(0).random((90, 130)) < 0.98).astype(np.uint8), 1)
    expected = distance_transform_edt(mask).astype(np.float32)
    for offset in range(0, 64, 8):
        memory = np.zeros(mask.size + 64, np.uint8)
        moved = memory[offset : offset + mask.size].reshape(mask.shape)
        moved[...] = mask
        np.testing.assert_array_equal(prompts.distance_to_background(moved), expected)


def test_distances_too_large_for_float32_squares_are_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.pad(np.ones((50, 70), np.uint8), 1)
    expected = prompts.distance_to_background(mask)
    monkeypatch.setattr(prompts, "EXACT_DISTANCE_PX", 5)
    np.testing.assert_array_equal(prompts.distance_to_background(mask), expected)


def test_a_mask_cut_by_the_border_peaks_in_its_own_middle() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:21, 40:60] = 1  # touches the right border
    x, y = prompts.distance_points(mask)[0][0]
    assert y == 15
    assert 45 <= x <= 54


def test_gaussian_forms() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:51, 15:46] = 1
    area, gamma = mask.sum(), 4.0
    distances = brute_distance(mask)
    code = prompts.gaussian_mask(mask, "code", gamma)
    expected = np.where(mask, np.exp(-((distances - distances.max()) ** 2) * gamma / area), 0)
    np.testing.assert_allclose(code, expected, atol=1e-6)
    paper = prompts.gaussian_mask(mask, "paper", gamma)
    (x, y), _ = prompts.distance_points(mask)[0]
    rows, columns = np.ogrid[:60, :60]
    squared = (rows - y) ** 2 + (columns - x) ** 2
    np.testing.assert_allclose(paper, np.where(mask, np.exp(-squared / (area * gamma)), 0), atol=1e-6)
    assert paper[mask > 0].min() > code[mask > 0].min()  # the paper's spreads much wider at the same gamma


def test_gaussian_logits_are_minus_strength_outside() -> None:
    field = np.array([[0, 0.5], [1, 0]], np.float32)
    np.testing.assert_array_equal(prompts.gaussian_logits(field, 15), [[-15, 7.5], [15, -15]])


@pytest.mark.parametrize(
    ("threshold", "similar_side", "expected"),
    [
        (0.1, "left", [36, 30, 80, 70]),  # 10 % of the width, 40
        (0.0, "left", [40, 30, 80, 70]),  # 0 turns growing off
        (0.1, "none", [40, 30, 80, 70]),
        (0.1, "all", [36, 26, 84, 74]),
    ],
)
def test_elastic_box(threshold: float, similar_side: str, expected: list[int]) -> None:
    similar = np.zeros((100, 200), bool)
    if similar_side == "left":
        similar[:, :40] = True
    if similar_side == "all":
        similar[:] = True
    box, grew = prompts.grow_box([40, 30, 80, 70], similar, threshold)
    assert box.tolist() == expected
    assert grew == (expected != [40, 30, 80, 70])


def test_elastic_box_refuses_the_border_and_moves_at_most_ten_pixels() -> None:
    similar = np.ones((500, 500), bool)
    box, _ = prompts.grow_box([5, 100, 400, 200], similar, 0.1)
    assert box.tolist() == [5, 90, 410, 210]  # the left step would leave the image


def test_a_box_grows_alike_where_similarity_is_known_of_coarse_cells() -> None:
    similar = np.zeros((400, 800), bool)
    similar[:, :160] = True  # the left strip, of 10 pixels, and the pixel beside it
    fine = prompts.grow_box([160, 120, 320, 280], similar, 0.1)
    coarse = prompts.grow_box([160, 120, 320, 280], similar[::5, ::5], 0.1, (400, 800), 5)
    assert fine[0].tolist() == coarse[0].tolist() == [150, 120, 320, 280]
    assert fine[1] == coarse[1] == np.True_


def test_similar_pixels_follow_the_embedding() -> None:
    features = np.zeros((2, 4, 8), np.float32)
    features[0, :, :4], features[1, :, 4:] = 1, 1
    mask = np.zeros((40, 80), np.uint8)
    mask[10:30, 10:30] = 1
    norm = prompts.upsampled_norm(features, mask.shape)
    similar = prompts.similar_pixels(features, norm, mask[::10, ::10], 0.5)
    assert similar[:, :35].all()
    assert not similar[:, 45:].any()
    tiny = np.zeros((40, 80), np.uint8)
    tiny[3, 3] = 1  # lost when brought to the embedding's grid: nothing is similar
    assert not prompts.similar_pixels(features, norm, tiny[::10, ::10], 0.5).any()


def test_an_empty_mask_has_no_prompts() -> None:
    with pytest.raises(ValueError, match="empty"):
        prompts.build_prompts(np.zeros((5, 5), np.uint8), "code", 4.0)
