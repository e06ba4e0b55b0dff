"""Hostile and odd input: every kind has a defined result, each row is there once, and the good ones are not touched."""

import io
import json
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import Result
from pipeline.errors import REASONS
from pipeline.masks import binary
from pipeline.models import NoModel
from schemas.config import Method
from tests.fakes import FakeModel
from tests.pipeline.whole import coco, run_here

SIDE = 48
SQUARE = [[5, 5, 40, 5, 40, 40, 5, 40]]
NONE = Method(refiner="none")


def gradient(size_wh: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    columns, rows = np.meshgrid(np.linspace(0, 255, size_wh[0]), np.linspace(0, 255, size_wh[1]))
    return Image.fromarray(np.stack([columns, rows, 255 - columns], axis=2).astype(np.uint8))


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, name, **options)
    return sink.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes of pixels do not have."""

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", zlib.compress(b"\0" * 99)) + piece(b"IEND", b"")
    )


def animated(name: str) -> bytes:
    frames = [gradient(), gradient().transpose(Image.Transpose.FLIP_LEFT_RIGHT), Image.new("RGB", (SIDE, SIDE))]
    return encoded(frames[0], name, save_all=True, append_images=frames[1:], duration=50)


PHOTO = encoded(gradient(), "JPEG")
IMAGES: dict[str, tuple[bytes, str | None]] = {
    # name: content, reason of failure (None: it is done)
    "plain.jpg": (PHOTO, None),
    "cmyk.jpg": (encoded(gradient().convert("CMYK"), "JPEG"), None),
    "grey.jpg": (encoded(gradient().convert("L"), "JPEG"), None),
    "sixteen.png": (
        encoded(Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 28), "PNG"),
        None,
    ),
    "sixteen.tiff": (encoded(Image.fromarray(np.full((SIDE, SIDE), 40000, np.uint16)), "TIFF"), None),
    "float.tiff": (encoded(Image.fromarray(np.full((SIDE, SIDE), np.nan, np.float32)), "TIFF"), None),
    "palette.png": (encoded(gradient().convert("P"), "PNG"), None),
    "palette-alpha.png": (encoded(gradient().convert("P"), "PNG", transparency=3), None),
    "alpha.png": (encoded(gradient().convert("RGBA"), "PNG"), None),
    "grey-alpha.png": (encoded(gradient().convert("LA"), "PNG"), None),
    "bilevel.png": (encoded(gradient().convert("1"), "PNG"), None),
    "animated.gif": (animated("GIF"), None),
    "animated.webp": (animated("WEBP"), None),
    "animated.png": (animated("PNG"), None),
    "plain.webp": (encoded(gradient(), "WEBP"), None),
    "plain.bmp": (encoded(gradient(), "BMP"), None),
    "plain.gif": (encoded(gradient(), "GIF"), None),
    "progressive.jpg": (encoded(gradient(), "JPEG", progressive=True), None),
    "rotated.jpg": (encoded(gradient(), "JPEG", exif=exif(6)), None),
    "mirrored.jpg": (encoded(gradient(), "JPEG", exif=exif(5)), None),
    "nonsense exif.jpg": (encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), None),
    "no suffix": (PHOTO, None),
    "wrong suffix.png": (PHOTO, None),
    "two words.jpg": (PHOTO, None),
    "ünï çødé 猫 🐈.jpg": (PHOTO, None),
    "per%20cent&amp;#?.jpg": (PHOTO, None),
    "'quotes\" and\nnewline.jpg": (PHOTO, None),
    "a/b/../looks odd.jpg": (b"", "image_outside_root"),
    "../outside.jpg": (b"", "image_outside_root"),
    "/etc/passwd": (b"", "image_outside_root"),
    "file:///etc/passwd": (b"", "image_outside_root"),
    "missing.jpg": (b"", "image_missing"),
    "null\0byte.jpg": (b"", "image_missing"),
    "n" * 300 + ".jpg": (b"", "image_missing"),
    "a folder": (b"", "image_missing"),
    "zero bytes.jpg": (b"", "image_unreadable"),
    "text.jpg": (b"this is no picture", "image_unreadable"),
    "html.jpg": (b"<html><body>404</body></html>", "image_unreadable"),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n(x) run\n", "image_unreadable"),
    "vector.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_unreadable"),
    "truncated.jpg": (PHOTO[: len(PHOTO) // 2], "image_truncated"),
    "header only.jpg": (PHOTO[:20], "image_unreadable"),
    "bomb.png": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "image_too_large"),
    "claims.png": (png_of_claimed_size(2**31 - 1, 2**31 - 1), "image_too_large"),
    "claims less.png": (png_of_claimed_size(9000, 9000), "image_truncated"),
    "other size.jpg": (encoded(gradient((60, 20)), "JPEG"), None),  # its mask fails
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("odd")
    images = folder / "images"
    images.mkdir()
    (images / "a folder").mkdir()
    entries, annotations = [], []
    for number, (name, (data, reason)) in enumerate(IMAGES.items()):
        if reason not in ("image_outside_root", "image_missing"):
            (images / name).write_bytes(data)
        entries.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        annotations.append({"id": number, "image_id": number, "segmentation": SQUARE})
    (folder / "outside.jpg").write_bytes(PHOTO)
    return images, coco(folder / "coarse.json", entries, annotations)


@pytest.mark.parametrize("with_model", [False, True], ids=["none", "samrefiner"])
def test_every_kind_of_image_has_its_result(with_model: bool, odd: tuple[Path, Path], tmp_path: Path) -> None:
    model, method = (FakeModel(), Method(iterations=1)) if with_model else (NoModel(), NONE)
    result = run_here(*odd, tmp_path / "out", model, method)
    images = {row["image_id"].replace("\\x00", "\0"): row for row in result.images().to_pylist()}
    assert {name: row["reason"] for name, row in images.items()} == {name: why for name, (_, why) in IMAGES.items()}
    assert {row["status"] for row in images.values() if row["reason"] is None} == {"ok"}
    rows = {row["image_id"].replace("\\x00", "\0"): row for row in result.masks().to_pylist()}
    for name, (_, reason) in IMAGES.items():
        expected = "mask_size_mismatch" if name == "other size.jpg" else reason
        assert (rows[name]["decision"] == "failed") == (expected is not None), name
        assert expected is None or rows[name]["reason"] == expected


def one_image(tmp_path: Path, size_wh: tuple[int, int], annotations: list[dict[str, Any]], **image: Any) -> Result:
    (tmp_path / "images").mkdir()
    gradient(size_wh).save(tmp_path / "images" / "x.png")
    entry = {"file_name": "x.png", "height": size_wh[1], "width": size_wh[0], **image}
    path = coco(tmp_path / "coarse.json", [entry], [{"image_id": 0, **annotation} for annotation in annotations])
    return run_here(tmp_path / "images", path, tmp_path / "out", FakeModel(), Method(iterations=1))


@pytest.mark.parametrize("size_wh", [(50_000, 1), (1, 50_000), (1, 1), (2, 1)])
def test_extreme_shapes(size_wh: tuple[int, int], tmp_path: Path) -> None:
    full = binary.encode(np.ones((size_wh[1], size_wh[0]), np.uint8))
    [row] = one_image(tmp_path, size_wh, [{"segmentation": dict(full)}]).masks().to_pylist()
    assert row["decision"] in ("refined", "kept_coarse")
    assert row["mask_rle"]["size"] == [size_wh[1], size_wh[0]]


def test_five_thousand_masks_on_one_image(tmp_path: Path) -> None:
    boxes = np.random.default_rng(0).integers(0, 40, (5000, 2))
    squares = [{"segmentation": [[int(x), int(y), int(x) + 6, int(y), int(x) + 6, int(y) + 6]]} for x, y in boxes]
    (tmp_path / "images").mkdir()
    gradient().save(tmp_path / "images" / "x.png")
    entry = {"file_name": "x.png", "height": SIDE, "width": SIDE}
    path = coco(tmp_path / "coarse.json", [entry], [{"image_id": 0, **square} for square in squares])
    rows = run_here(tmp_path / "images", path, tmp_path / "out", NoModel(), NONE).masks().to_pylist()
    assert len({row["mask_id"] for row in rows}) == 5000
    assert {row["decision"] for row in rows} == {"refined"}


RLE = {"size": [SIDE, SIDE], "counts": binary.encode(np.ones((SIDE, SIDE), np.uint8))["counts"]}
BAD_MASKS: dict[str, tuple[Any, str]] = {
    "nan polygon": ([[float("nan"), 1, 2, 3, 4, 5]], "mask_unreadable"),
    "infinite polygon": ([[1e400, 1, 2, 3, 4, 5]], "mask_unreadable"),
    "odd polygon": ([[1, 2, 3, 4, 5, 6, 7]], "*"),
    "two points": ([[1, 2, 3, 4]], "mask_unreadable"),
    "text in polygon": ([["a", "b", "c", "d", "e", "f"]], "mask_unreadable"),
    "nested too deep": ([[[[[[[[1, 2, 3, 4, 5, 6]]]]]]]], "mask_unreadable"),
    "huge polygon": ([[-1e9, -1e9, 1e9, -1e9, 1e9, 1e9]], "mask_unreadable"),
    "beyond floats": ([[-1e300, -1e300, 1e300, -1e300, 1e300, 1e300]], "mask_unreadable"),
    "long way round": ([[0, 0, 1e7, 1e7] * 50], "mask_unreadable"),
    "empty list": ([], "mask_unreadable"),
    "null": (None, "mask_unreadable"),
    "number": (3.5, "mask_unreadable"),
    "text": ("polygons", "mask_unreadable"),
    "runs too short": ({"size": [SIDE, SIDE], "counts": [5, 5]}, "mask_unreadable"),
    "runs too long": ({"size": [SIDE, SIDE], "counts": [SIDE * SIDE, 10]}, "mask_unreadable"),
    "negative run": ({"size": [SIDE, SIDE], "counts": [-5, SIDE * SIDE + 5]}, "mask_unreadable"),
    "run not whole": ({"size": [SIDE, SIDE], "counts": [0.5, SIDE * SIDE - 0.5]}, "mask_unreadable"),
    "run beyond 64 bits": ({"size": [SIDE, SIDE], "counts": [2**70]}, "mask_unreadable"),
    "nan run": ({"size": [SIDE, SIDE], "counts": [float("nan")]}, "mask_unreadable"),
    "compressed, cut": ({"size": [SIDE, SIDE], "counts": RLE["counts"][:-1]}, "mask_unreadable"),
    "compressed, of another size": ({"size": [SIDE, SIDE + 1], "counts": RLE["counts"]}, "mask_unreadable"),
    "compressed, not ascii": ({"size": [SIDE, SIDE], "counts": "猫"}, "mask_unreadable"),
    "no counts": ({"size": [SIDE, SIDE]}, "mask_unreadable"),
    "no size": ({"counts": RLE["counts"]}, "mask_unreadable"),
    "negative size": ({"size": [-SIDE, -SIDE], "counts": RLE["counts"]}, "mask_unreadable"),
    "zero size": ({"size": [0, 0], "counts": ""}, "mask_unreadable"),
    "size beyond memory": ({"size": [2**40, 2**40], "counts": [2**80]}, "mask_unreadable"),
    "nan size": ({"size": [float("nan"), 3], "counts": RLE["counts"]}, "mask_unreadable"),
    "other image's size": (dict(binary.encode(np.ones((9, 9), np.uint8))), "mask_size_mismatch"),
    "no pixel": ({"size": [SIDE, SIDE], "counts": [SIDE * SIDE]}, "mask_empty"),
    "polygon outside": ([[100, 100, 110, 100, 110, 110]], "mask_empty"),
    "a file of ours": ({"file": "/etc/passwd", "value": None}, "mask_missing"),
    "a file above": ({"file": "../x.png", "value": 1}, "mask_missing"),
}


def test_every_kind_of_bad_mask_fails_alone(tmp_path: Path) -> None:
    bad = [{"id": name, "segmentation": geometry} for name, (geometry, _) in BAD_MASKS.items()]
    good = [{"id": "polygon", "segmentation": SQUARE}, {"id": "runs", "segmentation": RLE}]
    rows = one_image(tmp_path, (SIDE, SIDE), [*bad, *good]).masks().to_pylist()
    found = {row["source_mask_id"]: row for row in rows}
    assert len(rows) == len(found) == len(bad) + 2
    for name, (_, reason) in BAD_MASKS.items():
        assert reason == "*" or (found[name]["decision"], found[name]["reason"]) == ("failed", reason), name
    assert {found[name]["decision"] for name in ("polygon", "runs")} <= {"refined", "kept_coarse"}
    assert all(row["reason"] in REASONS for row in rows)


def test_odd_annotations_are_all_accounted_for(tmp_path: Path) -> None:
    """Duplicate ids, unknown images, images without masks, NaN boxes, negative sizes, entries that are no objects."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        gradient().save(tmp_path / "images" / name)
    images = [
        {"id": 1, "file_name": "a.png", "height": -5, "width": float("nan")},
        {"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE},  # the same again
        {"id": 1, "file_name": "b.png", "height": SIDE, "width": SIDE},  # another image with a used id
        {"id": 3, "file_name": "c.png", "height": 2**40, "width": "wide"},  # no annotation
        {"id": 4, "height": SIDE, "width": SIDE},  # no name
    ]
    annotations = [
        {"id": 7, "image_id": 1, "segmentation": SQUARE, "bbox": [float("nan"), -1, 1e999, 0], "area": float("inf")},
        {"id": 7, "image_id": 1, "segmentation": SQUARE, "bbox": None},  # the same id
        {"image_id": 1, "segmentation": SQUARE, "category_id": "cat"},
        {"id": None, "image_id": 1, "segmentation": SQUARE, "category_id": 2**70},
        {"id": 8, "image_id": 99, "segmentation": SQUARE},  # an image that is not there
        {"id": 9, "segmentation": SQUARE},  # no image
        {"id": 10, "image_id": [1], "segmentation": SQUARE},
    ]
    path = coco(tmp_path / "coarse.json", images, annotations)
    content = json.loads(path.read_text())
    content["annotations"] += [None, 3, "text", []]
    content["images"] += [None, 3, "text"]
    path.write_text(json.dumps(content))
    result = run_here(tmp_path / "images", path, tmp_path / "out", NoModel(), NONE)
    found = {row["image_id"]: row for row in result.images().to_pylist()}
    assert len(found) == result.images().num_rows
    assert found["c.png"]["masks"] == 0
    assert found["c.png"]["status"] == "ok"
    assert found["b.png"]["status"] == "ok"
    assert Counter(row["image_id"] for row in result.masks().to_pylist())["a.png"] == 4
    failed = {name: row["reason"] for name, row in found.items() if row["status"] == "failed"}
    assert failed.pop("unnamed-image-4") == "image_outside_root"
    assert set(failed.values()) == {"image_missing"}
    rows = result.masks().to_pylist()
    assert len(rows) == len({row["mask_id"] for row in rows}) == 7
