"""Decoding: every kind of file has a defined result."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.geometry import resize_to_input
from pipeline.images import decode_image, decode_reduced
from tests.conftest import DEMO

PHOTO = (DEMO / "images" / "chelsea.jpg").read_bytes()
LIMIT = 10**7


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, name, **options)
    return sink.getvalue()


def gradient(mode: str) -> Image.Image:
    return Image.fromarray(np.tile(np.arange(0, 200, dtype=np.uint8), (50, 1))).convert(mode)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "PNG"), ("P", "GIF"), ("RGB", "BMP"), ("CMYK", "TIFF"), ("1", "PNG"), ("RGB", "WEBP"), ("LA", "PNG")],
)
def test_modes_and_formats_become_rgb(mode: str, name: str) -> None:
    decoded = decode_image(encoded(gradient(mode), name), LIMIT)
    assert decoded.shape == (50, 200, 3)
    assert decoded.dtype == np.uint8
    assert decoded[:, 190].mean() > decoded[:, 5].mean() + 50


def test_sixteen_bits_are_scaled_and_alpha_lies_on_white() -> None:
    deep = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert decode_image(encoded(deep, "PNG"), LIMIT)[0, 0].tolist() == [128, 128, 128]
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert decode_image(encoded(clear, "PNG"), LIMIT)[0, 0].tolist() == [255, 255, 255]


def test_exif_orientation_follows_the_declared_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    data = encoded(Image.new("RGB", (60, 40)), "JPEG", exif=exif)
    assert decode_image(data, LIMIT).shape[:2] == (60, 40)
    assert decode_image(data, LIMIT, declared_hw=(60, 40)).shape[:2] == (60, 40)
    assert decode_image(data, LIMIT, declared_hw=(40, 60)).shape[:2] == (40, 60)


def large(width: int, height: int) -> Image.Image:
    return Image.open(io.BytesIO(PHOTO)).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("size", "side", "decoded"),
    [
        ((2051, 1367), 1024, (1026, 684)),
        ((2047, 1367), 1024, (2047, 1367)),
        ((4500, 3000), 1024, (1125, 750)),
        ((2051, 1367), 0, (2051, 1367)),
        ((5000, 1), 1024, (5000, 1)),
    ],
)
def test_large_jpegs_are_decoded_at_a_part_of_their_size(
    size: tuple[int, int], side: int, decoded: tuple[int, int]
) -> None:
    data = encoded(large(*size), "JPEG")
    found = decode_reduced(data, 10**8, None, side)
    assert found.size_hw == size[::-1]
    assert found.pixels.shape[:2] == decoded[::-1]
    assert decode_reduced(encoded(large(*size), "PNG"), 10**8, None, side).pixels.shape[:2] == size[::-1]


def test_a_reduced_jpeg_shows_what_the_whole_one_does() -> None:
    data = encoded(large(4099, 2731), "JPEG", quality=92)
    whole = resize_to_input(decode_image(data, 10**8), 512)
    reduced = decode_reduced(data, 10**8, None, 1024)
    assert reduced.pixels.shape[:2] == (683, 1025)
    shown = resize_to_input(reduced.pixels, 512, reduced.size_hw)
    assert shown.shape == whole.shape
    assert np.abs(shown.astype(int) - whole).mean() < 0.5  # of 255 levels


@pytest.mark.parametrize(("declared_hw", "size_hw"), [(None, (2400, 1600)), ((1600, 2400), (1600, 2400))])
def test_a_reduced_jpeg_is_turned_like_the_whole_one(
    declared_hw: tuple[int, int] | None, size_hw: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode_reduced(encoded(large(2400, 1600), "JPEG", exif=exif), 10**8, declared_hw, 1024)
    assert found.size_hw == size_hw
    assert found.pixels.shape[:2] == (size_hw[0] // 2, size_hw[1] // 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (PHOTO[: len(PHOTO) // 2], "image_truncated"),
        (b"this is no picture", "image_unreadable"),
        (b"", "image_unreadable"),
        (PHOTO[:20], "image_unreadable"),
    ],
)
def test_broken_files_have_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as raised:
        decode_image(data, LIMIT)
    assert raised.value.reason == reason


def test_pixels_are_bounded_before_decoding() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 10**5
    with pytest.raises(ImageError, match="image_too_large"):
        decode_image(bomb, LIMIT)
    with pytest.raises(ImageError, match="300x200 pixels, more than 59999"):
        decode_image(encoded(Image.new("1", (300, 200)), "PNG"), 59_999)
