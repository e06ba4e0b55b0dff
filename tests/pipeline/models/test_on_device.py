"""The work on every pixel in torch against the same in OpenCV and numpy; on the CPU, or on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pipeline.masks import binary
from pipeline.masks import scores as mask_scores
from pipeline.masks import views as multi_view
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.masks.views import View, Window
from pipeline.models.on_device import OnDevice
from pipeline.refiners import REFINERS, RefineImage
from schemas.config import Method
from tests.fakes import FakeModel

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIDE = 256
SIZES = [(480, 640), (640, 427), (1024, 768), (1500, 2000), (97, 61), (31, 400), (1024, 1024), (2048, 1024)]


def blobs(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """A ragged mask of a few pieces, away from no border in particular."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    mask = np.zeros(size_hw, bool)
    for _ in range(3):
        y, x, radius = rng.integers(size_hw[0]), rng.integers(size_hw[1]), rng.uniform(0.1, 0.3) * max(size_hw)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    return (mask & (rng.random(size_hw) < 0.98)).astype(np.uint8)


def smooth_logits(seed: int, frame: Frame) -> np.ndarray:
    field = frame.field_to_mask(blobs(seed, frame.size_hw), SIDE)
    return np.asarray(12 * field - 6 + np.random.default_rng(seed).normal(0, 0.5, field.shape), np.float32)


@pytest.mark.parametrize(("input_side", "stretched"), [(512, False), (1024, False), (1008, True)])
@pytest.mark.parametrize("size_hw", SIZES)
def test_fields_and_masks_are_those_of_opencv(size_hw: tuple[int, int], input_side: int, stretched: bool) -> None:
    device, frame = OnDevice(DEVICE), Frame(size_hw, input_side, stretched)
    mask = blobs(0, size_hw)
    x1, y1, x2, y2 = box = (size_hw[1] // 5, size_hw[0] // 4, size_hw[1] - 2, size_hw[0] - 3)
    inside = np.zeros(size_hw, np.float32)
    inside[y1 : y2 + 1, x1 : x2 + 1] = mask[y1 : y2 + 1, x1 : x2 + 1]
    fields = np.stack([inside, 0.3 * inside])
    found = device.fields_to_mask(fields[:, y1 : y2 + 1, x1 : x2 + 1], box, frame, SIDE)
    expected = np.stack([frame.field_to_mask(field, SIDE) for field in fields])
    np.testing.assert_allclose(found, expected, atol=2e-3)  # OpenCV drops overlaps below a thousandth of a pixel
    assert np.abs(found - expected).mean() < 1e-5

    logits = np.stack([smooth_logits(seed, frame) for seed in range(3)])
    for one, answer in zip(logits, device.masks(logits, frame), strict=True):
        assert answer.dtype == np.uint8
        assert answer.shape == size_hw
        # Where they differ the logit is 0 but for rounding.
        assert np.abs(frame.logits_to_image(one)[answer != (frame.logits_to_image(one) > 0)]).max(initial=0) < 1e-4


def views_of(seed: int, size_hw: tuple[int, int], windows: Sequence[tuple[Window, bool]]) -> list[View]:
    found = []
    for place, (window, mirrored) in enumerate(windows):
        frame = Frame((window[3] - window[1], window[2] - window[0]), 1024)
        mask = multi_view.cut(blobs(seed, size_hw), window)
        mask = multi_view.mirrored(mask) if mirrored else mask
        noise = np.random.default_rng([seed, place]).normal(0, 0.5, (SIDE, SIDE))
        logits = np.asarray(12 * frame.field_to_mask(mask, SIDE) - 6 + noise, np.float32)
        found.append(View(window, frame, mirrored, logits, 0.8 + 0.3 * place))
    return found


@pytest.mark.parametrize("size_hw", SIZES)
def test_the_verdict_is_that_of_numpy(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    whole, part = (0, 0, width, height), (width // 8, height // 8, width - width // 4, height - 3)
    views = [
        views_of(0, size_hw, [(whole, False)]),
        views_of(1, size_hw, [(whole, False), (whole, True)]),
        views_of(2, size_hw, [(whole, False), (whole, True), (part, False)]),
    ]
    views[0].append(views[0][0]._replace(logits=np.full((SIDE, SIDE), -9, np.float32)))  # nothing is left of the mask
    coarse = [blobs(seed + 10, size_hw) for seed in range(3)]
    pixels = resize_to_input(np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8), 1024)
    judged = OnDevice(DEVICE).judge(pixels, coarse, views)
    assert judged is not None
    for mask, of_one, verdict in zip(coarse, views, judged, strict=True):
        fused, own = multi_view.fuse(of_one, size_hw)
        refined = (fused > 0).astype(np.uint8)
        assert np.abs(fused[refined != verdict.refined]).max(initial=0) < 1e-4
        scores = multi_view.evidence(of_one, own, fused, mask, refined) | mask_scores.contrasts(pixels, mask, refined)
        assert verdict.scores == pytest.approx(scores, abs=2e-4)


def test_a_tiny_mask_has_no_margin_around_it() -> None:
    logits = np.full((SIDE, SIDE), -4, np.float32)
    logits[40:43, 60:63] = 4
    frame = Frame((400, 400), 1024)
    of_one = [View((0, 0, 400, 400), frame, False, logits, 0.9)]
    coarse = np.zeros((400, 400), np.uint8)
    coarse[63:65, 94:96] = 1
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    judged = OnDevice(DEVICE).judge(pixels, [coarse], [of_one])
    assert judged is not None
    fused, own = multi_view.fuse(of_one, (400, 400))
    refined = (fused > 0).astype(np.uint8)
    assert 6 < refined.sum() <= 16  # at most 4 pixels wide
    scores = multi_view.evidence(of_one, own, fused, coarse, refined) | mask_scores.contrasts(pixels, coarse, refined)
    assert judged[0].scores == pytest.approx(scores, abs=2e-4)


def test_masks_are_judged_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    size_hw = (60, 80)
    views = [views_of(seed, size_hw, [((0, 0, 80, 60), False)]) for seed in range(5)]
    coarse = [blobs(seed, size_hw) for seed in range(5)]
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    together = OnDevice(DEVICE).judge(pixels, coarse, views)
    monkeypatch.setattr("pipeline.models.on_device.PIXELS_AT_ONCE", 2 * 60 * 80)
    apart = OnDevice(DEVICE).judge(pixels, coarse, views)
    assert together is not None
    assert apart is not None
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one.refined, other.refined)
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_an_image_too_small_to_reflect_is_left_to_opencv() -> None:
    size_hw = (5, 40)
    coarse = [np.ones(size_hw, np.uint8)]
    pixels = np.zeros((*size_hw, 3), np.uint8)
    assert OnDevice(DEVICE).judge(pixels, coarse, [views_of(0, size_hw, [((0, 0, 40, 5), False)])]) is None


@pytest.mark.parametrize(
    "method",
    [Method(iterations=3), Method(mirror=True, crop_ratio=1.5), Method(colour_vote=0.4), Method(use_mask=False)],
)
def test_refined_masks_are_the_same_with_and_without(method: Method) -> None:
    images = []
    for seed, size_hw in enumerate([(120, 160), (200, 100), (6, 90)]):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        coarse = [binary.encode(blobs(10 * seed + place, size_hw)) for place in range(2)]
        at_input = pixels if method.crop_ratio else resize_to_input(pixels, 1024)
        images.append(RefineImage(at_input, Frame(size_hw, 1024), coarse))
    plain, there = FakeModel(), FakeModel()
    there.on_device = OnDevice(DEVICE)
    pairs = zip(
        [mask for image in REFINERS["samrefiner"].run(plain, images, method) for mask in image],
        [mask for image in REFINERS["samrefiner"].run(there, images, method) for mask in image],
        strict=True,
    )
    for one, other in pairs:
        assert binary.iou(binary.decode(one.rle), binary.decode(other.rle)) > 0.99
        assert other.scores == pytest.approx(one.scores, abs=0.02, nan_ok=True)
