"""Frames against segment-anything's own transforms."""

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from pipeline.masks.frames import ORIGINAL_SIZE, Frame, resize_to_input, resized_hw, tight_box_xyxy

SIZES = [(480, 640), (640, 427), (1200, 900), (33, 500), (1, 1), (1024, 1024)]


@pytest.mark.parametrize("size_hw", SIZES)
def test_coordinates_and_input_size_are_segment_anythings(size_hw: tuple[int, int]) -> None:
    transform = ResizeLongestSide(1024)
    frame = Frame(size_hw, 1024)
    assert frame.input_hw == transform.get_preprocess_shape(*size_hw, 1024)
    points = np.array([[0, 0], [size_hw[1] - 1, size_hw[0] - 1], [3.5, 2.25]])
    np.testing.assert_allclose(frame.points_to_prompt(points), transform.apply_coords(points, size_hw), rtol=1e-6)


@pytest.mark.parametrize("size_hw", SIZES[:4])
def test_image_resizing_is_segment_anythings(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_to_input(image, 1024), ResizeLongestSide(1024).apply_image(image))


@pytest.mark.parametrize("size_hw", SIZES[:4])
def test_logits_to_image_is_segment_anythings(size_hw: tuple[int, int]) -> None:
    logits = torch.nn.functional.interpolate(torch.randn(1, 1, 16, 16), (256, 256), mode="bicubic")
    frame = Frame(size_hw, 1024)
    sam = Sam.__new__(Sam)
    torch.nn.Module.__init__(sam)
    sam.image_encoder = torch.nn.Module()
    sam.image_encoder.img_size = 1024
    reference = sam.postprocess_masks(logits, frame.input_hw, size_hw)[0, 0].numpy()
    np.testing.assert_allclose(frame.logits_to_image(logits[0, 0].numpy()), reference, atol=2e-3)


@pytest.mark.parametrize(("input_side", "stretched"), [(512, False), (1024, False), (1008, True)])
@pytest.mark.parametrize("size_hw", [*SIZES[:3], (900, 2000)])
def test_a_mask_comes_back_from_the_mask_frame(size_hw: tuple[int, int], input_side: int, stretched: bool) -> None:
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    mask = ((rows - size_hw[0] / 2) ** 2 + (columns - size_hw[1] / 2) ** 2 < (min(size_hw) / 3) ** 2).astype(np.uint8)
    frame = Frame(size_hw, input_side, stretched)
    back = frame.logits_to_image(frame.field_to_mask(mask, 256) - 0.5) > 0
    assert np.count_nonzero(back & (mask > 0)) / np.count_nonzero(back | (mask > 0)) > 0.97


@pytest.mark.parametrize("size_hw", [(480, 640), (2000, 900), (33, 500)])
def test_a_stretched_image_fills_the_square(size_hw: tuple[int, int]) -> None:
    """As SAM 2's SAM2Transforms: coordinates by the share of each side, masks in one step."""
    height, width = size_hw
    frame = Frame(size_hw, 1024, stretched=True)
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    assert frame.input_hw == resize_to_input(image, 1024, stretched=True).shape[:2] == (1024, 1024)
    np.testing.assert_allclose(frame.points_to_prompt([[width, height], [0, 0]]), [[1024, 1024], [0, 0]])
    np.testing.assert_allclose(frame.box_to_prompt([width / 2, 0, width, height / 4]), [512, 0, 1024, 256], rtol=1e-6)
    logits = torch.nn.functional.interpolate(torch.randn(1, 1, 16, 16), (256, 256), mode="bicubic")
    reference = torch.nn.functional.interpolate(logits, size_hw, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(frame.logits_to_image(logits[0, 0].numpy()), reference, atol=2e-3)
    assert frame.to_image_px(frame.input_scale) == pytest.approx(1)


@pytest.mark.parametrize("size_hw", [(480, 2000), (2000, 480)])
def test_an_axis_that_shrinks_is_averaged_and_one_that_grows_is_not(size_hw: tuple[int, int]) -> None:
    """A checkerboard of single pixels is grey along the axis that shrinks, whatever the other one does."""
    frame = Frame(size_hw, 1000, stretched=True)
    stripes = np.zeros(size_hw, np.float32)
    stripes[(slice(None), slice(None, None, 2)) if size_hw[1] == 2000 else slice(None, None, 2)] = 1
    np.testing.assert_allclose(frame.field_to_mask(stripes, 250), 0.5, atol=1e-4)


def test_at_most_enlarges_nothing_and_keeps_the_shape() -> None:
    assert [resized_hw(size_hw, 100) for size_hw in ((50, 80), (200, 400))] == [(63, 100), (50, 100)]
    for stretched in (False, True):
        at_most = [resized_hw(size_hw, 100, stretched, at_most=True) for size_hw in ((50, 80), (200, 400))]
        assert at_most == [(50, 80), (50, 100)]
    assert resized_hw((50, 80), ORIGINAL_SIZE, stretched=True) == (50, 80)


def test_tight_box_is_inclusive() -> None:
    mask = np.zeros((10, 12), np.uint8)
    assert tight_box_xyxy(mask) is None
    mask[3:5, 4:9] = 1
    assert tight_box_xyxy(mask) == (4, 3, 8, 4)
