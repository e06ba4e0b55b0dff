"""Frames against segment-anything's own transforms."""

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from pipeline.masks.frames import Frame, resize_to_input, tight_box_xyxy

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


@pytest.mark.parametrize("input_side", [512, 1024])
@pytest.mark.parametrize("size_hw", SIZES[:3])
def test_a_mask_comes_back_from_the_mask_frame(size_hw: tuple[int, int], input_side: int) -> None:
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    mask = ((rows - size_hw[0] / 2) ** 2 + (columns - size_hw[1] / 2) ** 2 < (min(size_hw) / 3) ** 2).astype(np.uint8)
    frame = Frame(size_hw, input_side)
    back = frame.logits_to_image(frame.field_to_mask(mask, 256) - 0.5) > 0
    assert np.count_nonzero(back & (mask > 0)) / np.count_nonzero(back | (mask > 0)) > 0.97


def test_tight_box_is_inclusive() -> None:
    mask = np.zeros((10, 12), np.uint8)
    assert tight_box_xyxy(mask) is None
    mask[3:5, 4:9] = 1
    assert tight_box_xyxy(mask) == (4, 3, 8, 4)
