"""A small result with every decision, hostile names in it, and one photograph that is gone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import Result
from pipeline.masks import binary
from tests.results import Row, ellipse, mask_row, write_photo, write_result

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "{{7*7}}\u2028]]>--><!--",
]
SIZE_HW = (120, 160)
PHOTOS = 6


def rows_of(number: int) -> list[Row]:
    """Three masks of one photograph: refined, kept coarse, failed."""
    name = f"{'gone' if number == PHOTOS - 1 else 'photo'} {number} <b>&amp;.png"
    shapes = [ellipse((40 + 35 * k, 50 + 3 * number), 18 + number, 25 * k, SIZE_HW) for k in range(3)]
    category = HOSTILE[number % 4] if number < 4 else "plain cat"
    shared = {"category": category, "predicted_iou": 0.8, "stability": 0.9}
    quality = 0.95 - 0.07 * number
    return [
        mask_row(name, 3 * number + 0, np.roll(shapes[0], 1 + number, 1), shapes[0], quality=quality, **shared),
        mask_row(
            name,
            3 * number + 1,
            shapes[1],
            np.roll(shapes[1], 9, 0),
            decision="kept_coarse",
            quality=quality - 0.3,
            **shared,
        ),
        mask_row(
            name,
            3 * number + 2,
            shapes[2],
            shapes[2],
            decision="failed",
            reason="mask_unreadable",
            quality=None,
            **shared,
        ),
    ]


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("report")
    images = [rows_of(number) for number in range(PHOTOS)]
    for rows in images[:-1]:
        shapes = [binary.decode(row["coarse_rle"]) for row in rows]
        write_photo(folder / "photos" / rows[0]["image_uri"], shapes, len(shapes[0]))
    shards = [[row for rows in part for row in rows] for part in (images[:4], images[4:])]
    return write_result(folder / "out", shards, str(folder / "photos"))


@pytest.fixture(scope="session")
def truth(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """True masks of the first photograph."""
    path = tmp_path_factory.mktemp("truth") / "truth.json"
    rows = rows_of(0)[:2]
    image = {"id": 1, "file_name": rows[0]["image_uri"], "height": SIZE_HW[0], "width": SIZE_HW[1]}
    annotations = [
        {"id": int(row["source_mask_id"]), "image_id": 1, "category_id": 1, "segmentation": row["refined_rle"]}
        for row in rows
    ]
    path.write_text(json.dumps({"images": [image], "annotations": annotations}))
    return path
