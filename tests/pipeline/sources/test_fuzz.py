"""Mutated images and mutated annotation files, from real ones: no crash, no hang, every row accounted for.

A quick share in the gate; a thousand of each with `make test-slow`.
"""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import REASONS, RefusedError
from pipeline.models import NoModel
from schemas.config import Method
from tests.conftest import DEMO
from tests.pipeline.whole import coco, run_here

NONE = Method(refiner="none")
SIDE = 64
FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("BMP", {}),
]


def small_photo(path: Path) -> Image.Image:
    with Image.open(path) as photo:
        return photo.convert("RGB").resize((SIDE, SIDE))


def files() -> list[bytes]:
    """The demo's photographs, small, in every format."""
    made = []
    for path in sorted((DEMO / "images").iterdir()):
        for name, options in FORMATS:
            sink = io.BytesIO()
            small_photo(path).save(sink, name, **options)
            made.append(sink.getvalue())
    return made


def flip_bits(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice([1, 1, 2, 8])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def cut(data: bytearray, chance: random.Random) -> bytearray:
    return data[: chance.randrange(len(data))]


def drop(data: bytearray, chance: random.Random) -> bytearray:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randint(1, 40) :]


def repeat(data: bytearray, chance: random.Random) -> bytearray:
    start = chance.randrange(len(data))
    return data[: start + chance.randint(1, 200)] + data[start:]


def scribble(data: bytearray, chance: random.Random) -> bytearray:
    start = chance.randrange(len(data))
    noise = chance.choice([b"\xff", b"\0", b"\x7f", chance.randbytes(1)]) * chance.randint(1, 16)
    return data[:start] + noise + data[start + len(noise) :]


BYTES: list[Callable[[bytearray, random.Random], bytearray]] = [
    flip_bits,
    flip_bits,
    flip_bits,
    cut,
    drop,
    repeat,
    scribble,
]
SHARES = [60, pytest.param(1200, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", SHARES)
def test_mutated_images(count: int, tmp_path: Path) -> None:
    chance = random.Random(5)
    originals = files()
    (tmp_path / "images").mkdir()
    for number in range(count):
        mutated = chance.choice(BYTES)(bytearray(chance.choice(originals)), chance)
        (tmp_path / "images" / f"{number}.bin").write_bytes(mutated)
    square = {"segmentation": [[5, 5, 50, 5, 50, 50, 5, 50]]}
    images = [{"file_name": f"{number}.bin", "height": SIDE, "width": SIDE} for number in range(count)]
    path = coco(tmp_path / "coarse.json", images, [{"image_id": number, **square} for number in range(count)])
    result = run_here(tmp_path / "images", path, tmp_path / "out", NoModel(), NONE, chunk_images=64)
    rows = result.images().to_pylist()
    assert sorted(row["image_id"] for row in rows) == sorted(image["file_name"] for image in images)
    assert len({row["mask_id"] for row in result.masks().to_pylist()}) == count
    failed = [row["reason"] for row in rows if row["status"] == "failed"]
    assert set(failed) <= {"image_unreadable", "image_truncated", "image_too_large"}
    assert 0.3 * count <= count - len(failed) < count  # neither all broken nor none
    for mask in result.masks().to_pylist():
        assert (mask["mask_rle"] is None) == (mask["decision"] == "failed")


HOSTILE: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**70, -0.5, 1e308, float("nan"), float("inf"), "", "x", "../x", "/etc/passwd",
    "\0", "ü" * 300, "\ud800", [], [[]], [None], {}, {"size": [1, 1], "counts": "1"}, {"file": "a.png"}, [[0] * 5],
    [["1"] * 6], {"size": "ab", "counts": 3}, "[" * 50,
]  # fmt: skip


def small_coco() -> dict[str, Any]:
    """The demo's annotations, scaled to the small photographs."""
    content: dict[str, Any] = json.loads((DEMO / "coarse.json").read_text())
    sizes = {image["id"]: (SIDE / image["width"], SIDE / image["height"]) for image in content["images"]}
    for annotation in content["annotations"]:
        x, y = sizes[annotation["image_id"]]
        polygons = annotation["segmentation"]
        annotation["segmentation"] = [[v * (y if i % 2 else x) for i, v in enumerate(p)] for p in polygons]
    for image in content["images"]:
        image["height"] = image["width"] = SIDE
    return content


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON document."""
    found: list[tuple[Any, Any]] = []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        found += [(content, key), *places(value)]
    return found


def mutated_text(chance: random.Random) -> bytes:
    content = small_coco()
    if chance.random() < 0.25:
        return bytes(chance.choice(BYTES)(bytearray(json.dumps(content).encode()), chance))
    for _ in range(chance.choice([1, 1, 2, 5])):
        container, key = chance.choice(places(content))
        if isinstance(container, dict) and chance.random() < 0.2:
            del container[key]
        elif isinstance(container, list) and chance.random() < 0.2:
            container.append(container[key])
        else:
            container[key] = chance.choice(HOSTILE)
    return json.dumps(content).encode()


def planned_masks(text: bytes) -> int:
    """How many annotations a mutated file has that are objects."""
    annotations = json.loads(text).get("annotations")
    return sum(isinstance(entry, dict) for entry in annotations) if isinstance(annotations, list) else 0


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_annotation_files(count: int, tmp_path: Path) -> None:
    chance = random.Random(6)
    (tmp_path / "images").mkdir()
    for path in (DEMO / "images").iterdir():
        small_photo(path).save(tmp_path / "images" / path.name)
    refused = 0
    for number in range(count):
        text = mutated_text(chance)
        masks = tmp_path / f"{number}.json"
        masks.write_bytes(text)
        try:
            result = run_here(tmp_path / "images", masks, tmp_path / f"out{number}", NoModel(), NONE)
        except RefusedError:
            refused += 1
            continue
        rows = result.masks().to_pylist()
        assert len({row["mask_id"] for row in rows}) == len(rows) == planned_masks(text), text
        assert all(row["reason"] in REASONS for row in rows)
        assert result.images().num_rows == len(set(result.images()["image_id"].to_pylist()))
    assert refused < 0.5 * count
