"""Sources: what is in the files, and what becomes of what is wrong in them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.decoding.coarse import coarse_rle
from pipeline.errors import MaskError, RefusedError
from pipeline.masks import binary
from pipeline.sources import SourceInput, detect, parse, scan
from pipeline.storage import Access, Store


def planned(masks_uri: Path, images: Path | None = None, source: str | None = None) -> dict[str, object]:
    listed = {file.path: file for file in Store(str(images)).list()} if images else {}
    given = SourceInput(str(masks_uri), Access(), listed)
    return {image.image_uri: image for image in scan(source or detect(str(masks_uri)), given)}


def coco(folder: Path, **content: object) -> Path:
    path = folder / "coarse.json"
    path.write_text(json.dumps(content))
    return path


def test_coco(tmp_path: Path) -> None:
    path = coco(
        tmp_path,
        images=[
            {"id": 7, "file_name": "a/b.jpg", "height": 4, "width": 5},
            {"id": 8, "file_name": "none.jpg", "height": "x", "width": 5},
        ],
        annotations=[
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[0, 0, 1, 1, 2, 0]], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 9, "segmentation": {"size": [4, 5], "counts": [20]}, "iscrowd": 1},
            {"id": 3, "image_id": 99, "category_id": None},
        ],
        categories=[{"id": 3, "name": "cat"}],
    )
    found = planned(path)
    assert set(found) == {"a/b.jpg", "none.jpg", "unknown-image-99"}
    first, second = found["a/b.jpg"].masks
    assert found["a/b.jpg"].declared_hw == (4, 5)
    assert (first.source_mask_id, first.category_id, first.category) == ("1", 3, "cat")
    assert json.loads(first.geometry) == [[0, 0, 1, 1, 2, 0]]
    assert (second.category_id, second.category) == (9, "")
    assert found["none.jpg"].declared_hw is None
    assert found["none.jpg"].masks == []
    assert found["unknown-image-99"].problem == "image_missing"
    assert found["unknown-image-99"].masks[0].geometry == "null"


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "s3://other/x.jpg", ""])
def test_paths_that_leave_the_image_root_are_a_problem(tmp_path: Path, name: str) -> None:
    path = coco(tmp_path, images=[{"id": 1, "file_name": name, "height": 4, "width": 5}], annotations=[])
    [image] = planned(path).values()
    assert image.problem == "image_outside_root"


@pytest.mark.parametrize("text", ["not json", "[]", '{"annotations": []}'])
def test_what_is_not_coco_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RefusedError, match=r"x\.json"):
        planned(tmp_path / "x.json")


def write_png(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([i for index in range(256) for i in (index, 0, 255 - index)])
    image.save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    sink = io.BytesIO()
    Image.new("RGB", (6, 5)).save(sink, "JPEG")
    for name in ("a.jpg", "sub/b.jpeg", "c.JPG", "lone.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sink.getvalue())
    (tmp_path / "images" / "readme.txt").write_text("not an image")
    return tmp_path / "images"


def test_png_folder(photos: Path, tmp_path: Path) -> None:
    labels = np.zeros((5, 6), np.uint8)
    labels[1, 1], labels[2, 2], labels[0, 0] = 4, 9, 255
    write_png(tmp_path / "masks" / "a.png", (labels > 0).astype(np.uint8) * 255)
    write_png(tmp_path / "masks" / "sub" / "b.png", labels, palette=True)
    write_png(tmp_path / "masks" / "c" / "left.png", labels > 4)
    write_png(tmp_path / "masks" / "c" / "right.png", labels > 9)
    write_png(tmp_path / "masks" / "orphan.png", labels)
    (tmp_path / "masks" / "lone.png").write_bytes(b"broken")
    found = planned(tmp_path / "masks", photos)
    assert set(found) == {"a.jpg", "sub/b.jpeg", "c.JPG", "lone.png", "orphan.png"}
    ids = {name: [mask.source_mask_id for mask in image.masks] for name, image in found.items()}
    assert ids["a.jpg"] == ["a"]
    assert ids["sub/b.jpeg"] == ["sub/b#4", "sub/b#9"]  # 255 is void beside other labels
    assert [mask.category_id for mask in found["sub/b.jpeg"].masks] == [4, 9]
    assert ids["c.JPG"] == ["c/left", "c/right"]
    assert ids["lone.png"] == ["lone"]  # cannot be read: one mask, which fails when loaded
    assert found["orphan.png"].problem == "image_missing"


def test_a_changed_mask_file_changes_the_digest(photos: Path, tmp_path: Path) -> None:
    digests = []
    for value in (1, 2):
        write_png(tmp_path / "masks" / "a.png", np.full((5, 6), value, np.uint8))
        digests.append(planned(tmp_path / "masks", photos)["a.jpg"].digest_extra)
    assert digests[0] != digests[1]


def test_class_maps(photos: Path, tmp_path: Path) -> None:
    one = np.zeros((5, 6), np.uint8)
    one[2, 2], one[0, 0] = 9, 255
    write_png(tmp_path / "maps" / "a.png", one, palette=True)
    write_png(tmp_path / "maps" / "sub" / "b.png", np.zeros((5, 6), np.uint8))
    (tmp_path / "maps" / "lone.png").write_bytes(b"broken")
    found = planned(tmp_path / "maps", photos, "class-maps")
    assert set(found) == {"a.jpg", "sub/b.jpeg", "lone.png"}  # c.JPG has no map
    ids = {name: [(mask.source_mask_id, mask.category_id) for mask in image.masks] for name, image in found.items()}
    assert ids["a.jpg"] == [("a#9", 9)]  # one class is a class all the same
    assert ids["sub/b.jpeg"] == []
    assert len(ids["lone.png"]) == 1


def test_soft_class_maps(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cams" / "sub").mkdir(parents=True)
    scores = np.zeros((3, 5, 6), np.float32)
    scores[0, :2], scores[2, 3:] = 0.9, 0.8
    np.save(tmp_path / "cams" / "a.npy", scores)
    np.save(tmp_path / "cams" / "sub" / "b.npy", np.array([{"cam": 1}]), allow_pickle=True)
    np.save(tmp_path / "cams" / "orphan.npy", scores)
    found = planned(tmp_path / "cams", photos, "cam:alpha=2")
    assert set(found) == {"a.jpg", "sub/b.jpeg", "orphan.npy"}
    assert found["orphan.npy"].problem == "image_missing"
    first, second = found["a.jpg"].masks
    assert (first.source_mask_id, first.category_id, second.category_id) == ("a#1", 1, 3)
    files = {"a.npy": (tmp_path / "cams" / "a.npy").read_bytes(), "sub/b.npy": b"gone bad"}
    rle = coarse_rle(second.geometry, (5, 6), (5, 6), files)
    assert np.array_equal(binary.decode(rle), scores[2] > 0)
    assert json.loads(second.geometry)["cam"] == {"layout": "chw", "alpha": 2.0, "threshold": None}
    [broken] = found["sub/b.jpeg"].masks
    with pytest.raises(MaskError, match="mask_unreadable"):
        coarse_rle(broken.geometry, (5, 6), (5, 6), files)


def test_a_file_that_is_too_large_is_not_read(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 5, 6), np.float32))
    (tmp_path / "cams").mkdir()
    (tmp_path / "a.npy").rename(tmp_path / "cams" / "a.npy")
    monkeypatch.setattr("pipeline.sources.files.MAX_FILE_BYTES", 10)
    [image] = planned(tmp_path / "cams", photos, "cam").values()
    with pytest.raises(MaskError, match="mask_unreadable"):
        coarse_rle(image.masks[0].geometry, (5, 6), (5, 6), {})


@pytest.mark.parametrize(
    "source",
    ["nothing", "png:a=1", "cam:layout", "cam:layout=hcw", "cam:alpha=1,threshold=0.5", "cam:alpha=x", "cam:b=1"],
)
def test_sources_and_options_that_do_not_exist_are_refused(source: str) -> None:
    with pytest.raises(RefusedError):
        parse(source)
