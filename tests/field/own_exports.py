"""What this project exports is one of the things that it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.sources import detect
from tests.field.world import run
from tests.pipeline.exports.results import ImageCase, MaskCase, expected, make_result, read_back, write


def check_own_export_comes_back(folder: Path, name: str, file: str) -> None:
    """Masks of noise under names that need care: every pixel, every name, the masks' own ids. file: of the export."""
    chance = np.random.default_rng(1)
    cases = [
        ImageCase(
            f"sub/{number} é.png",
            size,
            [
                MaskCase(chance.integers(0, 2, size, dtype=np.uint8), category, label)
                for category, label in ((5, 'a "cat" & <co>'), (3, "dog"))
            ],
        )
        for number, size in enumerate([(12, 16), (31, 7), (40, 41)])
    ]
    result = make_result(folder, cases)
    write(result, folder / "to", name)
    path = folder / "to" / file
    assert detect(str(path)) == name
    assert read_back(name, path, folder / "images") == expected(cases)
    again = run(folder / "images", path, folder / "again")
    assert {row["source_mask_id"] for row in again.masks} == {row["mask_id"] for row in result.masks().to_pylist()}
