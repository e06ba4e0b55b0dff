"""A look finds what planning finds, says what is odd about the images, and says when it is a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import RefusedError
from pipeline.inspection.look import Asked, Found, look
from pipeline.inspection.oddities import oddities
from pipeline.inspection.sample import VIEW_PX
from pipeline.inspection.words import as_dict, lines
from pipeline.storage import Access
from tests.field.test_cells import parquet
from tests.field.world import RING, SIZE_HW, coco, encoded, photograph, put, put_images, run, square

MASK = square() * 255


def looked(tmp_path: Path, masks: str = "masks", **options: Any) -> Found:
    options = {"sample": 8, **options}
    return look(Asked(images=str(tmp_path / "images"), masks=str(tmp_path / masks), **options))


def odd(found: Found) -> dict[str, tuple[int, str]]:
    return {one.what.partition(":")[0]: (one.images, one.example) for one in oddities(found.seen)}


def test_it_finds_what_planning_finds(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    put(tmp_path / "masks" / "a_mask.png", MASK)
    put(tmp_path / "masks" / "b_mask.gif", encoded(MASK, "GIF"))
    put(tmp_path / "masks" / "x.json", "{}")
    found = looked(tmp_path)
    planned = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert found.scan == {key: value for key, value in planned.scan.items() if key != "unread_sha256"}
    assert (found.unread, found.images, found.masks, found.without_masks) == (1, 3, 2, 1)
    assert found.source == "png"
    assert "detected by content" in found.why
    assert "class-maps" in found.why
    said = "\n".join(lines(found, 0))
    assert "UNREAD, more than --max-unread 0" in said
    assert "planning would accept all of it" in "\n".join(lines(found, 1))


@pytest.mark.parametrize("case", ["nothing", "other names", "two formats", "no folder", "a pickle"])
def test_it_refuses_in_the_words_of_planning(tmp_path: Path, case: str) -> None:
    put_images(tmp_path / "images", "cat.jpg")
    masks = tmp_path / ("masks.pkl" if case == "a pickle" else "masks")
    if case == "nothing":
        put(masks / "a.json", "{}")
    elif case == "other names":
        put(masks / "dog.png", MASK)
    elif case == "two formats":
        put(masks / "cat.png", MASK)
        put(masks / "cat.npy", b"x")
    elif case == "a pickle":
        put(masks, b"x")
    found = looked(tmp_path, masks.name)
    if case == "no folder":
        assert found.refused == f"the masks {masks} do not exist"
        return
    with pytest.raises(RefusedError) as refused:
        run(tmp_path / "images", masks, tmp_path / "out")
    assert found.refused == str(refused.value)
    assert "planning would REFUSE this" in lines(found, 0)[-1]


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    images, height, width = tmp_path / "images", *SIZE_HW
    turn = Image.Exif()
    turn[0x0112] = 6
    put(images / "turned.jpg", encoded(photograph(), "JPEG", exif=turn.tobytes()))
    put(images / "deep.png", np.full(SIZE_HW, 3000, np.uint16))
    put_images(images, "plain.jpg", "other.jpg")
    put(images / "broken.jpg", b"x")
    entries = [
        {"file_name": "turned.jpg", "height": width, "width": height},
        {"file_name": "deep.png"},
        {"file_name": "plain.jpg"},
        {"file_name": "other.jpg", "height": 2 * height, "width": 2 * width},
        {"file_name": "broken.jpg"},
    ]
    whole = [0, 0, width, 0, width, height, 0, height]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1},
        {"id": 2, "image_id": 2, "category_id": 1, "segmentation": [], "bbox": [4, 4, 20, 20]},
        {"id": 3, "image_id": 3, "category_id": 1},
        {"id": 4, "image_id": 3, "category_id": 1},
        {"id": 5, "image_id": 3, "category_id": 1, "segmentation": [whole]},
        {"id": 6, "image_id": 3, "category_id": 1, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]},
        {"id": 7, "image_id": 3, "category_id": 1, "segmentation": {"size": [*SIZE_HW], "counts": [height * width]}},
        {"id": 8, "image_id": 3, "category_id": 1, "iscrowd": 1},
        {"id": 9, "image_id": 4, "category_id": 1, "segmentation": [RING]},
    ]
    categories = [{"id": 1, "name": "thing"}, {"id": 2, "name": "lost"}]
    put(tmp_path / "coarse.json", {**coco(*entries, annotations=annotations), "categories": categories})
    found = looked(tmp_path, "coarse.json")
    said = odd(found)
    assert said["EXIF rotation, applied"] == (1, "turned.jpg: orientation 6")
    assert said["more than 8 bits"][1] == "deep.png: values of 12 bits (up to 3000) were scaled to 8"
    assert said["remark on masks, boxes"][1].startswith("deep.png: mask 2")
    assert said["the same mask twice"] == (1, "plain.jpg: masks 3 and 4")
    assert said["a mask covers nearly the whole image"] == (1, "plain.jpg: mask 5")
    assert said["masks of fewer than 16 pixels"][1].startswith("plain.jpg: mask 6")
    assert said["mask_empty"][1].startswith("plain.jpg: mask 7")
    assert said["crowd regions"] == (1, "plain.jpg: mask 8")
    assert said["mask_size_mismatch"][1] == "other.jpg: mask 9: mask 128x192, image 64x96"
    assert "masks overlap" in said
    assert said["image_unreadable"][1].startswith("broken.jpg")
    assert "at 0x" not in str(said)
    content = as_dict(found, 0, [])
    assert content["categories_without_a_mask"] == ["lost"]
    assert {"height": 64, "width": 96, "images": 3} in content["sizes"]
    assert "declared, and without a mask: lost" in "\n".join(lines(found, 0))


def test_a_mask_of_the_stored_frame_is_told(tmp_path: Path) -> None:
    turn = Image.Exif()
    turn[0x0112] = 6
    put(tmp_path / "images" / "a.jpg", encoded(photograph(), "JPEG", exif=turn.tobytes()))
    put(tmp_path / "masks" / "a.png", MASK)
    found = looked(tmp_path)
    assert odd(found)["EXIF rotation, not applied"] == (1, "a.jpg: orientation 6")
    [seen] = found.seen
    assert seen.pixels is not None
    assert seen.pixels.shape == (VIEW_PX * 64 // 96, VIEW_PX, 3)


def test_a_sample_says_that_it_is_one(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(6)]
    put_images(tmp_path / "images", *names, "unmasked.jpg")
    for name in names:
        put(tmp_path / "masks" / f"{Path(name).stem}.png", MASK)
    some = looked(tmp_path, limit=4)
    assert (some.masks, some.cut, some.refused) == (4, ["the first 4 images with masks were read"], None)
    said = lines(some, 0)
    assert any("THIS IS A SAMPLE" in line for line in said)
    assert "accept this sample" in said[-1]
    for limit in (6, 0):
        whole = looked(tmp_path, limit=limit)
        assert (whole.cut, whole.masks) == ([], 6)
        assert "1 of 7 planned images have no mask" in lines(whole, 0)


def test_a_bucket_is_listed_within_bounds(bucket: str, s3_endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for number in range(6):
        client.put_object(Bucket=bucket, Key=f"images/{number}.jpg", Body=encoded(photograph(), "JPEG"))
        client.put_object(Bucket=bucket, Key=f"masks/{number}.png", Body=encoded(MASK))
    asked = {"images": f"s3://{bucket}/images", "masks": f"s3://{bucket}/masks", "access": Access(s3_endpoint)}
    some = look(Asked(**asked, limit=100, sample=2, listed=3))  # type: ignore[arg-type]
    assert some.refused is None
    assert some.cut == ["the first 3 files of --images were listed", "the first 3 files of --masks were listed"]
    assert (some.images, some.masks, len(some.seen)) == (3, 3, 2)
    whole = look(Asked(**asked, sample=2, listed=3))  # type: ignore[arg-type]
    assert (whole.cut, whole.masks) == ([], 6)


def test_a_format_that_is_read_file_by_file_is_named(tmp_path: Path) -> None:
    found = look(Asked(images=None, masks=str(parquet(tmp_path / "p", {"boxes": [[4.0, 4, 20, 20]]}))))
    assert found.format == "Parquet files, as Hugging Face datasets write them"
