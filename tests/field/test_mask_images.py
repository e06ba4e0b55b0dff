"""Folders of mask images in every format, with edges, alpha, colours and depths as tools write them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.decoding import label_image, raster
from pipeline.decoding.decode import decode_image, decode_reduced
from pipeline.errors import MaskError
from tests.field.world import SIZE_HW, Pixels, coco, encoded, photograph, put, put_images, run, square

SQUARE = square()
BLACK_WHITE = SQUARE * 255
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".gif": ("GIF", {}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".jpg": ("JPEG", {"quality": 75}),
    ".jpeg": ("JPEG", {"quality": 30}),
    ".jp2": ("JPEG2000", {}),
    ".pgm": ("PPM", {}),
    ".tga": ("TGA", {}),
    ".PNG": ("PNG", {}),
}


def one_mask(folder: Path, suffix: str, data: bytes, source: str | None = None) -> Any:
    put_images(folder / "images", "a.jpg")
    put(folder / "masks" / f"a{suffix}", data)
    return run(folder / "images", folder / "masks", folder / "out", source)


@pytest.mark.parametrize("suffix", FORMATS)
def test_black_and_white_in_every_format(tmp_path: Path, suffix: str) -> None:
    kind, options = FORMATS[suffix]
    outcome = one_mask(tmp_path, suffix, encoded(BLACK_WHITE, kind, **options))
    assert (outcome.pixels()["a"] == SQUARE).all()
    assert (outcome.source, outcome.scan["unread"]) == ("png", 0)
    assert outcome.only()["category_id"] == 1


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_artefacts_of_a_lossy_mask_are_told(tmp_path: Path, quality: int) -> None:
    disc = np.zeros(SIZE_HW, np.uint8)
    cv2.circle(disc, (48, 32), 20, 255, -1)
    outcome = one_mask(tmp_path, ".jpg", encoded(disc, "JPEG", quality=quality))
    found = outcome.pixels()["a"]
    assert (found & (disc > 0)).sum() / (found | (disc > 0)).sum() > 0.97
    assert outcome.only()["detail"].startswith("artefacts of a lossy format")
    assert outcome.said("odd") == {"artefacts of a lossy format": ["a.jpg"]}


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 20, 90)])
def test_labels_in_a_lossy_format_are_refused_by_name(tmp_path: Path, values: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).choice(np.array(values, np.uint8), SIZE_HW)
    row = one_mask(tmp_path, ".jpg", encoded(noise, "JPEG", quality=60)).only()
    assert row["reason"] == "mask_unreadable"
    assert "lossy" in row["detail"]


def soft(scale: int = 4) -> Pixels:
    """A disc with anti-aliased edges."""
    large = np.zeros((SIZE_HW[0] * scale, SIZE_HW[1] * scale), np.uint8)
    cv2.circle(large, (48 * scale, 32 * scale), 20 * scale, 255, -1)
    return cv2.resize(large, SIZE_HW[::-1], interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_soft_edges_are_one_mask(tmp_path: Path, kind: str) -> None:
    grey = soft()
    assert len(np.unique(grey)) > 5
    outcome = one_mask(tmp_path, f".{kind.lower()}" if kind != "TIFF" else ".tif", encoded(grey, kind))
    assert (outcome.pixels()["a"] == (grey >= 128)).all()
    assert outcome.only()["detail"].startswith("soft edges")


def test_a_float_mask_is_cut_in_the_middle(tmp_path: Path) -> None:
    outcome = one_mask(tmp_path, ".tif", encoded(soft().astype(np.float32) / 255, "TIFF"))
    assert (outcome.pixels()["a"] == (soft() >= 128)).all()


def test_labels_are_no_soft_edges(tmp_path: Path) -> None:
    """Ids of instances, thin ones too, beside a void outline: as before."""
    labels = np.zeros(SIZE_HW, np.uint8)
    labels[4:20, 4:30], labels[24:40, 4:30], labels[44:60, 40:80], labels[30, 40:80] = 3, 7, 200, 90
    labels[2:4, 2:90] = 255
    outcome = one_mask(tmp_path, ".png", encoded(labels))
    assert {row["source_mask_id"]: row["category_id"] for row in outcome.masks} == {
        "a#3": 3,
        "a#7": 7,
        "a#90": 90,
        "a#200": 200,
    }
    assert all((outcome.pixels()[f"a#{value}"] == (labels == value)).all() for value in (3, 7, 90, 200))


@pytest.mark.parametrize("mode", ["black", "white", "LA"])
def test_a_mask_in_the_alpha_channel(tmp_path: Path, mode: str) -> None:
    alpha = Image.fromarray(BLACK_WHITE)
    image = Image.new("L", SIZE_HW[::-1], 0) if mode == "LA" else Image.new("RGB", SIZE_HW[::-1], mode)
    image.putalpha(alpha)
    outcome = one_mask(tmp_path, ".png", encoded(image))
    assert (outcome.pixels()["a"] == SQUARE).all()
    assert outcome.only()["detail"].startswith("alpha")


def test_a_grey_palette_of_a_gif_is_read_by_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(1 - SQUARE)  # index 0 is white, 1 black
    image.putpalette([255, 255, 255, 0, 0, 0])
    outcome = one_mask(tmp_path, ".gif", encoded(image, "GIF"))
    assert (outcome.pixels()["a"] == SQUARE).all()


def test_what_is_no_mask_is_refused_by_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), np.uint8)
    grey = cv2.GaussianBlur(noise[..., 0], (5, 5), 0)
    stack = [Image.fromarray(BLACK_WHITE), Image.fromarray(BLACK_WHITE.T.copy()).resize(SIZE_HW[::-1])]
    broken = {
        "photo.png": (encoded(noise), "a photograph"),
        "grey.png": (encoded(grey), "a photograph"),
        "stack.tif": (encoded(stack[0], "TIFF", save_all=True, append_images=stack[1:]), "TIFF of 2 frames"),
        "negative.tif": (encoded(Image.fromarray(-SQUARE.astype(np.int32)), "TIFF"), "a label below 0"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage", "cannot identify"),
        "bomb.png": (encoded(Image.new("1", (20_000, 20_000))), "400000000 "),
    }
    put_images(tmp_path / "images", *(name.rpartition(".")[0] + ".jpg" for name in broken), "good.jpg")
    for name, (data, _) in broken.items():
        put(tmp_path / "masks" / name, data)
    put(tmp_path / "masks" / "good.png", BLACK_WHITE)
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    rows = {row["source_mask_id"]: row for row in outcome.masks}
    assert rows.pop("good")["decision"] == "refined"
    for name, (_, words) in broken.items():
        row = rows[name.rpartition(".")[0]]
        assert row["reason"] == "mask_unreadable"
        assert words.strip() in row["detail"] or ("bomb" in name and "20000x20000" in row["detail"]), row["detail"]


@pytest.mark.parametrize("source", ["voc", "class-maps", "instances", "png"])
def test_labels_that_no_memory_holds_stop_nothing(tmp_path: Path, source: str) -> None:
    huge = SQUARE.astype(np.int32) * 2_000_000_000
    data = encoded(Image.fromarray(huge), "TIFF")
    for folder in ("SegmentationObject", "SegmentationClass"):
        put(tmp_path / "voc" / folder / "a.png", data)
    put_images(tmp_path / "images", "a.jpg")
    masks = tmp_path / "voc" if source == "voc" else tmp_path / "voc" / "SegmentationObject"
    row = run(tmp_path / "images", masks, tmp_path / "out", source).only()
    assert row["area"] == SQUARE.sum()


def test_the_mask_says_in_which_frame_it_was_drawn(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = photograph()
    for name in ("stored.jpg", "shown.jpg"):
        put(tmp_path / "images" / name, encoded(stored, "JPEG", exif=exif))
    put(tmp_path / "masks" / "stored.png", BLACK_WHITE)
    put(tmp_path / "masks" / "shown.png", np.rot90(BLACK_WHITE, -1).copy())
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert (outcome.pixels()["stored"] == SQUARE).all()
    assert (outcome.pixels()["shown"] == np.rot90(SQUARE, -1)).all()
    assert [outcome.images[name]["height"] for name in ("stored.jpg", "shown.jpg")] == [64, 96]


SUFFIXES = {
    ".avif": "AVIF",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jp2": "JPEG2000",
    ".ppm": "PPM",
    ".tga": "TGA",
    ".pcx": "PCX",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_of_every_suffix_that_is_decoded(tmp_path: Path, suffix: str) -> None:
    if SUFFIXES[suffix] not in raster.formats():
        pytest.skip(f"this Pillow has no {SUFFIXES[suffix]}")
    put(tmp_path / "images" / f"a{suffix}", encoded(photograph(), SUFFIXES[suffix]))
    put(tmp_path / "masks" / "a.png", BLACK_WHITE)
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert outcome.images[f"a{suffix}"]["status"] == "ok"
    assert (outcome.pixels()["a"] == SQUARE).all()


def with_text(data: bytes, kind: bytes, size: int, before: bytes = b"IDAT") -> bytes:
    """A PNG with a chunk of text."""
    text = b"k\0" if kind == b"tEXt" else b"k\0\0" if kind == b"zTXt" else b"k\0\1\0\0\0"
    body = kind + text + (b"x" * size if kind == b"tEXt" else zlib.compress(b"x" * size))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    at = data.index(before) - 4
    return data[:at] + chunk + data[at:]


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_long_text_in_a_png_is_not_in_the_way(kind: bytes, before: bytes) -> None:
    data = with_text(encoded(photograph()), kind, 3 << 20, before)
    assert (decode_image(data, 10**6) == photograph()).all()
    mask = with_text(encoded(BLACK_WHITE), kind, 3 << 20, before)
    assert (label_image.read(mask).labels == BLACK_WHITE).all()


EIGHT = photograph()[..., 0]
DEEP: dict[str, tuple[Any, int]] = {
    "12 bits in 16": ((EIGHT.astype(np.uint32) * 4095 // 255).astype(np.uint16), 1),
    "10 bits in 16": ((EIGHT.astype(np.uint32) * 1023 // 255).astype(np.uint16), 1),
    "16 bits": (EIGHT.astype(np.uint16) * 257, 0),
    "8 bits in 16": (EIGHT.astype(np.uint16), 0),
    "shares": (EIGHT.astype(np.float32) / 255, 1),
    "floats to 255": (EIGHT.astype(np.float32), 0),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_images_are_what_the_eight_bits_are(name: str) -> None:
    values, told = DEEP[name]
    data = encoded(Image.fromarray(values), "TIFF" if values.dtype == np.float32 else "PNG")
    found = decode_reduced(data, 10**6, None, 0)
    assert np.abs(found.pixels[..., 0].astype(int) - EIGHT).max() <= 1
    assert bool(found.detail) == bool(told)


@pytest.mark.parametrize(("low", "high"), [(-1024.0, 3071.0), (-1.0, 1.0), (0.0, 1e6)])
def test_other_ranges_are_stretched_and_told(low: float, high: float) -> None:
    values = np.linspace(low, high, 64 * 96, dtype=np.float32).reshape(SIZE_HW)
    values[0, 1] = np.nan
    found = decode_reduced(encoded(Image.fromarray(values), "TIFF"), 10**6, None, 0)
    assert (found.pixels.min(), found.pixels.max()) == (0, 255)
    assert "stretched" in found.detail


def test_colours_of_twelve_bits() -> None:
    deep = (photograph().astype(np.uint32) * 4095 // 255).astype(np.uint16)
    done, data = cv2.imencode(".png", deep[..., ::-1])
    assert done
    found = decode_reduced(data.tobytes(), 10**6, None, 0)
    assert np.abs(found.pixels.astype(int) - photograph()).max() <= 1
    assert "12 bits" in found.detail


def test_what_was_stretched_stands_in_the_result(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", encoded(DEEP["12 bits in 16"][0]))
    masks = put(tmp_path / "c.json", coco({"file_name": "a.png"}))
    outcome = run(tmp_path / "images", masks, tmp_path / "out")
    assert outcome.images["a.png"]["detail"].startswith("values of 12 bits")


def test_postscript_is_not_started() -> None:
    assert "EPS" not in raster.formats()
    with pytest.raises(MaskError):
        label_image.read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
