"""A result of many masks over real photographs, to see what a page of it costs.

    python -m tests.pipeline.report.large FOLDER 100000

writes it to FOLDER/out and says so. The demo's photographs stand under many names; masks are ellipses of all sizes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np

from tests.conftest import DEMO
from tests.results import Row, ellipse, mask_row, write_result

MASKS_PER_IMAGE = 4
SHARD_ROWS = 20_000
SHAPES = 40  # of each photograph; outlines are drawn from these
DECISIONS = ("refined", "refined", "refined", "refined", "kept_coarse", "refined", "review", "failed")


def write_large(folder: Path, masks: int) -> Path:
    """The folder of a result with so many masks, four an image; hard links of the demo's photographs."""
    random = np.random.default_rng(0)
    photos = sorted((DEMO / "images").glob("*.jpg"))
    shapes = {photo.name: _shapes(photo, random) for photo in photos}
    (folder / "photos").mkdir(parents=True)
    rows: list[Row] = []
    for number in range(masks):
        photo = photos[number // MASKS_PER_IMAGE % len(photos)]
        name = f"{number // MASKS_PER_IMAGE:07d}.jpg"
        if number % MASKS_PER_IMAGE == 0:
            _link(photo, folder / "photos" / name)
        rows.append(_row(name, number, shapes[photo.name][int(random.integers(SHAPES))], random))
    shards = [rows[first : first + SHARD_ROWS] for first in range(0, masks, SHARD_ROWS)]
    write_result(folder / "out", shards, str(folder / "photos"), row_group_rows=2000)
    return folder / "out"


def _link(photo: Path, to: Path) -> None:
    try:
        os.link(photo, to)
    except OSError:  # another file system
        to.symlink_to(photo)


def _shapes(photo: Path, random: np.random.Generator) -> list[Row]:
    """Rows to copy: coarse and refined ellipses in the photograph's size."""
    height, width = cv2.imread(str(photo)).shape[:2]
    found = []
    for number in range(SHAPES):
        centre = int(random.integers(width)), int(random.integers(height))
        shape = ellipse(centre, int(random.integers(5, 200)), float(random.uniform(0, 180)), (height, width))
        shape[height // 2, width // 2] = 1
        moved = np.roll(shape, int(random.integers(1, 12)), axis=int(random.integers(2)))
        found.append(mask_row(photo.name, number, moved, shape))
    return found


def _row(name: str, number: int, drawn: Row, random: np.random.Generator) -> Row:
    decision = DECISIONS[number % len(DECISIONS)]
    kept = None if decision == "failed" else drawn["refined_rle" if decision == "refined" else "coarse_rle"]
    quality = float(random.beta(8, 2))
    said = {"image_id": name, "image_uri": name, "mask_id": random.bytes(16).hex(), "source_mask_id": str(number)}
    scores = {"quality": quality if kept else None, "quality_coarse": quality * 0.9, "coarse_iou": drawn["coarse_iou"]}
    what = {"decision": decision, "reason": "mask_empty" if kept is None else "improved", "mask_rle": kept}
    return drawn | said | scores | what | {"category": f"category {number * number % 97}"}


if __name__ == "__main__":
    print(write_large(Path(sys.argv[1]), int(sys.argv[2])))
