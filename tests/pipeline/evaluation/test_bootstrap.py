"""Intervals: reproducible, paired, and of images, not of masks."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.bootstrap import Figure, ImageBootstrap, mean_figure


def test_ratio_and_statistic_agree_draw_by_draw() -> None:
    rng = np.random.default_rng(1)
    image, values = rng.integers(20, size=70), rng.random(70)
    bootstrap = ImageBootstrap(image, replicates=50)
    by_sums, by_rows = bootstrap.mean(values), bootstrap.statistic(lambda rows: float(values[rows].mean()))
    assert by_sums.value == pytest.approx(values.mean())
    np.testing.assert_allclose(by_sums.draws, by_rows.draws)


def test_masks_of_one_image_are_one_piece_of_evidence() -> None:
    # 1000 masks, but all on two images that disagree: the mean is 0, 0.5 or 1 and the interval says so
    image = np.repeat([0, 1], 500)
    figure = ImageBootstrap(image).mean(image)
    assert set(figure.draws) == {0.0, 0.5, 1.0}
    assert figure.interval() == (0.0, 1.0)


def test_interval_has_the_width_of_theory() -> None:
    # mean of 400 independent values of deviation 1: standard error 1/20
    values = np.random.default_rng(2).standard_normal(400)
    low, high = ImageBootstrap(np.arange(400), replicates=4000).mean(values).interval()
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.random(100)
    bootstrap = ImageBootstrap(np.arange(100))
    low, high = (bootstrap.mean(coarse + 0.1) - bootstrap.mean(coarse)).interval()
    assert (low, high) == pytest.approx((0.1, 0.1))  # the spread of the masks cancels


def test_nan_is_left_out_of_a_mean() -> None:
    assert ImageBootstrap(np.arange(3)).mean([1.0, np.nan, 0.0]).value == 0.5


def test_undefined_figures() -> None:
    figure = ImageBootstrap(np.arange(2)).ratio([0.0, 0.0], [0.0, 0.0])
    assert np.isnan(figure.value)
    assert np.isnan(figure.interval()).all()


def test_mean_of_sources_weighs_sources_equally() -> None:
    one, other = Figure(0.2, np.array([0.1, 0.3])), Figure(0.6, np.array([0.5, 0.7]))
    undefined = Figure(float("nan"), np.array([np.nan, np.nan]))
    mean = mean_figure([one, other, undefined])
    assert mean.value == pytest.approx(0.4)
    np.testing.assert_allclose(mean.draws, [0.3, 0.5])
