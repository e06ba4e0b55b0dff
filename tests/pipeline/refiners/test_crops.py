"""Crops of large photographs: how they are loaded for them, and that this changes little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.configuration import resolve
from pipeline.masks import binary
from pipeline.masks.views import crop_pixels
from pipeline.models import load_model
from pipeline.models.registry import LITE
from pipeline.models.weights import resolve as resolve_weights
from pipeline.planning.increment import read_chunk, read_plan
from pipeline.refiners import load_side
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Inputs
from pipeline.storage import Access, Store
from schemas.config import Method
from tests.conftest import DEMO
from tests.pipeline.whole import coco, run_here

TIMES = 5  # as large as the demo's photograph of a cup: 3000 by 2000 pixels
BEST = resolve("best").method


@pytest.fixture
def photograph(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with one large photograph, and COCO with the spoon and a saucer's part, drawn roughly."""
    folder = tmp_path / "images"
    folder.mkdir()
    image = Image.open(DEMO / "images" / "coffee.jpg")
    size = (TIMES * image.width, TIMES * image.height)
    image.resize(size, Image.Resampling.BICUBIC).save(folder / "coffee.jpg", quality=95)
    boxes = [[360, 90, 480, 90, 480, 150, 360, 150], [150, 60, 320, 60, 320, 200, 150, 200]]
    masks = [{"image_id": 0, "segmentation": [[TIMES * value for value in one]], "iscrowd": 0} for one in boxes]
    file = {"file_name": "coffee.jpg", "height": size[1], "width": size[0]}
    return folder, coco(tmp_path / "coarse.json", [file], masks)


def refined(photograph: tuple[Path, Path], output: Path, method: Method) -> list[binary.Mask]:
    model = load_model("lite", resolve_weights("lite", None, Access()), "cpu", 1)
    rows = run_here(*photograph, output, model, method).masks().to_pylist()
    return [binary.decode(row["refined_rle"]) for row in sorted(rows, key=lambda row: str(row["source_mask_id"]))]


def loaded(output: Path, images: Path, method: Method) -> pa.Table:
    store = Store(str(output))
    [chunk] = read_plan(store).chunks
    side = load_side(method, LITE.input_side)
    return chunk_work.load(read_chunk(store, chunk), Inputs(Store(str(images)), None), method, side, 1)


def test_a_large_photograph_is_loaded_at_four_of_the_models_sides(
    photograph: tuple[Path, Path], tmp_path: Path
) -> None:
    """And its masks are almost those of crops of the photograph itself."""
    whole = BEST.model_copy(update={"crop_sides": 0})
    no_crop = BEST.model_copy(update={"crop_ratio": 0.0})
    few, all_pixels, none = (
        refined(photograph, tmp_path / name, method)
        for name, method in (("few", BEST), ("all", whole), ("none", no_crop))
    )
    assert loaded(tmp_path / "few", photograph[0], BEST)["pixels_hw"].to_pylist() == [[1365, 2048]]
    assert loaded(tmp_path / "all", photograph[0], whole)["pixels_hw"].to_pylist() == [[2000, 3000]]
    assert loaded(tmp_path / "none", photograph[0], no_crop)["pixels_hw"].to_pylist() == [[341, 512]]
    for one, other, without in zip(few, all_pixels, none, strict=True):
        assert one.shape == (2000, 3000)
        assert binary.iou(one, other) > 0.98
        assert (one != without).any()  # the crop had a say


def test_a_crop_of_a_reduction_shows_what_a_crop_of_the_image_does() -> None:
    size_hw, window, input_hw = (600, 900), (101, 203, 322, 351), (86, 128)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    image = np.dstack([x / 4, y / 3, (x + y) / 6]).astype(np.uint8)
    reduced = np.asarray(Image.fromarray(image).resize((450, 300), Image.Resampling.BILINEAR))
    expected = np.asarray(Image.fromarray(crop_pixels(image, window, size_hw, input_hw)).resize(input_hw[::-1]))
    found = crop_pixels(reduced, window, size_hw, input_hw)
    assert found.shape == (*input_hw, 3)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2
