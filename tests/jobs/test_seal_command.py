"""`relabel calibrate` and `relabel seal` on a result of many small photographs, refined by a model without weights."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.configuration import resolve
from pipeline.dataset import open_result
from pipeline.masks import binary
from pipeline.output.seal import SealRequest, seal
from pipeline.planning.increment import ChunkLimits, plan, read_chunk, read_plan
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Inputs, Task
from pipeline.review import verdicts
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
from pipeline.storage.documents import run_store
from schemas import layout
from schemas.config import Gate, fingerprint, to_yaml
from tests.conftest import Cli
from tests.fakes import FakeModel
from tests.pipeline.review.test_verdicts import download

IMAGES, SIDE = 90, 64


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An output sealed without calibration, and its ground truth."""
    folder = tmp_path_factory.mktemp("result")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, truths, coarse = [], [], []
    for number in range(IMAGES):
        name = f"{number}.png"
        images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / name), pixels)
        truth = np.zeros((SIDE, SIDE), np.uint8)
        cv2.circle(truth, (32, 32), 18, 1, -1)
        given = np.roll(truth, int(rng.integers(0, 8)), axis=1)
        entry = {"id": number, "image_id": number, "category_id": 1}
        truths.append({**entry, "segmentation": binary.encode(truth)})
        coarse.append({**entry, "segmentation": binary.encode(given)})
    categories = [{"id": 1, "name": "thing"}]
    for name, content in (("truth", truths), ("coarse", coarse)):
        coco = {"images": images, "categories": categories, "annotations": content}
        (folder / f"{name}.json").write_text(json.dumps(coco))
    _refine(folder)
    return folder / "out", folder / "truth.json"


def _refine(folder: Path) -> None:
    output, photos = Store(str(folder / "out")), Store(str(folder / "images"))
    config = resolve("fast")
    listed = {file.path: file for file in photos.list()}
    plan(
        output,
        scan("coco", SourceInput(str(folder / "coarse.json"), Access(), listed)),
        listed,
        ChunkLimits(32, 1 << 30),
    )
    run = run_store(output, fingerprint(config.method))
    run.put(layout.CONFIG, to_yaml(config).encode())
    for chunk in read_plan(output).chunks:
        loaded = chunk_work.load(read_chunk(output, chunk), Inputs(photos, None), config.method, 1024, 2)
        part = chunk_work.refine(loaded, FakeModel(), config.method)
        chunk_work.write(part, Task(chunk, chunk.images), run, "test; 1 threads")
    request = SealRequest(
        output=output,
        fingerprint=fingerprint(config.method),
        gate=Gate(calibration="none"),
        calibration=None,
        shard_bytes=1 << 20,
        images_root=photos.uri,
    )
    seal(request)


def test_calibrate_then_seal_makes_a_new_generation_without_a_model(
    result: tuple[Path, Path], relabel: Cli, tmp_path: Path
) -> None:
    output, truth = result
    before = open_result(str(output))
    refined_before = before.masks()["refined_rle"].to_pylist()  # the next generation retires these shards
    assert set(before.masks()["quality_lower"].to_pylist()) == {None}
    written = tmp_path / "calibration.json"
    done = relabel("calibrate", output, "--ground-truth", truth, "--output", written)
    assert done.returncode == 0, done.stderr
    assert "expected calibration error" in done.stdout
    content = json.loads(written.read_text())
    assert {one["iou"] for one in content["certificates"]} == {0.7, 0.8, 0.9}

    done = relabel("seal", output, "--calibration", written)
    assert done.returncode == 0, done.stderr
    after = open_result(str(output))
    assert after.manifest.generation == before.manifest.generation + 1
    assert after.manifest.calibration_id == content["calibration_id"]
    table = after.masks()
    assert set(table["calibration_id"].to_pylist()) == {content["calibration_id"]}
    assert all(0 <= value <= 1 for value in table["quality_lower"].to_pylist())
    assert table["refined_rle"].to_pylist() == refined_before

    done = relabel("seal", output, "--min-quality-gain", "1")  # what is not given stays: the calibration
    assert done.returncode == 0, done.stderr
    last = open_result(str(output)).manifest
    assert last.calibration_id == content["calibration_id"]
    assert "refined" not in last.counts.decisions or "improved" not in last.counts.mask_reasons
    assert "nothing changed" in relabel("seal", output).stdout


def test_verdicts_alone_move_the_gate(result: tuple[Path, Path], relabel: Cli, tmp_path: Path) -> None:
    output = result[0]
    rows = [row for row in open_result(str(output)).masks().to_pylist() if row["decision"] != "failed"]
    verdicts.review(str(output), download(tmp_path / "verdicts.json", [(row, "worse") for row in rows]))
    written = tmp_path / "calibration.json"
    done = relabel("calibrate", output, "--verdicts", "--output", written)
    assert done.returncode == 0, done.stderr
    assert "nothing is certified" in done.stdout
    content = json.loads(written.read_text())
    assert content["fitted_on"]["verdicts"] == len(rows)
    assert content["fitted_on"]["agreed"] >= content["fitted_on"]["agreed_before"]
    assert relabel("seal", output, "--calibration", written).returncode == 0
    assert open_result(str(output)).manifest.calibration_id == content["calibration_id"]
    (output / "reviews").rename(tmp_path / "gone")
    done = relabel("calibrate", output, "--verdicts", "--output", written)
    assert (done.returncode, "too few verdicts" in done.stderr) == (2, True)


def test_refusals_are_one_line(result: tuple[Path, Path], relabel: Cli, tmp_path: Path) -> None:
    output, truth = result
    few = json.loads(truth.read_text())
    few["annotations"] = few["annotations"][:8]
    (tmp_path / "few.json").write_text(json.dumps(few))
    for arguments, words in (
        (
            ("calibrate", output, "--ground-truth", tmp_path / "few.json", "--output", tmp_path / "c.json"),
            "too few masks",
        ),
        (("calibrate", output, "--output", tmp_path / "c.json"), "give one of"),
        (("seal", output, "--calibration", tmp_path / "few.json"), "is not a calibration"),
        (("seal", output, "--calibration", tmp_path / "absent.json"), "does not exist"),
        (("seal", tmp_path), "holds no sealed result"),
    ):
        done = relabel(*arguments)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
