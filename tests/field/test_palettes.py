"""Mask images that an encoder indexed, or that have transparency: what was drawn is read, or it is told."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.decoding.palettes import BLACK_ELSEWHERE, BLACK_SHOWN, SEVERAL_HIDDEN
from pipeline.decoding.void import TAKEN_AS_VOID
from pipeline.single import read_mask
from tests.field.world import SIZE_HW, Outcome, Pixels, encoded, photograph, put, put_images, run, square

LEFT, MIDDLE, RIGHT = (square(box=box) for box in ((16, 48, 8, 30), (10, 50, 36, 60), (20, 60, 66, 92)))
LARGE = square(box=(4, 60, 6, 90))  # larger than its background: a quantizer puts its colour first


def read(folder: Path, image: Image.Image | Pixels, source: str | None = None) -> Outcome:
    put_images(folder / "images", "a.jpg")
    put(folder / "masks" / "a.png", encoded(image))
    return run(folder / "images", folder / "masks", folder / "out", source)


def soft() -> Pixels:
    """(H, W) uint8: a disc with anti-aliased edges."""
    large = np.zeros((SIZE_HW[0] * 4, SIZE_HW[1] * 4), np.uint8)
    cv2.circle(large, (192, 128), 100, 255, -1)
    return cv2.resize(large, SIZE_HW[::-1], interpolation=cv2.INTER_AREA)


def indexed(places: Pixels, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(places.astype(np.uint8)).convert("P")
    image.putpalette([channel for colour in colours for channel in colour])
    return image


BLACK, GREY, WHITE, RED, GREEN = (0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 0, 0), (0, 200, 0)


@pytest.mark.parametrize("mask", [LEFT, LARGE, np.ones(SIZE_HW, np.uint8)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("method", [Image.Quantize.MEDIANCUT, Image.Quantize.FASTOCTREE])
def test_black_and_white_is_that_in_any_order(tmp_path: Path, mask: Pixels, mode: str, method: int) -> None:
    image = Image.fromarray(mask * 255).convert(mode).quantize(2, method)
    outcome = read(tmp_path, image)
    assert (outcome.pixels()["a"] == mask).all()
    assert (outcome.only()["category_id"], outcome.said("odd")) == (1, {})
    path = put(tmp_path / "b.png", encoded(image))
    assert (read_mask(path, SIZE_HW) == mask).all()


@pytest.mark.parametrize("levels", [8, 16, 256])
def test_soft_edges_are_one_mask_in_a_palette_too(tmp_path: Path, levels: int) -> None:
    outcome = read(tmp_path, Image.fromarray(soft()).quantize(levels))
    assert np.count_nonzero(outcome.pixels()["a"] != (soft() >= 128)) < 40  # levels were merged
    assert list(outcome.said("odd")) == ["soft edges"]


def test_greys_of_a_palette_are_the_greys_that_were_drawn(tmp_path: Path) -> None:
    drawn = (LEFT * 85 + MIDDLE * 170 + RIGHT * 255).astype(np.uint8)
    image = Image.fromarray(drawn).quantize(4)
    assert np.asarray(image)[0, 0] != 0  # the encoder's order
    outcome = read(tmp_path, image)
    assert set(outcome.pixels()) == {"a#85", "a#170", "a#255"}
    for value, pixels in outcome.pixels().items():
        assert (pixels == (drawn == int(value[2:]))).all()


def test_indices_stay_labels(tmp_path: Path) -> None:
    """Whatever the palette, as long as its index 0 is as dark as any."""
    labels = LEFT + 2 * MIDDLE + 3 * RIGHT
    for number, palette in enumerate([(BLACK, RED, GREEN, WHITE), (BLACK, WHITE, GREY, (9, 9, 9)), (BLACK,) * 4]):
        outcome = read(tmp_path / str(number), indexed(labels, *palette))
        assert {row["source_mask_id"]: row["category_id"] for row in outcome.masks} == {"a#1": 1, "a#2": 2, "a#3": 3}
        assert (outcome.pixels()["a#2"] == MIDDLE).all()
        assert outcome.said("odd") == {}


@pytest.mark.parametrize("source", ["png", "class-maps", "instances"])
def test_a_palette_of_colours_keeps_its_indices_and_black_elsewhere_is_told(tmp_path: Path, source: str) -> None:
    outcome = read(tmp_path, indexed(LEFT + 2 * RIGHT, RED, BLACK, GREEN), source)
    assert (outcome.pixels()["a#1"] == LEFT).all()
    assert outcome.said("odd") == {BLACK_ELSEWHERE: ["a.png"]}


CITYSCAPES = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153))
ADE = ((120,) * 3, (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80), (140,) * 3)


@pytest.mark.parametrize(
    ("palette", "places"),
    [(CITYSCAPES, (2, 5, 255)), (CITYSCAPES, (2, 255)), (ADE, (6, 255)), (ADE, (0, 6, 255)), (ADE, (6, 0, 255))],
)
def test_greys_among_the_colours_of_classes_keep_their_indices(
    tmp_path: Path, palette: tuple[tuple[int, int, int], ...], places: tuple[int, ...]
) -> None:
    """Of images that use no other: their ids are those that the rest of the data set has."""
    drawn = np.full(SIZE_HW, places[0])
    for mask, place in zip((LEFT, RIGHT), places[1:], strict=False):
        drawn[mask > 0] = place
    outcome = read(tmp_path, indexed(drawn, *palette, *[BLACK] * (256 - len(palette))))
    classes = sorted(set(places) - {0, 255})
    assert sorted((row["source_mask_id"], row["category_id"]) for row in outcome.masks) == [
        (f"a#{place}", place) for place in classes
    ]
    assert all((outcome.pixels()[f"a#{place}"] == (drawn == place)).all() for place in classes)
    assert outcome.said("odd") == {TAKEN_AS_VOID: ["a.png"]}


def test_black_beside_white_in_a_palette_of_classes_is_a_class(tmp_path: Path) -> None:
    outcome = read(tmp_path, indexed(LARGE * 2, WHITE, RED, BLACK))
    assert (outcome.only()["source_mask_id"], outcome.said("odd")) == ("a", {BLACK_ELSEWHERE: ["a.png"]})
    assert (outcome.pixels()["a"] == LARGE).all()


def test_classes_are_indices_in_a_palette_of_greys_as_well(tmp_path: Path) -> None:
    outcome = read(tmp_path, indexed(LEFT, WHITE, BLACK), "class-maps")
    assert (outcome.only()["source_mask_id"], outcome.only()["category_id"]) == ("a#1", 1)
    assert (outcome.pixels()["a#1"] == LEFT).all()
    assert outcome.said("odd") == {BLACK_ELSEWHERE: ["a.png"]}


def test_palettes_in_tables_and_documents(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(LARGE * 255).quantize(2))
    put_images(tmp_path / "images", "a.jpg")
    table = {"image": [{"bytes": encoded(photograph()), "path": None}], "mask": [data]}
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table(table), tmp_path / "t" / "t.parquet")
    [found] = run(tmp_path / "t", tmp_path / "t", tmp_path / "out").pixels().values()
    assert (found == LARGE).all()
    shape = {"shape_type": "mask", "label": "x", "points": [[0, 0], [96, 64]], "mask": b64encode(data).decode()}
    document = {"imagePath": "a.jpg", "imageHeight": 64, "imageWidth": 96, "shapes": [shape]}
    put(tmp_path / "labelme" / "a.json", {"version": "5", "flags": {}, "imageData": None, **document})
    [found] = run(tmp_path / "images", tmp_path / "labelme", tmp_path / "out2").pixels().values()
    assert (found == LARGE).all()
    bitmap = {"data": b64encode(zlib.compress(data)).decode(), "origin": [0, 0]}
    figure = {"geometryType": "bitmap", "classTitle": "x", "id": 1, "bitmap": bitmap}
    content = {"size": {"height": 64, "width": 96}, "tags": [], "description": "", "objects": [figure]}
    put(tmp_path / "sly" / "ds" / "ann" / "a.jpg.json", json.dumps(content))
    put(tmp_path / "sly" / "ds" / "img" / "a.jpg", encoded(photograph(), "JPEG"))
    put(tmp_path / "sly" / "meta.json", {"classes": [{"title": "x", "shape": "bitmap", "color": "#ff0000"}]})
    [found] = run(tmp_path / "sly", tmp_path / "sly", tmp_path / "out3", "supervisely").pixels().values()
    assert (found == LARGE).all()


def rgba(ground: tuple[int, ...], *objects: tuple[Pixels, tuple[int, ...]]) -> Pixels:
    """(H, W, 4): colours with alpha on a ground."""
    pixels = np.zeros((*SIZE_HW, 4), np.uint8)
    pixels[:] = ground
    for mask, colour in objects:
        pixels[mask > 0] = colour
    return pixels


SEEN, UNSEEN = (255,), (0,)


@pytest.mark.parametrize("ground", [BLACK, WHITE, GREY])
@pytest.mark.parametrize("colour", [BLACK, WHITE, RED])
def test_what_is_transparent_is_no_object(tmp_path: Path, ground: Any, colour: Any) -> None:
    outcome = read(tmp_path, rgba(ground + UNSEEN, (LARGE, colour + SEEN)))
    assert (outcome.pixels()["a"] == LARGE).all()
    assert len(outcome.masks) == 1


def test_two_colours_on_a_transparent_ground(tmp_path: Path) -> None:
    outcome = read(tmp_path, rgba(WHITE + UNSEEN, (LEFT, RED + SEEN), (RIGHT, GREEN + SEEN)))
    assert (outcome.pixels()[f"a#{RED[0]}"] == LEFT).all()
    assert (outcome.pixels()[f"a#{GREEN[1] << 8}"] == RIGHT).all()
    assert outcome.said("odd") == {"alpha": ["a.png"]}


def test_a_transparent_index_is_no_object(tmp_path: Path) -> None:
    image = indexed(LARGE, WHITE, BLACK)
    image.info["transparency"] = 0
    for suffix, kind in ((".png", "PNG"), (".gif", "GIF")):
        put_images(tmp_path / kind / "images", "a.jpg")
        put(tmp_path / kind / "masks" / f"a{suffix}", encoded(image, kind, transparency=0))
        outcome = run(tmp_path / kind / "images", tmp_path / kind / "masks", tmp_path / kind / "out")
        assert (outcome.pixels()["a"] == LARGE).all()


def test_transparency_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    black_too = read(tmp_path / "1", rgba(BLACK + UNSEEN, (LEFT, BLACK + SEEN), (RIGHT, RED + SEEN)))
    assert (black_too.pixels()["a"] == RIGHT).all()
    assert black_too.said("odd") == {BLACK_SHOWN: ["a.png"]}
    several = read(tmp_path / "2", rgba(BLACK + UNSEEN, (LEFT, WHITE + UNSEEN), (RIGHT, WHITE + SEEN)))
    assert (several.pixels()["a"] == LEFT + RIGHT).all()
    assert several.said("odd") == {SEVERAL_HIDDEN: ["a.png"]}
    opaque = read(tmp_path / "3", rgba(BLACK + SEEN, (LEFT, WHITE + SEEN)))
    assert opaque.said("odd") == {}
