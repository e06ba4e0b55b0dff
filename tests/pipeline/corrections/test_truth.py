"""Masks that people corrected are a truth to calibrate on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from pipeline.calibration.sample import read_corrections
from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.storage import Access
from pipeline.verify.check import verify
from tests.pipeline.corrections.way_back import (
    CROWD,
    DRAWN,
    GONE,
    LEFT,
    MOVED,
    as_polygon,
    back,
    edit,
    edited,
    exported,
    ids,
    relabel,
    rows,
)
from tests.pipeline.outputs import Output


def test_corrections_are_a_truth_to_calibrate_on(output: Output, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no correction of a refined mask"):
        read_corrections(output.store.uri, Access())
    path = edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root))
    for name, seen, masks in (("changed", False, {MOVED, LEFT}), ("seen", True, {MOVED, LEFT, *ids(output)})):
        back(output, path, name=name, seen=seen)
        sample = read_corrections(output.store.uri, Access()).sample
        assert {row["source_mask_id"] for row in sample.rows} == masks - {CROWD, GONE}
        found = dict(zip((row["source_mask_id"] for row in sample.rows), sample.refined_iou, strict=True))
        row = rows(output)[MOVED]
        assert found[MOVED] == binary.iou(binary.decode(row["refined_rle"]), binary.decode(DRAWN))
        kept = rows(output)[LEFT]
        assert found[LEFT] == (1.0 if kept["mask_rle"] == kept["refined_rle"] else binary.iou(*sides(kept)))
    few = relabel("calibrate", output.folder, "--corrections", "--output", tmp_path / "c.json")
    assert "too few masks to calibrate" in str(few.exception)


def sides(row: dict[str, Any]) -> tuple[binary.Mask, binary.Mask]:
    return binary.decode(row["refined_rle"]), binary.decode(row["mask_rle"])


def test_a_calibration_is_fitted_to_corrections(tmp_path: Path) -> None:
    output = Output(tmp_path / "out", chunk_images=64)
    output.plan(dict.fromkeys(range(80), (3, 97)))
    output.refine(output.pending())
    output.seal()

    def redraw(root: Element) -> None:
        for number, image in enumerate(root.iter("image")):
            as_polygon(image[0], [3, 3, 10 + number % 8, 3, 10 + number % 8, 9 + number % 4, 3, 9 + number % 4])

    back(output, edited(exported(output, tmp_path / "cvat", "cvat"), redraw))
    to = tmp_path / "calibration.json"
    done = relabel("calibrate", output.folder, "--corrections", "--output", to)
    assert done.exit_code == 0, done.output
    assert 30 <= json.loads(to.read_text())["fitted_on"]["masks"] <= 240
    resealed = relabel("seal", output.folder, "--calibration", to)
    assert resealed.exit_code == 0, resealed.output
    assert verify(output.store.uri, Access()).findings == []
