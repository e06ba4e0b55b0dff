"""What an export could not read is named, makes the exit code 3, and is written once it is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.dataset import Result
from pipeline.errors import RefusedError
from pipeline.exports import EXPORTS, driver
from pipeline.exports.types import Options
from pipeline.storage import Store
from tests.conftest import Cli
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result, write, write_photo

PIXELS = np.tril(np.ones((12, 16), np.uint8))
COPYING = [name for name, form in EXPORTS.items() if form.copies_images]


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Six images in three shards."""
    return make_result(tmp_path, [ImageCase(f"{n}.png", (12, 16), [MaskCase(PIXELS)]) for n in range(6)], shards=3)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unread(folder: Path) -> dict[str, str]:
    lines = (folder / "unread.jsonl").read_text().splitlines()
    return {entry["image_uri"]: entry["why"] for entry in map(json.loads, lines)}


@pytest.mark.parametrize("name", COPYING)
def test_a_missing_image_is_named_and_added_once_it_is_there(name: str, result: Result, tmp_path: Path) -> None:
    photo, to = tmp_path / "images" / "3.png", tmp_path / "to"
    photo.rename(tmp_path / "away.png")
    report = write(result, to, name, with_images=True).report
    assert (report["counts"]["images"], report["counts"]["left out: images: image_missing"]) == (5, 1)
    why = "image_missing: 3.png"
    assert report["unread"] == {"images": 1, "first": [{"image_uri": "3.png", "why": why}]}
    assert unread(to) == {"3.png": why}
    before = files_in(to)
    again = write(result, to, name, with_images=True)
    assert (again.groups, again.report) == (0, report)  # it is still missing: nothing to do, and said again
    assert files_in(to) == before
    (tmp_path / "away.png").rename(photo)
    added = write(result, to, name, with_images=True)
    assert (added.groups, added.report["counts"]["images"]) == (1, 6)
    write(result, tmp_path / "whole", name, with_images=True)
    assert files_in(to) == files_in(tmp_path / "whole")


@pytest.mark.parametrize("name", COPYING)
def test_an_image_that_is_another_one_now_is_not_put_beside_its_old_labels(
    name: str, result: Result, tmp_path: Path
) -> None:
    write_photo(tmp_path / "images" / "1.png", (16, 12))
    (tmp_path / "images" / "2.png").write_bytes(b"<html>moved</html>")
    report = write(result, tmp_path / "to", name, with_images=True).report
    assert report["counts"]["images"] == 4
    assert unread(tmp_path / "to") == {
        "1.png": "image_changed: 12x16 pixels, its masks 16x12",
        "2.png": "image_unreadable: no image any more",
    }


def test_an_image_that_lies_on_its_side_has_the_size_that_it_is_seen_in(tmp_path: Path) -> None:
    """Once with the size of its masks as a viewer turns it, once as it is stored."""
    cases = [ImageCase("seen.jpg", (12, 16), [MaskCase(PIXELS)]), ImageCase("stored.jpg", (16, 12))]
    made = make_result(tmp_path, cases)
    turned = Image.Exif()
    turned[0x0112] = 6
    for case in cases:
        Image.new("RGB", (12, 16)).save(tmp_path / "images" / case.uri, exif=turned)
    report = write(made, tmp_path / "to", "webdataset", with_images=True).report
    assert report["unread"] == {"images": 0, "first": []}


def test_the_command_says_so_and_takes_them_from_elsewhere(result: Result, tmp_path: Path, relabel: Cli) -> None:
    (tmp_path / "images").rename(tmp_path / "moved")
    command = ("export", result.store.uri, "--format", "yolo", "--to", tmp_path / "to")
    done = relabel(*command)
    assert done.returncode == 3, done.stderr
    assert "not read: 0.png: image_missing" in done.stdout
    assert "6 images left out" in done.stderr
    assert relabel(*command).returncode == 3
    assert relabel(*command, "--images", tmp_path / "moved").returncode == 0
    assert len(list((tmp_path / "to" / "images").rglob("*.png"))) == 6
    (tmp_path / "moved").rename(tmp_path / "images")
    refused = relabel(*command)
    assert refused.returncode == 2
    assert "different: images_root" in refused.stderr
    assert relabel(*command, "--overwrite").returncode == 0


def test_addresses_of_another_folder_are_another_export(result: Result, tmp_path: Path) -> None:
    target = Store(str(tmp_path / "to"))
    driver.export(result, target, Store("/a"), "label-studio", Options())
    with pytest.raises(RefusedError, match="different: images_root"):
        driver.export(result, target, Store("/b"), "label-studio", Options())
    driver.export(result, target, Store("/b"), "label-studio", Options(), overwrite=True)
    assert "/b/0.png" in json.loads((tmp_path / "to" / "tasks.json").read_text())[0]["data"]["image"].replace("d=", "/")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", EXPORTS)
def test_a_file_that_is_gone_is_written_again(name: str, overwrite: bool, result: Result, tmp_path: Path) -> None:
    options: dict[str, Any] = {"with_images": EXPORTS[name].copies_images}
    write(result, tmp_path / "to", name, **options)
    before = files_in(tmp_path / "to")
    for path in [path for path in before if not path.startswith(".relabel-export") and path != "export.json"][::3]:
        (tmp_path / "to" / path).unlink()
        target, photos = Store(str(tmp_path / "to")), Store(result.manifest.images_root)
        driver.export(result, target, photos, name, Options(**options), overwrite=overwrite)
        assert files_in(tmp_path / "to") == before


def save_map(path: Path, size_hw: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full(size_hw, 255, np.uint8)).save(path)


def test_void_that_cannot_be_had_is_named_and_added_once_it_is_there(
    result: Result, tmp_path: Path, relabel: Cli
) -> None:
    void = tmp_path / "void"
    for n in range(4):
        save_map(void / f"{n}.png", (3, 3) if n == 1 else (12, 16))
    (void / "2.png").write_bytes(b"broken")
    command = ("export", result.store.uri, "--format", "class-maps", "--to", tmp_path / "to", "--void", void)
    done = relabel(*command)
    assert done.returncode == 3, done.stderr
    counts = json.loads((tmp_path / "to" / "export.json").read_text())["counts"]
    assert {what: number for what, number in counts.items() if "void" in what} == {
        "left out: void: map missing": 2,
        "left out: void: map of another size": 1,
        "left out: void: map unreadable": 1,
    }
    assert counts["images"] == 6
    said = unread(tmp_path / "to")
    assert list(said) == ["1.png", "2.png", "4.png", "5.png"]
    assert said["1.png"] == "void map of another size: 1.png has 3x3 pixels, its image 16x12"
    assert said["4.png"] == "void map missing: 4.png"
    refused = relabel(*command[:2], "--format", "coco", "--to", tmp_path / "coco", "--void", void)
    assert refused.returncode == 2
    assert "coco has no place for void; class-maps has" in refused.stderr
    for n in range(6):
        save_map(void / f"{n}.png")
    assert relabel(*command).returncode == 0
    assert all((np.asarray(Image.open(tmp_path / "to" / f"{n}.png")) != 0).all() for n in range(6))


@pytest.mark.parametrize("category", [0, 255, -1])
def test_ids_that_no_class_map_holds_are_refused_before_anything_is_written(category: int, tmp_path: Path) -> None:
    cases = [MaskCase(PIXELS), MaskCase(PIXELS, category, "odd")]
    made = make_result(tmp_path, [ImageCase(f"{n}.png", (12, 16), cases[: n + 1]) for n in range(2)], shards=2)
    write(made, tmp_path / "to", "coco")
    before = files_in(tmp_path / "to")
    with pytest.raises(RefusedError, match=r"category_id.*--where"):
        write(made, tmp_path / "maps", "class-maps")
    assert not files_in(tmp_path / "maps")
    target = Store(str(tmp_path / "to"))
    with pytest.raises(RefusedError, match="category_id"):
        driver.export(made, target, target, "class-maps", Options(), overwrite=True)
    assert files_in(tmp_path / "to") == before
    report = write(made, tmp_path / "maps", "class-maps", where="category_id between 1 and 254").report
    assert report["counts"]["masks"] == 2


@pytest.mark.parametrize(
    ("name", "split"),
    [("huggingface", "train-hard"), ("huggingface", "a."), ("huggingface", "all"), ("yolo", "names"), ("yolo", "path")],
)
def test_splits_that_a_format_cannot_name_are_refused(name: str, split: str, result: Result, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=f"--split: '{split}'"):
        write(result, tmp_path / "to", name, splits=(("train", 0.5), (split, 0.5)))
    assert not files_in(tmp_path / "to")


def test_a_folder_inside_the_output_is_refused(result: Result, tmp_path: Path, relabel: Cli) -> None:
    (tmp_path / "link").symlink_to(result.store.uri)
    for to in (Path(result.store.uri) / "coco", tmp_path / "link" / "coco", Path(result.store.uri)):
        done = relabel("export", result.store.uri, "--format", "coco", "--to", to)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "lies in the output" in done.stderr
    assert not (Path(result.store.uri) / "coco").exists()


def test_a_tar_that_is_damaged_now_is_named_image_by_image(tmp_path: Path) -> None:
    cases = [ImageCase("a.png", (12, 16)), ImageCase("photos.tar#b.png", (12, 16), has_photo=False)]
    made = make_result(tmp_path, cases)
    (tmp_path / "images" / "photos.tar").write_bytes(b"no tar" * 1000)
    report = write(made, tmp_path / "to", "webdataset", with_images=True).report
    assert report["counts"]["images"] == 1
    assert unread(tmp_path / "to")["photos.tar#b.png"].startswith("image_unreadable: photos.tar is ")


def test_an_image_with_megabytes_of_text_is_one(tmp_path: Path) -> None:
    """What refining decodes is no broken file to an export."""
    made = make_result(tmp_path, [ImageCase("a.png", (12, 16), [MaskCase(PIXELS)])])
    text = PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    Image.new("RGB", (16, 12)).save(tmp_path / "images" / "a.png", pnginfo=text)
    assert write(made, tmp_path / "to", "webdataset", with_images=True).report["counts"]["images"] == 1
