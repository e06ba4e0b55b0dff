"""Small inputs that once stopped a job, filled the memory, or vanished without a word: a row, or one line."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import RefusedError
from tests.field.world import RING, SIZE_HW, coco, encoded, photograph, put, put_images, run, square

HEIGHT, WIDTH = SIZE_HW
JPEG = encoded(photograph(), "JPEG")
YOLO_LINE = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"


def yolo(folder: Path, line: str = YOLO_LINE, data_yaml: str = "") -> Path:
    put(folder / "labels" / "a.txt", line)
    if data_yaml:
        put(folder / "data.yaml", data_yaml)
    return folder


@pytest.mark.parametrize("number", ["1e300", "1e19"])
def test_a_class_beyond_all_integers(tmp_path: Path, number: str) -> None:
    masks = yolo(tmp_path / "set", f"{number} 0.1 0.1 0.5 0.1 0.5 0.5\n")
    row = run(put_images(tmp_path / "images", "a.jpg"), masks, tmp_path / "out").only()
    assert (row["decision"], row["reason"]) == ("failed", "mask_unreadable")
    assert row["detail"].startswith("no numbers: line 1 of a.txt")


LAUGHS = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + "".join(
    f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    ['names: {"²": cat}\n', f"names: {'[' * 3000}{']' * 3000}\n", f"{LAUGHS}names: [*a8]\n", "names: 5\n", "a: [\n"],
)
def test_names_of_classes_that_cannot_be_read_are_told(tmp_path: Path, text: str) -> None:
    images, masks = put_images(tmp_path / "images", "a.jpg"), yolo(tmp_path / "set", data_yaml=text)
    outcome = run(images, masks, tmp_path / "out")
    assert outcome.only()["decision"] == "refined"
    assert outcome.said("unread") == {"names of classes that cannot be read": ["data.yaml: names"]}
    assert run(images, masks, tmp_path / "other", ignore=("data.yaml",)).said("unread") == {}


def test_segments_that_are_none(tmp_path: Path) -> None:
    images = put_images(tmp_path / "images", "a.jpg", "b.jpg")
    annotations: list[dict[str, Any]] = [
        {"image_id": 1, "file_name": "a.png", "segments_info": 5},
        {"image_id": 2, "file_name": ".", "segments_info": [{"id": 1, "category_id": 1}, "x"]},
    ]
    entries = coco({"file_name": "a.jpg"}, {"file_name": "b.jpg"})["images"]
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    outcome = run(images, put(tmp_path / "c.json", content), tmp_path / "out", source="coco-panoptic")
    assert outcome.said("unread") == {
        "no object": ["annotation of image 1, segment 0", "annotation of image 2, segment 1"]
    }
    assert outcome.only()["reason"] == "mask_missing"


@pytest.mark.parametrize("name", [".", "/", "a\0b"])
def test_names_that_are_no_path(tmp_path: Path, name: str) -> None:
    images = put_images(tmp_path / "images", "a.jpg")
    content = coco({"file_name": "a.jpg"}, {"file_name": name})
    outcome = run(images, put(tmp_path / "c.json", content), tmp_path / "out")
    assert sorted(row["decision"] for row in outcome.masks) == ["failed", "refined"]


def test_ids_with_nul_are_not_the_same_mask(tmp_path: Path) -> None:
    images = put_images(tmp_path / "images", "a.jpg")
    annotations = [{"id": "b\0c", "image_id": 1}, {"id": "c", "image_id": 2}]
    content = coco({"file_name": "a.jpg"}, {"file_name": "a.jpg\0b"}, annotations=annotations)
    outcome = run(images, put(tmp_path / "c.json", content), tmp_path / "out")
    assert len({row["mask_id"] for row in outcome.masks}) == 2


def test_two_images_of_one_id(tmp_path: Path) -> None:
    images = put_images(tmp_path / "images", "a.jpg", "b.jpg")
    content = coco(
        {"file_name": "a.jpg"},
        {"file_name": "b.jpg", "id": 1},
        annotations=[{"id": 1, "image_id": 1, "category_id": 1}],
    )
    outcome = run(images, put(tmp_path / "c.json", content), tmp_path / "out")
    assert outcome.said("odd") == {"image with the id of another, which has the masks of both": ["b.jpg"]}


@pytest.mark.parametrize(("value", "left"), [("9" * 5000, []), ("[" * 100_000 + "]" * 100_000, [1])])
def test_values_that_python_does_not_take(tmp_path: Path, value: str, left: list[int]) -> None:
    """Within an entry: it is read, or named where it cannot be; as an entry: it is named."""
    images = put_images(tmp_path / "images", "a.jpg", "b.jpg")
    text = json.dumps(coco({"file_name": "a.jpg"}, {"file_name": "b.jpg"}))
    inside = put(tmp_path / "a.json", text.replace('"id": 2, "image_id"', f'"other": {value}, "id": 2, "image_id"'))
    outcome = run(images, inside, tmp_path / "out")
    assert len(outcome.masks) == 2 - len(left)
    named = [f"a.json: annotations, entry {number - 1} that is no object" for number in left]
    assert outcome.said("unread").get("no object", []) == named
    entry = put(tmp_path / "b.json", text.replace('"annotations": [', f'"annotations": [{value}, '))
    outcome = run(images, entry, tmp_path / "more")
    assert len(outcome.masks) == 2
    assert outcome.said("unread") == {"no object": ["b.json: annotations, entry 0 that is no object"]}


@pytest.mark.parametrize("score", ["1" + "0" * 400, "NaN", "-0.1"])
def test_scores_that_are_none(tmp_path: Path, score: str) -> None:
    images = put_images(tmp_path / "images", "a.jpg")
    text = json.dumps([{"image_id": "a", "category_id": 1, "segmentation": [RING], "score": "SCORE"}])
    masks = put(tmp_path / "c.json", text.replace('"SCORE"', score))
    assert run(images, masks, tmp_path / "out").only()["decision"] == "refined"


def table(folder: Path, rows: dict[str, Any]) -> Path:
    folder.mkdir()
    pq.write_table(pa.table(rows), folder / "x.parquet", compression="zstd")
    return folder / "x.parquet"


def test_a_height_beyond_int32(tmp_path: Path) -> None:
    path = table(tmp_path / "set", {"image": [JPEG], "height": [2**40], "width": [WIDTH], "mask": [json.dumps([RING])]})
    assert run(None, path.parent, tmp_path / "out").only()["decision"] == "refined"


@pytest.mark.parametrize("column", [0, 1])
def test_damaged_pages(tmp_path: Path, column: int) -> None:
    rows = 40
    masks = [json.dumps([[*RING[:6], RING[6] + number / 100, RING[7]]]) for number in range(rows)]
    noise = np.random.default_rng(0).integers(0, 256, (rows, HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = table(tmp_path / "set", {"image": [encoded(one) for one in noise], "mask": masks})
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    data, start = bytearray(path.read_bytes()), chunk.dictionary_page_offset or chunk.data_page_offset
    for place in range(start + chunk.total_compressed_size // 2, start + chunk.total_compressed_size // 2 + 40):
        data[place] ^= 0xFF
    path.write_bytes(data)
    if column:
        with pytest.raises(RefusedError, match=r"x.parquet: damaged"):
            run(None, path.parent, tmp_path / "out")
    else:
        outcome = run(None, path.parent, tmp_path / "out")
        assert len(outcome.masks) == len(outcome.images) == rows
        assert {row["reason"] for row in outcome.images.values() if row["status"] == "failed"} <= {"image_unreadable"}


def test_a_footer_that_is_none(tmp_path: Path) -> None:
    put(tmp_path / "set" / "x.parquet", b"PAR1" + b"\0" * 100 + b"\x40\0\0\0PAR1")
    with pytest.raises(RefusedError, match=r"x.parquet: damaged"):
        run(None, tmp_path / "set", tmp_path / "out")


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    mask = pa.array([json.dumps([RING])])
    rows = pa.Table.from_arrays([pa.array([JPEG]), mask, mask], names=["image", "mask", "mask"])
    pq.write_table(rows, tmp_path / "set" / "x.parquet")
    assert run(None, tmp_path / "set", tmp_path / "out").only()["decision"] == "refined"


def test_a_member_that_points_out_of_its_archive(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    annotations = json.dumps({"annotations": [{"id": 1, "segmentation": [RING]}]}).encode()
    with tarfile.open(tmp_path / "set" / "s.tar", "w") as archive:
        for name, data in (("../evil.jpg", JPEG), ("../evil.json", annotations)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    outcome = run(None, tmp_path / "set", tmp_path / "out")
    assert outcome.only()["image_id"] == "s.tar#../evil.jpg"


@pytest.mark.parametrize("value", [-5, 2_000_000_000])
def test_classes_that_are_no_byte(tmp_path: Path, value: int) -> None:
    images = put_images(tmp_path / "images", "a.jpg")
    for name, pixels in (("Object", square()), ("Class", square().astype(np.int32) * value)):
        path = tmp_path / "voc" / f"Segmentation{name}" / "a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path, "PNG" if name == "Object" else "TIFF")
    row = run(images, tmp_path / "voc", tmp_path / "out").only()
    assert (row["decision"], row["category"]) == ("refined", "")


def test_pipes(tmp_path: Path) -> None:
    images = put_images(tmp_path / "images", "a.jpg")
    os.mkfifo(images / "p.jpg")
    content = coco({"file_name": "a.jpg"}, {"file_name": "p.jpg"})
    outcome = run(images, put(tmp_path / "c.json", content), tmp_path / "out")
    assert {key: row["reason"] for key, row in outcome.images.items()} == {"a.jpg": None, "p.jpg": "image_missing"}
    (tmp_path / "masks").mkdir()
    os.mkfifo(tmp_path / "masks" / "a.png")
    with pytest.raises(RefusedError, match=r"no mask at all .*a.png: no file"):
        run(images, tmp_path / "masks", tmp_path / "other")
