"""What a card shows: the photograph's crop, outlines that are the masks', and why there is none."""

from __future__ import annotations

import base64
import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import Result
from pipeline.masks import binary
from pipeline.report.gallery import VIEW_PX, gallery, outline
from tests.results import ellipse


def rasterised(path: str, size_wh: tuple[int, int]) -> np.ndarray:
    """An even-odd SVG path of M, l and z, filled."""
    canvas = np.zeros(size_wh[::-1], np.uint8)
    for part in re.findall(r"M([^z]*)z", path):
        points = [[int(n) for n in pair.split()] for pair in re.split("l", part)]
        layer = np.zeros_like(canvas)
        cv2.fillPoly(layer, [np.cumsum(points, axis=0).astype(np.int32)], 1)
        canvas ^= layer
    return canvas


@pytest.mark.parametrize("side", [40, 900])
def test_an_outline_is_the_masks(side: int) -> None:
    """Small masks are magnified, large ones reduced; holes and parts stay."""
    mask = ellipse((side // 2, side // 2), side // 3, 20, (side, side))
    mask[side // 2 - side // 10 : side // 2 + side // 10, side // 2 - side // 10 : side // 2 + side // 10] = 0
    mask[: side // 12, : side // 12] = 1
    path = outline(mask, (VIEW_PX, VIEW_PX))
    assert path.count("M") == 3
    wanted = cv2.resize(mask, (VIEW_PX, VIEW_PX), interpolation=cv2.INTER_NEAREST)
    assert binary.iou(rasterised(path, (VIEW_PX, VIEW_PX)), wanted) > 0.97
    assert outline(np.zeros((9, 9), np.uint8), (20, 20)) == ""


def test_items_carry_picture_outlines_and_reasons(result: Result) -> None:
    table = result.masks().to_pylist()
    items = {item["id"]: item for item in gallery(result, {row["mask_id"]: ["random"] for row in table}, None)}
    assert list(items) == [row["mask_id"] for row in table]
    for row in table:
        item = items[row["mask_id"]]
        if row["image_uri"].startswith("gone"):
            assert item["problem"] == "image_missing"
            assert "image" not in item
            continue
        picture = Image.open(io.BytesIO(base64.b64decode(item["image"].partition(",")[2])))
        assert item["image"].startswith("data:image/webp;base64,")
        assert picture.width <= item["width"] <= VIEW_PX
        assert abs(picture.width / picture.height - item["width"] / item["height"]) < 0.02
        assert item["coarse"].startswith("M")
        assert (item["refined"] is None) == (row["decision"] == "failed")
        assert item["quality"] == (None if row["quality"] is None else pytest.approx(row["quality"], abs=1e-4))
