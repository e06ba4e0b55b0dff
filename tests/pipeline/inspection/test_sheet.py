"""What is drawn: the mask where it is, each category in a colour of its own, and red for what would fail."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.inspection.look import Asked, Found, look
from pipeline.inspection.page import page
from pipeline.inspection.sheet import CAPTION_PX, TILE_PX, contact_sheet
from pipeline.inspection.views import FAILED_RGB, View, drawn, views
from tests.field.world import BOX, SIZE_HW, coco, put, put_images, square
from tests.pipeline.report.conftest import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GREY = 120


def found_in(tmp_path: Path, name: str = "thing") -> Found:
    """Two images: one with a mask of each of two categories, one whose mask is of another frame."""
    for image in ("a.png", "b.png"):
        put(tmp_path / "images" / image, np.full((*SIZE_HW, 3), GREY, np.uint8))
    height, width = SIZE_HW
    ring = [4, 4, 12, 4, 12, 12, 4, 12]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [ring], "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 1},
    ]
    content = coco(
        {"file_name": "a.png"},
        {"file_name": "b.png", "height": height * 2, "width": width * 2},
        annotations=annotations,
    )
    content["categories"] = [{"id": 1, "name": name}, {"id": 2, "name": "other"}]
    put(tmp_path / "coarse.json", content)
    return look(Asked(images=str(tmp_path / "images"), masks=str(tmp_path / "coarse.json"), sample=4))


def tinted(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Pixels that are not the photograph's any more."""
    return np.asarray((picture.astype(int) - GREY != 0).any(axis=2))


def test_a_mask_is_drawn_where_it_is(tmp_path: Path) -> None:
    first, second = views(found_in(tmp_path).seen)
    picture = drawn(first, SIZE_HW[1])
    assert picture is not None
    changed = tinted(picture)
    top, bottom, left, right = BOX
    inside = np.zeros(SIZE_HW, bool)
    inside[top:bottom, left:right] = inside[4:13, 4:13] = True
    assert changed[square() > 0].all()
    grown = np.pad(inside, 2)
    around = np.logical_or.reduce([np.roll(grown, (y, x), (0, 1)) for y in range(-2, 3) for x in range(-2, 3)])
    assert not changed[~around[2:-2, 2:-2]].any()
    colours = {mask.category: mask.colour_rgb for mask in first.masks}
    assert len({*colours.values(), FAILED_RGB}) == 3
    assert tuple(picture[20, 40]) == tuple(int(0.75 * GREY + 0.25 * c) for c in colours["thing"])
    assert [(mask.problem, mask.colour_rgb) for mask in second.masks] == [("mask_size_mismatch", FAILED_RGB)]
    assert second.failed
    assert not first.failed


def test_the_sheet_is_a_png_of_all_of_them(tmp_path: Path) -> None:
    shown = views(found_in(tmp_path).seen)
    gone = View("gone \u2028 <b>.jpg" * 20, None, None, failed=True, notes=["image_missing: not there"])
    data = contact_sheet("a title", [*shown, gone])
    assert data == contact_sheet("a title", [*shown, gone])
    sheet = Image.open(io.BytesIO(data))
    assert sheet.width >= 2 * TILE_PX
    assert sheet.height >= TILE_PX * SIZE_HW[0] / SIZE_HW[1] + 2 * CAPTION_PX
    assert FAILED_RGB in {colour for _, colour in sheet.getcolors(1 << 24)}


def test_an_end_of_a_line_in_a_name(tmp_path: Path) -> None:
    shown = views(found_in(tmp_path, "thing\nof two lines").seen)
    gone = View("a\nb.jpg", None, None, failed=True, notes=["image_missing: not there"])
    assert Image.open(io.BytesIO(contact_sheet("a\ntitle", [*shown, gone]))).width >= 2 * TILE_PX


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_the_page_draws_itself_and_runs_nothing_of_the_data(tmp_path: Path) -> None:
    found = found_in(tmp_path, HOSTILE[0])
    path = put(tmp_path / "sheet.html", page(found, views(found.seen), 0))
    assert "http" not in path.read_text().replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    switches = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom --virtual-time-budget=3000"
    command = [str(CHROMIUM), *switches.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert dom.count('class="card"') == 2
    assert dom.count('class="mask-line crowd"') == 1
    assert dom.count('class="mask-line"') == 2
    assert "&lt;/script&gt;" in dom


def test_a_page_of_a_refused_dataset_says_why(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "cat.jpg")
    (tmp_path / "masks").mkdir()
    found = look(Asked(images=str(tmp_path / "images"), masks=str(tmp_path / "masks"), sample=4))
    assert ": the folder is empty" in page(found, [], 0)
