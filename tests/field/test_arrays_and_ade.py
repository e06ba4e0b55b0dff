"""ADE20K in full, and stacks of masks as NumPy writes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import REASONS, RefusedError
from pipeline.masks import binary
from pipeline.sources import detect, parse
from tests.field.world import SIZE_HW, Pixels, put, put_images, run, square

LEFT, RIGHT, SMALL = square(box=(8, 40, 8, 30)), square(box=(16, 56, 50, 80)), square(box=(20, 30, 55, 65))


def segments(*objects: tuple[Pixels, int, int]) -> Pixels:
    """Areas with their classes and objects' numbers, as ADE20K codes them."""
    pixels = np.zeros((*SIZE_HW, 3), np.uint8)
    for area, category, number in objects:
        pixels[area > 0] = (category // 256 * 10, category % 256, number)
    return pixels


OBJECTS = [
    {"id": 0, "name": "person", "name_ndx": 1831, "raw_name": "woman", "occluded": "yes", "attributes": "standing",
     "parts": {"part_level": 0}},
    {"id": 1, "name": "car", "name_ndx": 401, "raw_name": "car", "occluded": "no", "attributes": [],
     "parts": {"part_level": 0}},
    {"id": 2, "name": "wheel", "name_ndx": 2978, "raw_name": "wheel", "occluded": "no", "attributes": "",
     "parts": {"part_level": 1}},
]  # fmt: skip
TEXT = '1 # 0 # 1 # person # woman # "standing"\n2 # 0 # 0 # car # car # ""\n3 # 1 # 0 # wheel # wheel # ""\n'
BESIDE = {"2017": ("_atr.txt", TEXT), "2021": (".json", json.dumps({"annotation": {"object": OBJECTS}}))}


@pytest.mark.parametrize("year", BESIDE)
def test_ade20k(tmp_path: Path, year: str) -> None:
    folder = tmp_path / "training" / "street"
    put_images(folder, "ADE_1.jpg", "ADE_2.jpg")
    put(folder / "ADE_1_seg.png", segments((LEFT, 1831, 30), (RIGHT, 401, 255)))
    put(folder / "ADE_1_parts_1.png", segments((SMALL, 2978, 255)))
    put(folder / f"ADE_1{BESIDE[year][0]}", BESIDE[year][1])
    put(folder / "ADE_1" / "instance_000_ADE_1.png", LEFT * 255)
    root = tmp_path / "training"
    assert detect(str(root), images_uri=str(root)) == "ade20k"
    outcome = run(root, root, tmp_path / "out")
    assert outcome.scan["unread"] == 0
    found = {row["category_id"]: row for row in outcome.masks}
    assert {number: row["category"] for number, row in found.items()} == {1831: "person", 401: "car"}
    assert (binary.decode(found[1831]["coarse_rle"]) == LEFT).all()
    assert (binary.decode(found[401]["coarse_rle"]) == RIGHT).all()
    extra = json.loads(found[1831]["extra"])
    assert (extra["occluded"], extra["attributes"], extra["raw_name"]) == (True, "standing", "woman")
    assert outcome.said("ignored")["parts of objects: ade20k:parts=yes reads them"] == ["street/ADE_1_parts_1.png"]
    parts = run(root, root, tmp_path / "parts", "ade20k:parts=yes")
    rows = {row["category_id"]: row for row in parts.masks}
    assert (rows[2978]["category"], json.loads(rows[2978]["extra"])["part_level"]) == ("wheel", 1)
    assert (binary.decode(rows[2978]["coarse_rle"]) == SMALL).all()
    assert {row["image_id"] for row in parts.masks} == {"street/ADE_1.jpg"}


def test_ade20k_with_a_document_that_is_cut_says_what_is_lost(tmp_path: Path) -> None:
    put_images(tmp_path, "ADE_1.jpg")
    put(tmp_path / "ADE_1_seg.png", segments((LEFT, 1831, 30)))
    put(tmp_path / "ADE_1.json", BESIDE["2021"][1][:40])
    [mask] = run(tmp_path, tmp_path, tmp_path.with_name("out"), "ade20k").masks
    assert (mask["category_id"], mask["category"]) == (1831, "")
    assert mask["detail"] == "the .json beside its image is no JSON: names and attributes are not known"
    assert (binary.decode(mask["coarse_rle"]) == LEFT).all()


@pytest.mark.parametrize("text", ["", "#####", "\0", "[1", '{"annotation": {"object": [3, {"parts": 3, "name": []}]}}'])
@pytest.mark.parametrize("ending", ["_atr.txt", ".json"])
def test_no_text_beside_stops_a_plan(tmp_path: Path, text: str, ending: str) -> None:
    put_images(tmp_path, "a.jpg")
    put(tmp_path / "a_seg.png", segments((LEFT, 1831, 30)))
    put(tmp_path / f"a{ending}", text)
    outcome = run(tmp_path, tmp_path, tmp_path.parent / f"{tmp_path.name}-out", "ade20k")
    assert (outcome.only()["category_id"], outcome.only()["category"]) == (1831, "")
    with pytest.raises(RefusedError, match="parts="):
        parse("ade20k:parts=2")


def npz(**arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=True)
    return sink.getvalue()


STACK = np.stack([LEFT, RIGHT])
STACKS: dict[str, tuple[str, bytes, str]] = {
    "bool": ("a.npy", npy(STACK.astype(bool)), ""),
    "uint8": ("a.npy", npy(STACK * 255), ""),
    "one channel": ("a.npy", npy(STACK[:, None].astype(np.int64)), ""),
    "columns first": ("a.npy", npy(np.asfortranarray(STACK)), ""),
    "last axis": ("a.npy", npy(np.moveaxis(STACK, 0, -1)), ":layout=hwn"),
    "floats that are 0 or 1": ("a.npy", npy(STACK.astype(np.float32)), ""),
    "shares": ("a.npy", npy(STACK * np.float32(0.75)), ""),
    "npz": ("a.npz", npz(masks=STACK), ""),
    "npz, another name": ("a.npz", npz(objects=STACK.astype(bool)), ""),
    "labels": ("a.npy", npy(LEFT.astype(np.int32) * 3 + RIGHT * 7), ""),
}


@pytest.mark.parametrize("name", STACKS)
def test_stacks(tmp_path: Path, name: str) -> None:
    file, data, options = STACKS[name]
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "masks" / file, data)
    assert detect(str(tmp_path / "masks")) == ("cam" if name == "shares" else "stacks")
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out", f"stacks{options}")
    pixels = outcome.pixels()
    assert (pixels["a#0"] == LEFT).all()
    assert (pixels["a#1"] == RIGHT).all()
    assert len(outcome.masks) == 2
    assert outcome.scan["unread"] == 0


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"labels": np.array([5, 7])}, [(5, ""), (7, "")]),
        ({"class_ids": np.array([0, 3], np.uint8), "scores": np.array([0.5, 0.25])}, [(0, ""), (3, "")]),
        ({"classes": np.array(["cat", "dog"])}, [(-1, "cat"), (-1, "dog")]),
        ({"labels": np.array([5, 7, 9])}, [(1, ""), (1, "")]),
    ],
)
def test_labels_beside_a_stack(tmp_path: Path, labels: dict[str, Any], expected: list[tuple[int, str]]) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "masks" / "a.npz", npz(masks=STACK, boxes=np.zeros((2, 4)), **labels))
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert [(row["category_id"], row["category"]) for row in outcome.masks] == expected
    if "scores" in labels:
        assert json.loads(outcome.masks[0]["extra"]) == {"score": 0.5}


BROKEN = {
    "pickle": npy(np.array([{"a": 1}], object)),
    "shape": npy(np.zeros((2, 3, 4, 5), bool)),
    "another size": npy(np.ones((1, 5, 5), bool)),
    "flat": npy(np.ones(5, bool)),
    "empty": b"",
    "text": b"x",
    "header": b"\x93NUMPY\x01\x00v\x00{'descr': '|b1', 'fortran_order': False, 'shape': (999999, 999999, 9), }"
    + b" " * 41,
    "zip": b"PK\x03\x04x",
    "no masks": npz(a=np.zeros(3)),
    "many": npz(**{f"a{n}": np.zeros(3) for n in range(20)}),
    "empty slice": npy(np.zeros((1, *SIZE_HW), bool)),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_no_stack_fail_by_themselves(tmp_path: Path, name: str) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "masks" / "b.npy", STACKS["bool"][1])
    put(tmp_path / "masks" / "a.npy", BROKEN[name])
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out", "stacks")
    [row] = [row for row in outcome.masks if row["image_id"] == "a.jpg"]
    assert row["reason"] in REASONS
    assert row["decision"] == "failed"
    assert len([row for row in outcome.masks if row["mask_rle"]]) == 2


def test_an_image_without_an_object(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "masks" / "a.npy", npy(np.zeros((0, *SIZE_HW), bool)))
    put(tmp_path / "masks" / "b.npy", STACKS["bool"][1])
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert outcome.images["a.jpg"]["masks"] == 0
    with pytest.raises(RefusedError, match="layout"):
        parse("stacks:layout=x")


def npz(**arrays: Any) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def test_every_array_of_a_stack_is_read_or_named(tmp_path: Path) -> None:
    """Arrays without names, as `numpy.savez(file, *masks)` writes them; masks beside masks; labels for others."""
    several = {f"arr_{number}": one for number, one in enumerate((LEFT, RIGHT, SMALL))}
    masks = np.stack([LEFT, RIGHT])
    files = {
        "a": npz(**several),
        "b": npz(masks=masks, masks_b=SMALL[None], boxes=np.zeros((2, 4))),
        "c": npz(masks=masks, labels=np.array(["cat", "dog", "cow"])),
        "d": npz(arr_0=masks, arr_1=np.array([3, 4])),
        "e": npz(arr_0=LEFT, arr_1=RIGHT[:20]),
        "f": npz(arr_0=masks, arr_1=np.zeros((2, 4))),
        "g": npz(masks=masks, image=np.zeros((3, *SIZE_HW), np.uint8)),
        "h": npz(arr_0=masks, arr_1=masks[:, :20]),
    }
    put_images(tmp_path / "images", *(f"{name}.jpg" for name in files))
    for name, data in files.items():
        put(tmp_path / "masks" / f"{name}.npz", data)
    rows = {row["source_mask_id"]: row for row in run(tmp_path / "images", tmp_path / "masks", tmp_path / "out").masks}
    for number, one in enumerate((LEFT, RIGHT, SMALL)):
        assert (binary.decode(rows[f"a#{number}"]["coarse_rle"]) == one).all()
    assert rows["b#masks_b"]["detail"] == "unreadable: array masks_b, beside the masks that are read"
    assert rows["c#1"]["detail"] == "labels: (3,) for 2 masks, not used"
    assert rows["d#0"]["detail"] == "arr_1: (2,) for 2 masks, not used"
    assert rows["e#arr_1"]["detail"] == "unreadable: array arr_1, beside the masks that are read"
    assert rows["f#1"]["detail"] == "arr_1: (2, 4) for 2 masks, not used"
    assert "arrays of different sizes" in rows["h"]["detail"]
    failed = {name for name, row in rows.items() if row["reason"] == "mask_unreadable"}
    assert failed == {"b#masks_b", "e#arr_1", "h"}
    assert len(rows) == 3 + 3 + 2 + 2 + 2 + 2 + 2 + 1
