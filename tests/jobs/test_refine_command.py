"""`relabel refine` on files, folders and globs: what belongs together, what is written, what is said of the rest."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from jobs import cli, console
from pipeline.errors import RelabelError
from pipeline.masks import binary
from tests.conftest import DEMO

Refine = Callable[..., Result]
QUICK = ("--refiner", "grabcut")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small photographs: chelsea with two masks in a folder of its own, coffee with one file; some strays."""
    root = tmp_path_factory.mktemp("folders")
    (root / "photos").mkdir()
    content = json.loads((DEMO / "coarse.json").read_text())
    for name, wanted in (("chelsea", 2), ("coffee", 1)):
        with Image.open(DEMO / "images" / f"{name}.jpg") as photo:
            photo.resize((photo.width // 2, photo.height // 2)).save(root / "photos" / f"{name}.jpg")
        [image] = [one for one in content["images"] if one["file_name"] == f"{name}.jpg"]
        own = [one for one in content["annotations"] if one["image_id"] == image["id"]][:wanted]
        for one in own:
            mask = binary.decode(binary.from_polygons(one["segmentation"], (image["height"], image["width"])))
            path = root / "masks" / (f"{name}.png" if wanted == 1 else f"{name}/{one['id']}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask[::2, ::2] * 255).resize((image["width"] // 2, image["height"] // 2)).save(path)
    return root


@pytest.fixture
def refine(monkeypatch: pytest.MonkeyPatch) -> Refine:
    """The command in this process, where the model is loaded once for all tests; errors are raised."""

    def run(*arguments: str | Path) -> Result:
        told = io.StringIO()
        for name in ("out", "err"):
            monkeypatch.setattr(console, name, console.Screen(file=told))
        done = CliRunner().invoke(cli.app, ["refine", *map(str, arguments)])
        if isinstance(done.exception, RelabelError):
            raise done.exception
        done.told = told.getvalue()  # type: ignore[attr-defined]
        return done

    return run


def test_a_folder_is_refined_mask_by_mask(folders: Path, tmp_path: Path, refine: Refine) -> None:
    done = refine(
        folders / "photos", folders / "masks", "--output", tmp_path / "out", "--picture", tmp_path / "pictures",
        "--picture-format", "webp", *QUICK,
    )  # fmt: skip
    assert done.exit_code == 0, done.told
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {path.relative_to(folders / "masks").as_posix() for path in (folders / "masks").rglob("*.png")}
    for name in written:
        refined = np.asarray(Image.open(tmp_path / "out" / name)) > 0
        assert binary.iou(refined, np.asarray(Image.open(folders / "masks" / name)) > 0) > 0.4, name
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["chelsea.webp", "coffee.webp"]
    assert Image.open(tmp_path / "pictures" / "coffee.webp").n_frames == 3  # image, coarse, refined
    assert "3 masks of 2 images: " in done.told
    assert done.told.count("no estimate of quality") == 3  # GrabCut gives none


def test_what_is_not_used_is_named(folders: Path, tmp_path: Path, refine: Refine) -> None:
    shutil.copytree(folders, tmp_path / "in")
    photos, masks = tmp_path / "in" / "photos", tmp_path / "in" / "masks"
    shutil.copy(photos / "coffee.jpg", photos / "tea.jpg")
    shutil.copy(masks / "coffee.png", masks / "stray.png")
    (masks / "notes.csv").write_text("a,b")
    Image.new("L", (10, 10), 255).save(masks / "chelsea" / "99.png")
    done = refine(photos, masks, "--output", tmp_path / "out", *QUICK)
    assert done.exit_code == 3
    assert "mask not used: stray.png: no image of that name" in done.told
    assert "mask not used: notes.csv: no image file" in done.told
    assert "image not used: tea.jpg: no mask of that name" in done.told
    assert f"failed: mask_size_mismatch: {masks / 'chelsea' / '99.png'} has (height, width) (10, 10)" in done.told
    assert "4 masks of 2 images: " in done.told
    assert "1 failed" in done.told
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


def test_globs_and_one_image_with_a_folder(folders: Path, tmp_path: Path, refine: Refine) -> None:
    done = refine(f"{folders}/ph*/cof*.jpg", f"{folders}/masks/*.png", "--output", tmp_path / "a", *QUICK)
    assert done.exit_code == 0, done.told
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["coffee.png"]
    done = refine(folders / "photos" / "chelsea.jpg", folders / "masks", "--output", tmp_path / "b", *QUICK)
    assert done.exit_code == 0, done.told  # the masks of other images are not meant
    assert len(list((tmp_path / "b" / "chelsea").iterdir())) == 2


def test_images_and_masks_in_one_folder(folders: Path, tmp_path: Path, refine: Refine) -> None:
    shutil.copy(folders / "photos" / "coffee.jpg", tmp_path)
    shutil.copy(folders / "masks" / "coffee.png", tmp_path / "coffee_mask.png")
    done = refine(tmp_path, tmp_path, "--output", tmp_path / "out", *QUICK)
    assert done.exit_code == 0, done.told
    assert (tmp_path / "out" / "coffee_mask.png").exists()


def test_a_gif_for_one_image(folders: Path, tmp_path: Path, refine: Refine) -> None:
    photo, mask = folders / "photos" / "coffee.jpg", folders / "masks" / "coffee.png"
    done = refine(photo, mask, "--output", tmp_path / "x.png", "--picture", tmp_path / "x.gif", *QUICK)
    assert done.exit_code == 0, done.told
    with Image.open(tmp_path / "x.gif") as picture:
        assert picture.n_frames == 3
        assert picture.width >= Image.open(photo).width


def test_what_takes_no_file_is_told_in_one_line(folders: Path, refine: Refine) -> None:
    photo, mask = folders / "photos" / "coffee.jpg", folders / "masks" / "coffee.png"
    with pytest.raises(RelabelError, match=r"cannot write /proc/1/x\.png: "):
        refine(photo, mask, "--output", "/proc/1/x.png", *QUICK)


@pytest.mark.parametrize(
    ("image", "mask", "options", "words"),
    [
        ("photos/coffee.jpg", "masks/coffee.png", ["--output", "masks/coffee.png"], "written over an input"),
        ("photos", "masks", ["--output", "masks"], "written over an input"),
        ("photos", "masks", ["--output", "new", "--picture", "new"], "both a mask and a picture"),
        ("photos", "masks", ["--output", "x", "--picture", "y", "--picture-format", "bmp"], "has to end in one of"),
        ("photos/coffee.jpg", "masks/coffee.png", ["--output", "photos"], "photos is a folder: name a file"),
        ("photos/coffee.jpg", "masks/coffee.png", ["--output", "x", "--picture", ""], "is a folder: name a file"),
        ("photos/coffee.jpg", "masks/coffee.png", ["--output", "photos/coffee.jpg/x"], "coffee.jpg is a file; name a"),
        ("photos", "nowhere", ["--output", "x"], "cannot read the mask nowhere"),
        ("photos/*.tiff", "masks", ["--output", "x"], "no image at photos/*.tiff"),
        ("photos", "masks/chelsea", ["--output", "x"], "masks are named after their images"),
        ("photos", "photos", ["--output", "x"], "name a folder or a glob for each"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_is_loaded(
    image: str,
    mask: str,
    options: list[str],
    words: str,
    folders: Path,
    refine: Refine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folders)
    with pytest.raises(RelabelError, match=words.replace("*", r"\*")):
        refine(image, mask, *options)
    assert not (folders / "x").exists()
