"""Work on canvases against the same at the photograph's own size."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.masks import binary, canvas, spans
from pipeline.masks.canvas import Canvas, Patch, canvas_of
from pipeline.masks.frames import Frame, tight_box_xyxy

SIDE = 256
SIZES = [(480, 640), (640, 427), (97, 61), (1500, 2000), (3000, 2250)]


def disc(size_hw: tuple[int, int], radius: float = 0.3) -> np.ndarray:
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    return ((rows / size_hw[0] - 0.4) ** 2 + (columns / size_hw[1] - 0.6) ** 2 < radius**2).astype(np.uint8)


def patch_of(mask: np.ndarray) -> Patch:
    return canvas.patch_of_spans(spans.of(binary.encode(mask)), (mask.shape[0], mask.shape[1]))


def smooth_logits(frame: Frame) -> np.ndarray:
    field = frame.field_to_mask(disc(frame.size_hw), SIDE)
    return np.asarray(12 * field - 6 + np.random.default_rng(0).normal(0, 0.3, field.shape), np.float32)


def test_small_windows_are_cut_out_and_large_ones_reduced() -> None:
    assert canvas_of((10, 20, 110, 60), (480, 640), 384) == Canvas(10, 20, 40, 100, 1)
    assert canvas_of((0, 0, 8000, 6001), (6001, 8000), 640) == Canvas(0, 0, 462, 616, 13)
    assert canvas_of((7999 - 1300, 0, 7999, 10), (6000, 7999), 640) == Canvas(7999 - 434 * 3, 0, 4, 434, 3)


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("input_side", [512, 1024])
def test_logits_are_those_of_the_whole_image(size_hw: tuple[int, int], input_side: int) -> None:
    frame = Frame(size_hw, input_side)
    logits = smooth_logits(frame)
    whole = frame.logits_to_image(logits)
    part = Canvas(size_hw[1] // 5, size_hw[0] // 4, size_hw[0] // 2, size_hw[1] // 3, 1)
    rows, columns = slice(part.y, part.y + part.height), slice(part.x, part.x + part.width)
    np.testing.assert_allclose(canvas.sampled(logits, frame, part), whole[rows, columns], atol=1e-4)

    window = canvas.support(logits, frame, 0)
    box = tight_box_xyxy((whole > 0).astype(np.uint8))
    assert window is not None
    assert box is not None
    assert (window[0], window[1]) <= (box[0], box[1])
    assert window[2] > box[2]
    assert window[3] > box[3]
    cell_px = input_side / SIDE * max(size_hw) / input_side
    assert np.abs(np.subtract(window, (box[0], box[1], box[2] + 1, box[3] + 1))).max() < 3 * cell_px + 3


@pytest.mark.parametrize("size_hw", SIZES)
def test_the_mask_that_comes_out_is_the_one_of_full_size(size_hw: tuple[int, int]) -> None:
    frame = Frame(size_hw, 1024)
    logits = smooth_logits(frame)
    window = canvas.support(logits, frame, 0)
    assert window is not None
    on = canvas_of(window, size_hw, canvas.JUDGED_CELLS)
    found = binary.decode(canvas.encode(canvas.sampled(logits, frame, on), on, size_hw))
    expected = (frame.logits_to_image(logits) > 0).astype(np.uint8)
    if on.cell == 1:
        np.testing.assert_array_equal(found, expected)
    assert binary.iou(found, expected) > 0.998


def test_a_mask_is_enlarged_alike_whatever_the_stripes(monkeypatch: pytest.MonkeyPatch) -> None:
    field = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    on = Canvas(30, 20, 40, 50, 4)
    at_once = canvas.encode(field, on, (175, 225))  # the last cells stick out
    monkeypatch.setattr(canvas, "STRIPE_PIXELS", 4 * 4 * 40 * 3)
    assert canvas.encode(field, on, (175, 225)) == at_once
    assert tight_box_xyxy(binary.decode(at_once)) is not None


def test_nothing_above_zero_is_an_empty_mask() -> None:
    rle = canvas.encode(np.full((5, 5), -1, np.float32), Canvas(3, 3, 5, 5, 2), (40, 50))
    assert rle == binary.encode(np.zeros((40, 50)))
    assert canvas.patch_of_logits(np.full((SIDE, SIDE), -1, np.float32), Frame((40, 50), 1024)) is canvas.NOTHING
    assert not canvas.NOTHING.at(np.arange(3.0), np.arange(4.0)).any()


@pytest.mark.parametrize("size_hw", [(480, 640), (640, 427), (1500, 2000), (3000, 2250)])
def test_masks_in_the_models_square_are_averaged_as_ever(size_hw: tuple[int, int]) -> None:
    mask, frame = disc(size_hw), Frame(size_hw, 512)  # shrunk: larger models enlarge small photographs smoothly
    expected = frame.field_to_mask(mask, SIDE)
    patch = patch_of(mask)
    assert (patch.canvas.cell == 1) == (patch.drawn is None)
    np.testing.assert_allclose(patch.in_square(frame, SIDE), expected, atol=2e-3)
    coarse = canvas.field_to_mask(patch.mask.astype(np.float32), patch.canvas, frame, SIDE)
    np.testing.assert_allclose(coarse.mean(), expected.mean(), rtol=0.01)
    assert set(np.unique(coarse[expected == 0])) <= {0.0} or patch.canvas.cell > 1  # nothing is left of rounding


def test_a_mirrored_patch_is_that_of_the_mirrored_mask() -> None:
    for size_hw in ((90, 121), (900, 1301)):
        mask = disc(size_hw)
        found, expected = patch_of(mask).mirrored(size_hw[1]), patch_of(mask[:, ::-1].copy())
        assert found.box_xyxy == expected.box_xyxy
        places = np.arange(float(size_hw[0])), np.arange(float(size_hw[1]))
        assert binary.iou(found.at(*places), expected.at(*places)) > 0.99
        frame = Frame(size_hw, 512)
        np.testing.assert_allclose(found.in_square(frame, SIDE), expected.in_square(frame, SIDE), atol=1e-6)


def test_a_line_thinner_than_a_cell_is_not_lost() -> None:
    mask = np.zeros((2000, 3000), np.uint8)
    mask[1000, 100:2900] = 1
    patch = patch_of(mask)
    assert patch.box_xyxy == (100, 1000, 2899, 1000)
    assert patch.mask.any()
    assert patch.in_square(Frame(mask.shape, 1024), SIDE).any()


def test_a_patch_moves_with_its_cut_out() -> None:
    mask = disc((200, 300))
    patch = patch_of(mask).moved(60, 20)
    np.testing.assert_array_equal(patch.at(np.arange(100.0), np.arange(200.0)), mask[20:120, 60:260])
