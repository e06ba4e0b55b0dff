"""Decoding: every kind of file has a defined result."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images import decode_image
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
