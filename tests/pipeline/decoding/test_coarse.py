"""A planned mask's geometry: every form, and every way it can be broken."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.decoding.coarse import UnusableMaskError, coarse_rle, mask_file, read_label_image
from pipeline.errors import MaskError
from pipeline.masks import binary

SIZE = (20, 30)
MASK = np.zeros(SIZE, np.uint8)
MASK[5:12, 8:20] = 1
RLE = binary.encode(MASK)


def png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


@pytest.mark.parametrize(
    "geometry",
    [
        RLE,
        {"size": list(SIZE), "counts": binary.run_lengths(RLE["counts"])},
        [[8, 5, 20, 5, 20, 12, 8, 12]],
    ],
)
def test_all_coco_forms_give_the_same_mask(geometry: object) -> None:
    rle = coarse_rle(json.dumps(geometry), SIZE, SIZE, {})
    np.testing.assert_array_equal(binary.decode(rle), MASK)


def test_mask_files_by_value() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[2:4, 2:4], labels[6:9, 6:9] = 3, 7
    by_value = coarse_rle('{"file": "a.png", "value": 7}', SIZE, SIZE, {"a.png": png(labels)})
    assert binary.area(by_value) == 9
    any_value = coarse_rle('{"file": "a.png", "value": null}', SIZE, SIZE, {"a.png": png(labels)})
    assert binary.area(any_value) == 13


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        ("not json", "mask_unreadable"),
        ("null", "mask_unreadable"),
        ("[]", "mask_unreadable"),
        ("[[1, 2, 3]]", "mask_unreadable"),
        ("[[NaN, 1, 2, 3, 4, 5]]", "mask_unreadable"),
        ('[["a", 1, 2, 3, 4, 5]]', "mask_unreadable"),
        ('{"size": [20, 30], "counts": [1, 2]}', "mask_unreadable"),
        ('{"size": [20, 30], "counts": [-5, 605]}', "mask_unreadable"),
        ('{"size": [20, 30], "counts": "broken"}', "mask_unreadable"),
        ('{"size": [20], "counts": "0"}', "mask_unreadable"),
        ('{"counts": "0"}', "mask_unreadable"),
        ('{"size": [20, 30], "counts": [600]}', "mask_empty"),
        ('{"size": [10, 30], "counts": [5, 295]}', "mask_size_mismatch"),
        ('{"file": "gone.png", "value": null}', "mask_missing"),
    ],
)
def test_broken_masks_have_a_reason(geometry: str, reason: str) -> None:
    with pytest.raises(MaskError) as raised:
        coarse_rle(geometry, SIZE, SIZE, {})
    assert raised.value.reason == reason


def test_what_came_in_is_kept_when_it_cannot_be_used() -> None:
    other = binary.encode(np.ones((3, 4), np.uint8))
    with pytest.raises(UnusableMaskError) as raised:
        coarse_rle(json.dumps(other), SIZE, SIZE, {})
    assert raised.value.rle == other


def test_which_file_a_geometry_needs() -> None:
    assert mask_file('{"file": "a.png", "value": 7}') == "a.png"
    for geometry in (json.dumps(RLE), "[[1, 2]]", '["file"]', '{"file"', '{"file": 3}'):
        assert mask_file(geometry) is None


def test_label_images() -> None:
    indexed = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(indexed)
    palette.putpalette([channel for index in range(256) for channel in (index, 255 - index, 7)])
    sink = io.BytesIO()
    palette.save(sink, "PNG")
    assert Image.open(sink).mode == "P"
    np.testing.assert_array_equal(read_label_image(sink.getvalue()), indexed)
    grey_as_rgb = np.repeat(indexed[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_label_image(png(grey_as_rgb)), indexed)
    packed = grey_as_rgb.copy()
    packed[0, 0] = (1, 2, 3)
    assert read_label_image(png(packed))[0, 0] == 1 + 2 * 256 + 3 * 65536
    with pytest.raises(MaskError):
        read_label_image(b"no picture")
