"""Tars, Parquet files and Hugging Face folders as people pack them."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.storage import Store
from pipeline.storage.containers import read_image
from tests.field.world import RING, SIZE_HW, encoded, photograph, put, put_images, run, square

SQUARE = square()
PHOTO, MASK = encoded(photograph(), "JPEG"), encoded(SQUARE * 255)
PNG = encoded(photograph())
PAIR = (("jpg", PHOTO), ("seg.png", MASK))
JSON = json.dumps(
    {"annotations": [{"id": 1, "segmentation": [RING], "category_id": 2, "iscrowd": 1, "note": "x"}]}
).encode()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


SAMPLES: dict[str, list[tuple[str, bytes]]] = {
    "a.jpg": [("a.jpg", PHOTO), ("a.json", JSON)],
    "clip.v1.2_0001.jpg": [("clip.v1.2_0001.jpg", PHOTO), ("clip.v1.2_0001.json", JSON)],
    "clip.v1.2_0002.jpg": [("clip.v1.2_0002.jpg", PHOTO), ("clip.v1.2_0002.mask.png", MASK)],
    "n1.image.jpg": [("n1.image.jpg", PHOTO), ("n1.mask.png", MASK)],
    "n2.input.jpg": [("n2.input.jpg", PHOTO), ("n2.json", JSON)],
    "sub/n3.JPG": [("sub/n3.JPG", PHOTO), ("sub/n3.seg.png", MASK)],
    "p.png": [("p.png", PNG), ("p.target.png", MASK)],
    "q.webp": [("q.webp", encoded(photograph(), "WEBP")), ("q.png", MASK)],
    "r.jpg": [("r.jpg", PHOTO), ("r_mask.png", MASK)],
    "s.rgb.png": [("s.rgb.png", PNG), ("s.3.png", MASK)],
    "t.jpg": [("t.jpg", PHOTO), ("t.mask.jpg", encoded(SQUARE * 255, "JPEG"))],
    "frame.0001.png": [("frame.0001.png", PNG), ("frame.0001.json", JSON)],
    "frame.0002.png": [("frame.0002.png", PNG), ("frame.0002.json", JSON)],
}


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_sample_of_a_tar_in_any_order(tmp_path: Path, seed: int | None) -> None:
    members = [member for sample in SAMPLES.values() for member in sample]
    if seed is not None:
        random.Random(seed).shuffle(members)
    tar(tmp_path / "tars" / "s.tar", members)
    outcome = run(None, tmp_path / "tars", tmp_path / "out")
    assert sorted(outcome.images) == sorted(f"s.tar#{name}" for name in SAMPLES)
    assert len(outcome.masks) == len(SAMPLES)
    for row in outcome.masks:
        assert (binary.decode(row["mask_rle"]) == SQUARE).all(), row["image_id"]
    assert outcome.scan["unread"] == 0


def test_the_order_of_members_changes_no_id(tmp_path: Path) -> None:
    members = [member for sample in SAMPLES.values() for member in sample]
    tar(tmp_path / "tars" / "s.tar", members)
    first = run(None, tmp_path / "tars", tmp_path / "out")
    tar(tmp_path / "tars" / "s.tar", members[::-1])
    second = run(None, tmp_path / "tars", tmp_path / "out2")
    assert [row["mask_id"] for row in first.masks] == [row["mask_id"] for row in second.masks]


def linked(path: Path) -> Path:
    """A hard link to a mask, a symbolic one to an image, one to a link, one to nothing, a pipe."""
    tar(path, [("./0.jpg", PHOTO), ("./0.seg.png", MASK), ("./1.jpg", PHOTO)])
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("./1.seg.png", tarfile.LNKTYPE, "0.seg.png"),
            ("sub/2.jpg", tarfile.SYMTYPE, "../0.jpg"),
            ("sub/2.seg.png", tarfile.SYMTYPE, "../1.seg.png"),
            ("3.jpg", tarfile.SYMTYPE, "gone.jpg"),
            ("4.jpg", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


def test_links_are_what_they_lead_to(tmp_path: Path) -> None:
    linked(tmp_path / "tars" / "s.tar")
    outcome = run(None, tmp_path / "tars", tmp_path / "out")
    assert sorted(outcome.images) == ["s.tar#./0.jpg", "s.tar#./1.jpg", "s.tar#sub/2.jpg"]
    assert [(binary.decode(row["mask_rle"]) == SQUARE).all() for row in outcome.masks] == [True] * 3
    said = outcome.said("unread")
    assert said == {"a link to what is no file in the tar": ["s.tar#3.jpg"], "no file": ["s.tar#4.jpg"]}
    assert read_image(Store(str(tmp_path / "tars")), "s.tar#sub/2.jpg") == PHOTO


def test_masks_of_an_image_that_is_not_there_are_no_photographs(tmp_path: Path) -> None:
    tar(
        tmp_path / "tars" / "s.tar", [("0.jpg", PHOTO), ("0.seg.png", MASK), ("1.seg.png", MASK), ("photo_gt.png", PNG)]
    )
    outcome = run(None, tmp_path / "tars", tmp_path / "out")
    assert sorted(outcome.images) == ["s.tar#0.jpg", "s.tar#photo_gt.png"]
    assert outcome.said("unread") == {"a member without an image": ["s.tar#1.seg.png"]}


@pytest.mark.parametrize("cut", ["a member", "a header", "damage"])
def test_a_tar_that_was_cut_where_a_member_begins_is_told(tmp_path: Path, cut: str) -> None:
    """tarfile takes what it cannot read for the end."""
    whole = tar(tmp_path / "tars" / "s.tar", [(f"{n}.{end}", data) for n in range(3) for end, data in PAIR])
    with tarfile.open(whole) as archive:
        third = archive.getmembers()[2].offset
    data = whole.read_bytes()
    ends = {"a member": data[:third], "a header": data[: third + 300], "damage": data[:third] + b"x" * 512}
    whole.write_bytes(ends[cut] + (data[third + 512 :] if cut == "damage" else b""))
    tar(tmp_path / "tars" / "t.tar", [("9.jpg", PHOTO), ("9.seg.png", MASK)])
    outcome = run(None, tmp_path / "tars", tmp_path / "out")
    assert sorted(outcome.images) == ["s.tar#0.jpg", "t.tar#9.jpg"]
    [(why, names)] = outcome.said("unread").items()
    assert ("without a mark at its end" in why) == (cut == "a member")
    assert names == ["s.tar"]
    if cut != "a member":
        with pytest.raises(RefusedError, match=rf"s.tar is damaged, or was cut, at byte {third:,}"):
            run(None, whole, tmp_path / "alone")


def test_members_of_no_use_are_named(tmp_path: Path) -> None:
    members = [
        ("a.jpg", PHOTO),
        ("a.json", JSON),
        ("a.txt", b"caption"),
        ("b.json", JSON),
        ("c.cls", b"3"),
        ("a.webp", PHOTO),
    ]
    tar(tmp_path / "tars" / "s.tar", [*members, ("a.json", JSON), ("README.md", b"")])
    (tmp_path / "tars" / "t.tar.gz").write_bytes(gzip.compress(b"x"))
    (tmp_path / "tars" / "broken.tar").write_bytes(b"x" * 2000)
    outcome = run(None, tmp_path / "tars", tmp_path / "out", ignore=("*.cls",))
    said = outcome.said("unread")
    assert said["a member that holds no masks"] == ["s.tar#a.txt"]
    assert said["a member without an image"] == ["s.tar#b.json"]
    assert said["a second image of one key"] == ["s.tar#a.webp"]
    assert said["a later member has its name"] == ["s.tar#a.json"]
    assert said["compressed: it cannot be read in place; decompress it"] == ["t.tar.gz"]
    assert said["damaged"] == ["broken.tar"]
    assert outcome.said("ignored") == {"--ignore": ["s.tar#c.cls"], "by its name": ["s.tar#README.md"]}
    assert outcome.only()["crowd"]
    assert json.loads(outcome.only()["extra"]) == {"note": "x"}
    with pytest.raises(RefusedError, match="compressed"):
        run(None, tmp_path / "tars" / "t.tar.gz", tmp_path / "none")


RLE = binary.encode(SQUARE)
CELLS: dict[str, dict[str, Any]] = {
    "list of structs": {"objects": [{"segmentation": RLE, "category_id": 3, "iscrowd": 0}]},
    "struct of lists": {"objects": {"segmentation": [RLE], "category": ["3"], "id": [7]}},
    "plural names": {"objects": {"segmentation": [json.dumps(RLE)], "categories": [3], "bbox": [[1.0, 2.0, 3.0, 4.0]]}},
    "png bytes": {"mask": MASK, "category_id": 3.0},
    "hugging face image": {"mask": {"bytes": MASK, "path": None}, "label": 3},
    "text": {"annotations": json.dumps([{"segmentation": [RING], "category_id": "3"}])},
    "path": {"mask_path": "masks/a.png", "category_id": 3},
    "path in a struct": {"mask": {"bytes": None, "path": "masks/a.png"}, "category_id": 3},
    "box": {"objects": [{"bbox": [24.0, 16.0, 48.0, 32.0], "category_id": 3}]},
}


@pytest.mark.parametrize("image", ["bytes", "struct", "path", "struct of a path"])
@pytest.mark.parametrize("name", CELLS)
def test_parquet_with_paths_structs_and_lists(tmp_path: Path, name: str, image: str) -> None:
    root = tmp_path / "data"
    images = {
        "bytes": {"image": PHOTO},
        "struct": {"image": {"bytes": PHOTO, "path": "a.jpg"}},
        "path": {"file_name": "images/a.jpg"},
        "struct of a path": {"image": {"bytes": None, "path": "images/a.jpg"}},
    }
    put_images(root / "images", "a.jpg")
    put(root / "masks" / "a.png", SQUARE * 255)
    schema = (
        pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
        if "struct" in image
        else None
    )
    table = pa.Table.from_pylist([{**images[image], **CELLS[name], "height": 64.0, "width": "96"}])
    if schema is not None:
        place = table.column_names.index("image")
        table = table.set_column(place, "image", pa.array([images[image]["image"]], schema.field("image").type))
    if name == "path in a struct":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = table.set_column(table.column_names.index("mask"), "mask", pa.array([CELLS[name]["mask"]], kind))
    pq.write_table(table, root / "train.parquet")
    outcome = run(root, root / "train.parquet", tmp_path / "out")
    row = outcome.only()
    assert (row["decision"], row["category_id"]) == ("refined", 3), row["detail"]
    assert (binary.decode(row["mask_rle"]) == SQUARE).all()
    place = "train.parquet#000000000000" if image in ("bytes", "struct") else "images/a.jpg"
    assert row["image_id"] == place


@pytest.mark.parametrize("size", [2**40, -1, 0, float("nan"), "x", None])
def test_a_size_that_no_image_has_is_none(tmp_path: Path, size: Any) -> None:
    table = pa.table({"image": [PHOTO], "mask": [MASK], "height": [size], "width": [size]})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    assert run(None, tmp_path / "data", tmp_path / "out").images["a.parquet#000000000000"]["height"] == SIZE_HW[0]


def test_a_damaged_file_among_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"image": [PHOTO], "mask": [MASK]}), tmp_path / "data" / "good.parquet")
    big = pa.table({"image": [PHOTO] * 40, "mask": [MASK] * 40, "noise": np.random.default_rng(0).random(40)})
    pq.write_table(big, tmp_path / "data" / "page.parquet", compression="zstd", use_dictionary=False)
    content = bytearray((tmp_path / "data" / "page.parquet").read_bytes())
    start = pq.read_metadata(tmp_path / "data" / "page.parquet").row_group(0).column(1).data_page_offset
    content[start : start + 60] = b"\xff" * 60
    (tmp_path / "data" / "page.parquet").write_bytes(content)
    (tmp_path / "data" / "footer.parquet").write_bytes(b"PAR1" + b"\xff" * 200 + b"PAR1")
    outcome = run(None, tmp_path / "data", tmp_path / "out")
    assert outcome.said("unread")["damaged"] == ["footer.parquet", "page.parquet"]
    assert [row["image_id"] for row in outcome.masks] == ["good.parquet#000000000000"]
    with pytest.raises(RefusedError, match=r"footer\.parquet is not a Parquet file"):
        run(None, tmp_path / "data" / "footer.parquet", tmp_path / "none")
    with pytest.raises(RefusedError, match="--prune would drop"):
        run(None, tmp_path / "data", tmp_path / "out", prune=True)


METADATA = {
    "segmentation": {"objects": {"segmentation": [[RING]], "categories": [3]}},
    "polygon": {"objects": [{"polygon": RING, "category_id": 3}]},
    "mask file": {"mask_file_name": "masks/a.png", "category_id": 3},
    "rle": {"segmentation": RLE, "category_id": 3, "caption": "a cat"},
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("given", ["metadata.jsonl", ""])
def test_hugging_face_image_folders(tmp_path: Path, name: str, given: str) -> None:
    root = tmp_path / "train"
    put_images(root, "a.jpg")
    put(root / "masks" / "a.png", SQUARE * 255)
    rows = [{"file_name": "a.jpg", **METADATA[name]}]
    put(root / "metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\nno json\n")
    outcome = run(None, root / given, tmp_path / "out")
    assert outcome.source == "image-folder"
    row = outcome.only()
    assert (row["category_id"], row["image_id"], row["decision"]) == (3, "a.jpg", "refined")
    assert (binary.decode(row["mask_rle"]) == SQUARE).all()
    assert outcome.said("unread") == {"no JSON object": ["metadata.jsonl, line 2"]}


def test_hugging_face_splits_and_csv(tmp_path: Path) -> None:
    for split in ("train", "test"):
        put_images(tmp_path / "set" / split, f"{split}.jpg")
        put(tmp_path / "set" / split / "m.png", SQUARE * 255)
        put(tmp_path / "set" / split / "metadata.csv", f"file_name,mask_file_name,label\n{split}.jpg,m.png,3\n")
    outcome = run(None, tmp_path / "set", tmp_path / "out")
    assert sorted(outcome.images) == ["test/test.jpg", "train/train.jpg"]
    assert [(row["category_id"], row["area"]) for row in outcome.masks] == [(3, SQUARE.sum())] * 2
