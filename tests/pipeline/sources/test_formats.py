"""Every format in: small files as the tools write them, read through planning and loading, pixel for pixel."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import sources
from pipeline.errors import ImageError, RefusedError
from pipeline.masks import binary
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
from pipeline.storage.containers import read_image
from tests.pipeline.exports.results import ImageCase, MaskCase, expected, make_result, read_back, write_photo

SIZE = (12, 16)
CAT = np.zeros(SIZE, np.uint8)
CAT[2:9, 3:8] = 1
DOG = np.zeros(SIZE, np.uint8)
DOG[5:11, 9:15] = 1
BOTH = sorted([("cat", CAT.tobytes()), ("dog", DOG.tobytes())])
BY_NUMBER = sorted([("7", CAT.tobytes()), ("9", DOG.tobytes())])
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]


def png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_photo(tmp_path / "images" / "000000000139.jpg", SIZE)
    return tmp_path / "images"


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def put_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(pixels))


def found(uri: Path, images: Path, source: str | None = None, with_names: bool = True) -> dict[str, list]:
    return read_back(source or sources.detect(str(uri)), uri, images, with_names)


def test_coco_results_as_detectron2_writes_them(tmp_path: Path, images: Path) -> None:
    uri = put(
        tmp_path / "coco_instances_results.json",
        [
            {"image_id": 139, "category_id": 7, "bbox": [3, 2, 5, 7], "score": 0.9, "segmentation": binary.encode(CAT)},
            {"image_id": 139, "category_id": 9, "bbox": [9, 5, 6, 6], "score": 0.6, "segmentation": binary.encode(DOG)},
        ],
    )
    assert sources.detect(str(uri)) == "coco-results"
    assert found(uri, images, with_names=False) == {"000000000139.jpg": BY_NUMBER}
    some = found(uri, images, "coco-results:min_score=0.8", False)
    assert some == {"000000000139.jpg": [("7", CAT.tobytes())]}
    index = put(
        tmp_path / "index.json",
        {"images": [{"id": 139, "file_name": "000000000139.jpg"}], "annotations": [], "categories": CATEGORIES},
    )
    assert found(uri, images, f"coco-results:images={index}") == {"000000000139.jpg": BOTH}


def test_semantic_predictions_of_detectron2(tmp_path: Path, images: Path) -> None:
    rows = [
        {"file_name": f"/data/{name}", "category_id": number, "segmentation": binary.encode(mask)}
        for name, number, mask in (("000000000139.jpg", 7, CAT), ("x\\000000000139.png", 9, DOG))
    ]
    uri = put(tmp_path / "sem_seg_predictions.json", rows)
    assert sources.detect(str(uri)) == "coco-results"
    assert found(uri, images, with_names=False) == {"000000000139.jpg": BY_NUMBER}


def test_results_of_images_that_are_not_there(tmp_path: Path, images: Path) -> None:
    uri = put(
        tmp_path / "r.json", [{"image_id": 140, "category_id": 1, "score": 1, "segmentation": binary.encode(CAT)}]
    )
    [image] = scan("coco-results", SourceInput(str(uri), Access(), {}))
    assert (image.image_uri, image.problem) == ("unknown-image-140", "image_missing")
    with pytest.raises(RefusedError, match="no image_id"):
        list(scan("coco-results", SourceInput(str(put(tmp_path / "s.json", [{"a": 1}])), Access(), {})))
    with pytest.raises(RefusedError, match="min_score"):
        sources.parse("coco-results:min_score=high")


def test_lvis(tmp_path: Path, images: Path) -> None:
    content = {
        "images": [
            {
                "id": 139,
                "coco_url": "http://images.example.org/train2017/000000000139.jpg",
                "height": 12,
                "width": 16,
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
            }
        ],
        "annotations": [
            {"id": 1, "image_id": 139, "category_id": 7, "segmentation": [[3, 2, 8, 2, 8, 9, 3, 9]]},
            {"id": 2, "image_id": 139, "category_id": 9, "segmentation": [[9, 5, 15, 5, 15, 11, 9, 11]]},
        ],
        "categories": CATEGORIES,
    }
    uri = put(tmp_path / "lvis_v1_val.json", content)
    assert sources.detect(str(uri)) == "lvis"
    assert found(uri, images) == {"000000000139.jpg": BOTH}
    [image] = scan("lvis", SourceInput(str(uri), Access(), {}))
    assert image.image_uri == "train2017/000000000139.jpg"


def test_coco_panoptic(tmp_path: Path, images: Path) -> None:
    ids = CAT.astype(np.uint32) * 0x0A0A0A + DOG.astype(np.uint32) * 70000  # one of the ids is a grey
    packed = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    content = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "height": 12, "width": 16}],
        "annotations": [
            {
                "image_id": 139,
                "file_name": "000000000139.png",
                "segments_info": [{"id": 0x0A0A0A, "category_id": 7}, {"id": 70000, "category_id": 9}],
            }
        ],
        "categories": CATEGORIES,
    }
    uri = put(tmp_path / "panoptic_val.json", content)
    assert sources.detect(str(uri)) == "coco-panoptic"
    put_png(tmp_path / "panoptic_val" / "000000000139.png", packed)
    assert found(uri, images) == {"000000000139.jpg": BOTH}
    (tmp_path / "panoptic_val" / "000000000139.png").rename(tmp_path / "000000000139.png")
    assert found(uri, images) == {"000000000139.jpg": BOTH}


def test_pascal_voc_instances(tmp_path: Path) -> None:
    voc = tmp_path / "VOC2012"
    write_photo(voc / "JPEGImages" / "2007_000032.jpg", SIZE)
    put_png(voc / "SegmentationObject" / "2007_000032.png", CAT + DOG * 2 + (1 - CAT - DOG) * 255)
    put_png(voc / "SegmentationClass" / "2007_000032.png", CAT * 8 + DOG * 12)
    assert sources.detect(str(voc)) == "voc"
    for uri in (voc, voc / "SegmentationObject"):
        assert found(uri, voc / "JPEGImages", "voc") == {"2007_000032.jpg": BOTH}


def test_instance_ids(tmp_path: Path, images: Path) -> None:
    for pixels, numbers in (
        (CAT.astype(np.uint16) * 7003 + DOG.astype(np.uint16) * 9, BY_NUMBER),
        (CAT + DOG * 2, [("1", one) for one in sorted([CAT.tobytes(), DOG.tobytes()])]),
    ):
        put_png(tmp_path / "ids" / "000000000139.png", pixels)
        assert found(tmp_path / "ids", images, "instances", False) == {"000000000139.jpg": numbers}


def test_yolo(tmp_path: Path, images: Path) -> None:
    root = tmp_path / "yolo"
    put(root / "data.yaml", "path: .\nnames:\n  0: cat\n  1: dog\n")
    cat = [3 / 16, 2 / 12, 8 / 16, 2 / 12, 8 / 16, 9 / 12, 3 / 16, 9 / 12]
    dog_box = [12 / 16, 8 / 12, 6 / 16, 6 / 12]
    lines = [" ".join(map(str, [0, *cat])), " ".join(map(str, [1, *dog_box])), ""]
    put(root / "labels" / "000000000139.txt", "\n".join(lines))
    for uri in (root, root / "labels", root / "data.yaml"):
        assert sources.detect(str(uri)) == "yolo"
        assert found(uri, images) == {"000000000139.jpg": BOTH}
    put(root / "labels" / "000000000139.txt", "0 nan 1 2 3 4 5 6\n0 1 2\nx\n1e400 0 0 1 1 0 1")
    planned = list(scan("yolo", SourceInput(str(root), Access(), {f.path: f for f in Store(str(images)).list()})))
    assert [mask.geometry for mask in planned[0].masks] == ["null"] * 4


PLAIN = [binary.encode(CAT), binary.encode(DOG)]
PHOTO = png(np.full((*SIZE, 3), 99, np.uint8))

CELLS = {
    "annotations": [{"segmentation": rle, "category_id": n} for rle, n in zip(PLAIN, (7, 9), strict=True)],
    "objects": {"segmentation": PLAIN, "category": [7, 9], "area": [1.0, 2.0]},
    "masks": [{"rle": json.dumps(rle), "label": n} for rle, n in zip(PLAIN, (7, 9), strict=True)],
    "mask": {"bytes": png(CAT * 7 + DOG * 9), "path": "mask.png"},
    "label_map": png(CAT * 7 + DOG * 9 + (1 - CAT - DOG) * 255),
    "segmentation": json.dumps([{"mask": rle, "class_id": n} for rle, n in zip(PLAIN, (7, 9), strict=True)]),
    "instances": [
        {"polygon": [3, 2, 8, 2, 8, 9, 3, 9], "label": 7},
        {"polygon": [9, 5, 15, 5, 15, 11, 9, 11], "label": 9},
    ],
}


@pytest.mark.parametrize("column", CELLS)
def test_parquet_with_the_images_inside(tmp_path: Path, column: str) -> None:
    rows = [{"image": {"bytes": PHOTO, "path": f"{n}.png"}, "id": n, column: CELLS[column]} for n in range(5)]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "train-0.parquet", row_group_size=2)
    assert sources.detect(str(tmp_path)) == "parquet"
    expected = {f"data/train-0.parquet#{n:012d}": BY_NUMBER for n in range(5)}
    assert found(tmp_path, tmp_path, with_names=False) == expected
    assert read_image(Store(str(tmp_path)), "data/train-0.parquet#000000000004") == PHOTO
    for missing in ("data/train-0.parquet#000000000005", "data/none.parquet#000000000000", "data/train-0.parquet#x"):
        with pytest.raises(ImageError, match="image_missing"):
            read_image(Store(str(tmp_path)), missing)


def test_parquet_with_paths_and_a_row_a_mask(tmp_path: Path, images: Path) -> None:
    rows = [
        {"file_name": "000000000139.jpg", "mask_rle": rle, "category": name, "height": 12, "width": 16}
        for rle, name in zip(PLAIN, ("cat", "dog"), strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "masks.parquet")
    assert found(tmp_path / "masks.parquet", images) == {"000000000139.jpg": BOTH}
    rows[0]["file_name"] = "../../etc/passwd"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "masks.parquet")
    planned = list(scan("parquet", SourceInput(str(tmp_path / "masks.parquet"), Access(), {})))
    assert planned[0].problem == "image_outside_root"


def test_parquet_with_other_names(tmp_path: Path) -> None:
    rows = [{"foto": PHOTO, "etiketten": CELLS["annotations"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    with pytest.raises(RefusedError, match="parquet:image=COLUMN"):
        found(tmp_path / "x.parquet", tmp_path)
    source = "parquet:image=foto,masks=etiketten"
    assert found(tmp_path / "x.parquet", tmp_path, source, False) == {"x.parquet#000000000000": BY_NUMBER}


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_webdataset(tmp_path: Path) -> None:
    annotations = {"annotations": CELLS["annotations"]}
    members = {
        "000.jpg": PHOTO,
        "000.json": json.dumps(annotations).encode(),
        "sub/001.png": png(CAT * 7 + DOG * 9),
        "sub/001.jpg": PHOTO,
        "002.png": PHOTO,
        "002.mask.png": png(CAT * 7 + DOG * 9),
        "readme.txt": b"no sample",
    }
    tar(tmp_path / "shard-000.tar", members)
    uris = ["000.jpg", "sub/001.jpg", "002.png"]
    expected = {f"shard-000.tar#{name}": BY_NUMBER for name in uris}
    for uri in (tmp_path, tmp_path / "shard-000.tar"):
        assert sources.detect(str(uri)) == "webdataset"
        assert found(uri, tmp_path, with_names=False) == expected
    assert read_image(Store(str(tmp_path)), "shard-000.tar#sub/001.jpg") == PHOTO
    with pytest.raises(ImageError, match="image_missing"):
        read_image(Store(str(tmp_path)), "shard-000.tar#003.jpg")


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)
    with pytest.raises(RefusedError, match=r"x\.tar is not an uncompressed tar"):
        list(scan("webdataset", SourceInput(str(tmp_path / "x.tar"), Access(), {})))
    for name in ("x.tar.gz", "x.tgz", "cams.pkl"):
        with pytest.raises(RefusedError, match="--masks"):
            sources.detect(str(tmp_path / name))


def test_members_that_leave_the_tar_are_not_read(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", {"../../secret.jpg": PHOTO, "../../secret.json": b"[]"})
    rows = list(scan("webdataset", SourceInput(str(tmp_path), Access(), {})))
    assert [row.image_uri for row in rows] == ["x.tar#../../secret.jpg"]
    with pytest.raises(AssertionError, match="image_outside_root"):
        found(tmp_path, tmp_path)


def test_own_output_again(tmp_path: Path) -> None:
    cases = [ImageCase(f"{n}.png", SIZE, [MaskCase(CAT, 7, "cat"), MaskCase(DOG, 9, "dog")]) for n in range(4)]
    make_result(tmp_path, [*cases, ImageCase("none.png", SIZE, [])], shards=2)
    assert sources.detect(str(tmp_path / "out")) == "result"
    again = found(tmp_path / "out", tmp_path / "images")
    assert again == expected([*cases, ImageCase("none.png", SIZE, [])])
    root = sources.images_root("result", None, str(tmp_path / "out"), Access())
    assert root == str(tmp_path / "images")


def test_where_the_images_are(tmp_path: Path) -> None:
    assert sources.images_root("webdataset", None, "s3://b/x/a.tar", Access()) == "s3://b/x"
    assert sources.images_root("parquet", None, "s3://b/x", Access()) == "s3://b/x"
    assert sources.images_root("coco", "photos", "x.json", Access()) == "photos"
    with pytest.raises(RefusedError, match="--images is missing"):
        sources.images_root("coco", None, "x.json", Access())
