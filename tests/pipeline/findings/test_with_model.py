"""What a model finds: objects that no mask covers, and masks that look like another class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.dataset import open_result
from pipeline.dataset.samples import Photos
from pipeline.errors import RefusedError
from pipeline.findings import by_model, proposals
from pipeline.findings.classes import FEWEST, misfits
from pipeline.findings.find import Asked, find
from pipeline.masks import binary
from pipeline.models import MaskModel
from pipeline.report.page import report
from pipeline.storage import Access
from tests.results import ellipse, mask_row, write_photo, write_result

SIZE_HW = (120, 160)
LEFT, RIGHT = ellipse((40, 60), 24, 0, SIZE_HW), ellipse((115, 60), 28, 0, SIZE_HW)


def both(image: str, number: int, mask: np.ndarray, **values: Any) -> dict[str, Any]:
    return mask_row(image, number, mask, mask, **values)


@pytest.fixture(scope="module")
def lite() -> MaskModel:
    return by_model.model_for("lite", None, Access(), "cpu", 1)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects on a photograph; the right one has no mask, the ground is a crowd. Another cannot be read."""
    folder = tmp_path_factory.mktemp("seen")
    write_photo(folder / "photos" / "0.png", [LEFT, RIGHT], 0)
    (folder / "photos" / "1.png").write_bytes(b"no photograph")
    ground = 1 - np.maximum(LEFT, cv2.dilate(RIGHT, np.ones((15, 15), np.uint8)))
    rows = [both("0.png", 0, LEFT), both("0.png", 1, ground, crowd=True), both("1.png", 0, LEFT)]
    write_result(folder / "out", [rows], str(folder / "photos"))
    return folder / "out"


def test_an_object_that_no_mask_covers(output: Path, lite: MaskModel) -> None:
    looked = find(str(output), Asked(("uncovered",), model=lite), Access())
    rows = looked.table.to_pylist()
    assert {row["image_id"] for row in rows} == {"0.png"}
    assert max(binary.iou(binary.decode(row["rle"]), RIGHT) for row in rows) > 0.7
    assert [row["certainty"] for row in rows] == sorted((row["certainty"] for row in rows), reverse=True)
    assert all(row["mask_id"] is None and row["action"] == "add" for row in rows)
    assert (looked.unseen, looked.images) == (1, 2)
    assert "uncovered" in report(str(output)).html


def test_nothing_is_proposed_where_everything_is_covered(lite: MaskModel) -> None:
    pixels = np.zeros((*SIZE_HW, 3), np.uint8)
    embedding = lite.encode([pixels])
    assert proposals.proposals(lite, embedding, SIZE_HW, [np.ones(SIZE_HW, np.uint8)]) == []


def test_windows_are_where_masks_are_not() -> None:
    taken = np.zeros((100, 100), np.uint8)
    taken[:, :50] = 1
    boxes = proposals.windows((100, 100), taken)
    assert boxes.shape[1] == 4
    assert boxes.min() >= 0
    assert boxes.max() <= 99
    shares = [taken[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1].mean() for x1, y1, x2, y2 in boxes]
    assert max(shares) <= 0.5
    assert proposals.windows((100, 100), np.ones((100, 100), np.uint8)).shape == (0, 4)


def test_an_embedding_is_the_mean_under_the_mask() -> None:
    features = np.zeros((2, 2, 4), np.float32)
    features[0, :, :2], features[1] = 1, 5
    mask = np.zeros((8, 16), np.uint8)
    mask[:, 6:10] = 1  # half of it on cells of 1
    assert by_model.embedding_of(features, mask).tolist() == pytest.approx([0.5, 5])


def clusters() -> tuple[np.ndarray, list[str]]:
    random = np.random.default_rng(0)
    names = [*["cup"] * 30, *["plate"] * 30, *["rare"] * (FEWEST - 1)]
    centres = {"cup": (4, 0), "plate": (0, 4), "rare": (4, 4)}
    noise = random.normal(0, 1, (len(names), 8)) * (1, 1, 9, 9, 9, 9, 9, 9)  # most directions tell nothing
    embeddings = np.array([(*centres[name], *[0] * 6) for name in names] + noise, np.float32)
    return embeddings, names


def test_masks_that_look_like_another_class() -> None:
    embeddings, names = clusters()
    names[3], names[40] = "plate", "cup"
    found = sorted(misfits(embeddings, names), key=lambda one: one.own - one.alike)
    assert {(one.mask, one.other) for one in found[:2]} == {(3, "cup"), (40, "plate")}
    assert len(found) < 10
    assert all(one.alike > one.own and names[one.mask] != "rare" for one in found)
    assert list(misfits(embeddings, ["cup"] * len(names))) == []


def test_masks_are_read_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, names = clusters()
    names[3] = "plate"
    whole = list(misfits(embeddings, names))
    monkeypatch.setattr("pipeline.findings.classes.ROWS", 7)
    parts = list(misfits(embeddings, names))
    assert [one[:2] for one in parts] == [one[:2] for one in whole]
    assert [one.own for one in parts] == pytest.approx([one.own for one in whole])


def test_a_class_that_is_found_wrong(output: Path, lite: MaskModel, tmp_path: Path) -> None:
    """Embeddings of the model's own: dark and bright squares, one of them under the other's name."""
    photos = Photos.of(open_result(str(output)), str(tmp_path))
    view = by_model.ModelView(lite, photos, tmp_path, uncovered=False, classes=True)
    square = np.zeros(SIZE_HW, np.uint8)
    square[40:80, 60:100] = 1
    for number in range(16):
        name = f"{number}.png"
        bright = number % 2
        write_photo(tmp_path / name, [square if bright else np.zeros(SIZE_HW, np.uint8)], number)
        category = "bright" if bright != (number == 6) else "dark"
        row = both(name, 0, square, category=category, crowd=False)
        assert list(view.findings({**row, "status": "ok"}, [row])) == []
    [found] = [one.row() for one in view.misfits() if one.certainty > 0.2]
    assert (found["image_id"], found["category"], found["other_category"]) == ("6.png", "bright", "dark")
    assert found["action"] == "class"
    assert found["detail"].startswith("looks like dark: ")


def test_the_command_adds_nothing_by_itself(output: Path, tmp_path: Path) -> None:
    def relabel(*words: str | Path) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    patches = tmp_path / "patches.json"
    given = ("findings", output, "--with-model", "lite", "--device", "cpu", "--threads", "1")
    done = relabel(*given, "--as-patches", patches, "--accept-above", "0")
    assert done.exit_code == 3, done.output
    assert "not shown to the model: 1 image" in done.output
    content = json.loads(patches.read_text())
    added = [one for one in content["patches"] if one["action"] == "add"]
    assert added
    assert {one["verdict"] for one in added} == {""}
    added[0] |= {"verdict": "yes", "category": "cup"}
    patches.write_text(json.dumps({**content, "patches": added[:1]}))
    assert relabel("patch", output, "--from", patches).exit_code == 0


def test_what_needs_a_model_is_refused_without(output: Path) -> None:
    with pytest.raises(RefusedError, match="--kind uncovered needs a model that looks for it: --with-model NAME"):
        find(str(output), Asked(("uncovered",)), Access())
    with pytest.raises(RefusedError, match="--with-model none: objects are looked for with a model that is prompted"):
        by_model.model_for("none", None, Access(), "cpu", 1)


def test_free_regions_are_between_masks() -> None:
    """A hole of an object's size; not the gap of two pixels beside it, nor an image without a mask."""
    taken = np.ones((100, 200), np.uint8)
    taken[30:60, 40:80] = 0
    taken[:, 100:102] = 0
    [region] = proposals.free_regions(taken)
    assert binary.iou(region, 1 - taken) > 0.85
    assert not region[:, 100:102].any()
    assert proposals.free_regions(np.zeros((50, 50), np.uint8)) == []
