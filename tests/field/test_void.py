"""Grey values of mask images: 255 beside others, more than 8 bits, and greys that a lossy format has."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.decoding.void import TAKEN_AS_VOID
from pipeline.sources.instances import TAKEN_AS_IGNORED
from tests.field.world import SIZE_HW, Outcome, Pixels, encoded, photograph, put, put_images, run, square

LEFT, MIDDLE, RIGHT = (square(box=box) for box in ((16, 48, 8, 30), (10, 50, 36, 60), (20, 60, 66, 92)))
VOID = {TAKEN_AS_VOID: ["a.png"]}


def read(folder: Path, data: bytes, source: str | None = None, suffix: str = ".png") -> Outcome:
    put_images(folder / "images", "a.jpg")
    put(folder / "masks" / f"a{suffix}", data)
    return run(folder / "images", folder / "masks", folder / "out", source)


def drawn(*values: int) -> Pixels:
    """(H, W) uint8: up to three boxes of these values."""
    return np.asarray(sum(box * value for box, value in zip((LEFT, MIDDLE, RIGHT), values, strict=False)), np.uint8)


@pytest.mark.parametrize("values", [(85, 170, 255), (64, 128, 255), (64, 191, 255)])
def test_objects_spread_over_the_greys_are_all_read(tmp_path: Path, values: tuple[int, ...]) -> None:
    outcome = read(tmp_path, encoded(drawn(*values)))
    assert set(outcome.pixels()) == {f"a#{value}" for value in values}
    assert all((outcome.pixels()[f"a#{value}"] == (drawn(*values) == value)).all() for value in values)
    assert outcome.said("odd") == {}


@pytest.mark.parametrize("values", [(1, 255), (3, 7, 255), (100, 255), (124, 158, 255)])
def test_void_beside_other_values_is_told(tmp_path: Path, values: tuple[int, ...]) -> None:
    outcome = read(tmp_path, encoded(drawn(*values)))
    assert set(outcome.pixels()) == {f"a#{value}" for value in values[:-1]}
    assert outcome.said("odd") == VOID
    assert (outcome.scan["unread"], {row["detail"] for row in outcome.masks}) == (0, {None})


@pytest.mark.parametrize("value", [1, 15, 17, 64, 85, 127, 128, 170])
def test_void_beside_one_other_value_is_void_whatever_that_is(tmp_path: Path, value: int) -> None:
    """As COCO-stuff has it: a class, and a region without a label."""
    outcome = read(tmp_path, encoded(drawn(value, 255)))
    assert set(outcome.pixels()) == {f"a#{value}"}
    assert outcome.said("odd") == VOID


def test_four_objects_spread_over_the_greys_are_all_read(tmp_path: Path) -> None:
    outcome = read(tmp_path, encoded(drawn(64, 128, 191) + square(box=(52, 62, 40, 56)) * np.uint8(255)))
    assert set(outcome.pixels()) == {"a#64", "a#128", "a#191", "a#255"}
    assert outcome.said("odd") == {}


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_line_around_objects_is_void(tmp_path: Path, width: int) -> None:
    """As VOC has it, for objects of any value."""
    labels, side = drawn(85, 0, 170), 2 * width + 1
    labels[(cv2.dilate(labels, np.ones((side, side), np.uint8)) > 0) & (labels == 0)] = 255
    outcome = read(tmp_path, encoded(labels))
    assert set(outcome.pixels()) == {"a#85", "a#170"}
    assert outcome.said("odd") == VOID


@pytest.mark.parametrize("highest", [255, 300])
def test_ids_that_are_counted_up_to_255_and_on(tmp_path: Path, highest: int) -> None:
    ids = np.zeros(SIZE_HW, np.uint16)
    ids.ravel()[: highest * 4] = np.repeat(np.arange(1, highest + 1), 4)
    outcome = read(tmp_path, encoded(ids))
    assert {row["category_id"] for row in outcome.masks} == set(range(1, highest + 1))
    assert (outcome.pixels()["a#255"] == (ids == 255)).all()


def test_class_maps_tell_their_void(tmp_path: Path) -> None:
    data = encoded(drawn(3, 7, 255))
    assert read(tmp_path / "1", data, "class-maps").said("odd") == VOID
    for number, source in enumerate(["class-maps:void=255", "class-maps:void=none", "instances"], 2):
        outcome = read(tmp_path / str(number), data, source)
        assert outcome.said("odd") == {}
        assert len(outcome.masks) == (2 if source.endswith("255") else 3)


def test_a_class_map_of_void_alone_is_told(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "b.jpg")
    put(tmp_path / "masks" / "b.png", drawn(1))
    outcome = read(tmp_path, encoded(drawn(255)), "class-maps")
    assert [row["image_id"] for row in outcome.masks] == ["b.jpg"]
    assert outcome.said("odd") == VOID


def test_voc_tells_its_void(tmp_path: Path) -> None:
    put_images(tmp_path / "JPEGImages", "a.jpg")
    put(tmp_path / "SegmentationObject" / "a.png", drawn(1, 2, 255))
    put(tmp_path / "SegmentationClass" / "a.png", drawn(5, 9, 255))
    outcome = run(tmp_path / "JPEGImages", tmp_path, tmp_path / "out", "voc")
    assert {row["source_mask_id"]: row["category_id"] for row in outcome.masks} == {"a#1": 5, "a#2": 9}
    assert outcome.said("odd") == VOID


def test_kitti_tells_what_it_ignores(tmp_path: Path) -> None:
    ids = LEFT.astype(np.uint16) * 1001 + RIGHT.astype(np.uint16) * 10_000
    outcome = read(tmp_path, encoded(ids), "instances")
    assert set(outcome.pixels()) == {"a#1001"}
    assert outcome.said("odd") == {TAKEN_AS_IGNORED: ["a.png"]}


def test_void_in_tables_and_tars(tmp_path: Path) -> None:
    for folder in ("table", "lines", "tar"):
        (tmp_path / folder).mkdir()
    data, image = encoded(drawn(3, 7, 255)), encoded(photograph(), "JPEG")
    table = {"image": [{"bytes": image, "path": None}] * 2, "mask": [data, encoded(drawn(85, 170, 255))]}
    pq.write_table(pa.table(table), tmp_path / "table" / "t.parquet")
    with tarfile.open(tmp_path / "tar" / "s.tar", "w") as tar:
        for name, content in (("0.jpg", image), ("0.seg.png", data)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    put(tmp_path / "lines" / "a.jpg", image)
    put(tmp_path / "lines" / "m" / "a.png", data)
    put(tmp_path / "lines" / "metadata.jsonl", '{"file_name": "a.jpg", "mask_path": "m/a.png"}\n')
    where = {"table": "t.parquet, row 0", "tar": "s.tar#0.seg.png", "lines": "metadata.jsonl, line 1"}
    for folder, name in where.items():
        outcome = run(tmp_path / folder, tmp_path / folder, tmp_path / "out" / folder)
        assert outcome.said("odd")[TAKEN_AS_VOID] == [name]
        assert len(outcome.masks) == (5 if folder == "table" else 2)


@pytest.mark.parametrize(("white", "bits"), [(257, 16), (256, 16), (4095 / 255, 12)])
def test_soft_edges_of_deep_greys_are_one_mask(tmp_path: Path, white: float, bits: int) -> None:
    large = np.zeros((SIZE_HW[0] * 4, SIZE_HW[1] * 4), np.uint8)
    cv2.circle(large, (192, 128), 80, 255, -1)
    grey = cv2.resize(large, SIZE_HW[::-1], interpolation=cv2.INTER_AREA)
    deep = np.rint(grey.astype(np.float64) * white).astype(np.uint16)
    assert int(deep.max()) < 2**bits
    for number, data in enumerate([encoded(deep), encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")]):
        outcome = read(tmp_path / str(number), data, suffix=(".png", ".tif")[number])
        assert (outcome.pixels()["a"] == (grey >= 128)).all()
        assert outcome.only()["detail"].startswith("soft edges")


def test_ids_of_16_bits_are_no_soft_edges(tmp_path: Path) -> None:
    ids = LEFT.astype(np.uint16) * 300 + MIDDLE.astype(np.uint16) * 40_000 + RIGHT.astype(np.uint16) * 65_535
    assert set(read(tmp_path, encoded(ids)).pixels()) == {"a#300", "a#40000", "a#65535"}


@pytest.mark.parametrize("values", [(100, 0, 255), (50, 170, 255), (220, 0, 255)])
@pytest.mark.parametrize("quality", [10, 50, 95])
def test_greys_beside_white_in_a_lossy_format_are_refused(
    tmp_path: Path, values: tuple[int, ...], quality: int
) -> None:
    for kind, suffix in (("JPEG", ".jpg"), ("WEBP", ".webp")):
        row = read(tmp_path / kind, encoded(drawn(*values), kind, quality=quality), suffix=suffix).only()
        assert row["reason"] == "mask_unreadable"
        assert "lossy" in row["detail"] or (kind == "WEBP" and "does not keep them" in row["detail"])


@pytest.mark.parametrize("quality", [10, 50, 95])
@pytest.mark.parametrize("kind", ["lines", "dots", "noise", "soft", "blurred", "wide"])
def test_artefacts_are_no_areas(tmp_path: Path, kind: str, quality: int) -> None:
    drawing, chance = np.zeros(SIZE_HW, np.uint8), np.random.default_rng(0)
    if kind == "lines":
        for x in range(0, SIZE_HW[1], 8):
            cv2.line(drawing, (x, 0), (SIZE_HW[1] - x, SIZE_HW[0]), 255, 1)
    elif kind == "noise":
        drawing = chance.integers(0, 2, SIZE_HW, np.uint8) * 255
    else:
        for x, y in chance.integers(0, SIZE_HW[0], (12 if kind == "dots" else 1, 2)).tolist():
            cv2.circle(drawing, (x, y), 2 if kind == "dots" else 24, 255, -1)
    side = {"soft": 3, "blurred": 11, "wide": 31}.get(kind)
    drawing = drawing if side is None else cv2.GaussianBlur(drawing, (side, side), 0)
    outcome = read(tmp_path, encoded(drawing, "JPEG", quality=quality), suffix=".jpg")
    found, wanted = outcome.pixels()["a"] > 0, drawing >= 128
    assert (found & wanted).sum() / (found | wanted).sum() > 0.85
    assert list(outcome.said("odd")) == ["artefacts of a lossy format"]
