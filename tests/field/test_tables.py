"""Masks in CSV files: Kaggle's run lengths, and Open Images' PNGs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import REASONS, RefusedError
from pipeline.masks import binary
from pipeline.sources import detect, parse
from tests.field.world import SIZE_HW, Pixels, encoded, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
BLOB = np.random.default_rng(0).integers(0, 2, SIZE_HW, dtype=np.uint8)


def pairs(mask: Pixels, order: str = "F") -> str:
    """As the competitions' own example code writes them."""
    flat = np.concatenate([[0], mask.flatten(order=order), [0]])
    runs = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs[1::2] -= runs[::2]
    return " ".join(map(str, runs))


COLUMNS, ROWS = pairs(BLOB), pairs(BLOB, "C")
TABLES: dict[str, tuple[str, str, Any]] = {
    "airbus": (f"ImageId,EncodedPixels\na.jpg,{COLUMNS}\nb.jpg,\n", "a.jpg", (1, "")),
    "severstal": (f"ImageId,ClassId,EncodedPixels\na.jpg,3,{COLUMNS}\n", "a.jpg", (3, "")),
    "severstal, joined": (f"ImageId_ClassId,EncodedPixels\na.jpg_3,{COLUMNS}\na.jpg_4,\n", "a.jpg", (3, "")),
    "clouds": (f"Image_Label,EncodedPixels\na.jpg_Fish,{COLUMNS}\n", "a.jpg", (1, "Fish")),
    "salt": (f"id,rle_mask\na,{COLUMNS}\nb,\n", "a.png", (1, "")),
    "hubmap": (f"id,encoding\na,{COLUMNS}\n", "a.png", (1, "")),
    "bowl": (f"ImageId,EncodedPixels\na,{COLUMNS}\n", "a/images/a.png", (1, "")),
    "imaterialist": (f"ImageId,EncodedPixels,Height,Width,ClassId\na,{COLUMNS},64,96,6\n", "a.jpg", (6, "")),
    "imaterialist, attributes": (f"ImageId,EncodedPixels,ClassId\na,{COLUMNS},6_20\n", "a.jpg", (1, "6_20")),
    "sartorius": (f"id,annotation,width,height,cell_type\na,{ROWS},96,64,cort\n", "a.png", (1, "cort")),
    "stomach": (f"id,class,segmentation\na,bowel,{ROWS}\n", "a.png", (1, "bowel")),
    "carvana": (f"img,rle_mask\na.jpg,{ROWS}\n", "a.jpg", (1, "")),
}


@pytest.mark.parametrize("name", TABLES)
def test_run_lengths_of_competitions(tmp_path: Path, name: str) -> None:
    text, image, category = TABLES[name]
    put_images(tmp_path / "images", image, "other/b.jpg", "zzz.png")
    path = put(tmp_path / "train.csv", text)
    assert detect(str(path)) == "rle-csv"
    outcome = run(tmp_path / "images", path, tmp_path / "out")
    row = outcome.only()
    assert (row["image_id"], row["category_id"], row["category"], row["source_mask_id"]) == (image, *category, "line 2")
    assert (outcome.pixels()["line 2"] == BLOB).all()
    assert outcome.scan["unread"] == 0


def test_other_columns_and_orders(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    content = f"Image_ID , RLE,doctor\na,{ROWS},x\na,{pairs(square(), 'C')},\nb,-1,y\nb\n"
    put(tmp_path / "masks" / "train.csv", "\ufeff" + content)
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out", "rle-csv:order=rows")
    assert (outcome.pixels()["line 2"] == BLOB).all()
    assert (outcome.pixels()["line 3"] == square()).all()
    assert [json.loads(row["extra"] or "{}") for row in outcome.masks] == [{"doctor": "x"}, {}]
    assert outcome.said("unread") == {"another number of columns": ["train.csv, line 5"]}
    assert outcome.images["b.jpg"]["masks"] == 0
    with pytest.raises(RefusedError, match="order="):
        parse("rle-csv:order=x")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("1", "odd number"),
        ("1 2 2 3", "rise"),
        ("5 2 1 1", "rise"),
        ("0 3", "rise"),
        ("1 0", "rise"),
        ("1 -3", "rise"),
        (f"1 {HEIGHT * WIDTH + 1}", "another image"),
        ("x y", ""),
        ("9" * 30 + " 1", ""),
        ("1.5 2", ""),
        ("\x00", ""),
    ],
)
def test_runs_that_are_none(tmp_path: Path, runs: str, said: str) -> None:
    put_images(tmp_path / "images", "a.jpg")
    path = put(tmp_path / "train.csv", f"ImageId,EncodedPixels\na.jpg,{pairs(square())}\na.jpg,{runs}\n")
    outcome = run(tmp_path / "images", path, tmp_path / "out")
    failed = [row for row in outcome.masks if row["decision"] == "failed"]
    assert len(outcome.masks) - len(failed) == 1
    if failed or outcome.scan["unread"] == 0:
        [row] = failed
        assert row["reason"] in REASONS
        assert said in row["detail"]


def test_sizes_that_no_image_has(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    rows = "".join(f"a,{ROWS},{side},{side},cort\n" for side in ("x", "-1", "", "1e9", "2147483647", "nan", "10"))
    path = put(tmp_path / "train.csv", f"id,annotation,width,height,cell_type\n{rows}")
    outcome = run(tmp_path / "images", path, tmp_path / "out")
    assert {row["reason"] for row in outcome.masks if row["decision"] == "failed"} <= set(REASONS)
    assert len(outcome.masks) == 7


def test_a_table_of_something_else(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    path = put(tmp_path / "train.csv", "a,b\n1,2\n")
    with pytest.raises(RefusedError, match="no column of images"):
        run(tmp_path / "images", path, tmp_path / "out", "rle-csv")
    put(tmp_path / "masks" / "a.png", BLOB * 255)
    put(tmp_path / "masks" / "b.csv", "a,b\n1,2\n")
    assert detect(str(tmp_path / "masks")) == "png"


HEAD = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"


def test_open_images(tmp_path: Path) -> None:
    root = tmp_path / "set"
    put_images(root / "images", "0001eeaf.jpg", "0002.jpg", "0003.jpg")
    put(root / "masks-0" / "0001eeaf_m04yx4_57b.png", BLOB * 255)
    small = Image.fromarray(square() * 255).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.NEAREST)
    put(root / "masks-0" / "0002_m04yx4_1.png", encoded(small.convert("1")))
    put(root / "masks-0" / "unnamed.png", BLOB * 255)
    put(root / "more" / "unnamed.png", BLOB * 255)
    rows = [
        "0001eeaf_m04yx4_57b.png,0001eeaf,/m/04yx4,57b,0.1,0.9,0.1,0.9,0.75,0.3 0.4 1;0.5 0.5 0",
        "0002_m04yx4_1.png,0002,/m/011k07,1,0,1,0,1,0.5,",
        "gone.png,0002,/m/04yx4,2,0,1,0,1,0.5,",
        "x.png,0009,/m/04yx4,3,0,1,0,1,0.5,",
    ]
    put(root / "train-annotations-object-segmentation.csv", HEAD + "\n".join(rows))
    put(root / "class-descriptions-boxable.csv", '/m/011k07,Tortoise\n/m/04yx4,"Man, a"\n')
    put(root / "other.csv", "a,b\n")
    outcome = run(root / "images", root, tmp_path / "out")
    assert outcome.source == "open-images"
    pixels = outcome.pixels()
    assert (pixels["57b"] == BLOB).all()
    assert (pixels["1"] == square()).all()
    rows_by_id = {row["source_mask_id"]: row for row in outcome.masks}
    assert (rows_by_id["57b"]["category"], rows_by_id["1"]["category"]) == ("Man, a", "Tortoise")
    assert json.loads(rows_by_id["57b"]["extra"])["Clicks"] == "0.3 0.4 1;0.5 0.5 0"
    assert (rows_by_id["2"]["reason"], rows_by_id["2"]["detail"].partition(":")[0]) == ("mask_missing", "no file")
    assert rows_by_id["3"]["reason"] == "image_missing"
    assert outcome.said("unread") == {
        "a second file of its name": ["more/unnamed.png"],
        "no row names it": ["masks-0/unnamed.png"],
        "no table of Open Images' masks": ["other.csv"],
    }
    table = root / "train-annotations-object-segmentation.csv"
    assert detect(str(table)) == "open-images"
    alone = run(root / "images", table, tmp_path / "alone")
    assert {row["mask_id"] for row in alone.masks} == {row["mask_id"] for row in outcome.masks}


def test_a_mask_that_changed_is_planned_again(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "masks" / "a.png", square() * 255)
    put(tmp_path / "masks" / "t.csv", f"{HEAD}a.png,a,/m/1,1,0,1,0,1,1,\n")
    assert (run(tmp_path / "images", tmp_path / "masks", tmp_path / "out").pixels()["1"] == square()).all()
    put(tmp_path / "masks" / "a.png", BLOB * 255)
    again = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert (binary.decode(again.only()["mask_rle"]) == BLOB).all()
