"""One of each kind registered from outside runs from end to end, in processes that know nothing of it too."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline
from pipeline.configuration import resolve
from pipeline.dataset import open_result
from pipeline.errors import RefusedError
from pipeline.exports import EXPORTS, driver
from pipeline.masks import binary
from pipeline.models import MODELS, load_model, registry, weights
from pipeline.models.registry import Imported
from pipeline.planning.increment import ChunkLimits, plan, read_plan
from pipeline.refiners import REFINERS
from pipeline.refining.chunk import Inputs, Job, Task
from pipeline.refining.subprocess_worker import run_fresh
from pipeline.sources import SOURCES, SourceInput, files_root, images_root
from pipeline.sources import scan as scan_source
from pipeline.storage import Access, Store
from schemas.config import ConfigError
from tests import toys
from tests.conftest import ROOT
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result

SIDE, INPUT_SIDE, CUT = 48, 24, 130
TABLES = (REFINERS, MODELS, SOURCES, EXPORTS)


@pytest.fixture
def registered() -> Iterator[None]:
    before = [dict(table) for table in TABLES]
    toys.register()
    yield
    for table, names in zip(TABLES, before, strict=True):
        table.clear()
        table.update(names)  # type: ignore[arg-type]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Bright squares on dark ground, coarse masks that are too small, and weights that tell them apart."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
        pixels[10:30, 12:40] = 220
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    (tmp_path / "masks.txt").write_text("a.png 14 12 20 14\nb.png 16 14 20 12\n")
    (tmp_path / "weights.json").write_text(f'{{"input_side": {INPUT_SIDE}, "cut": {CUT}}}')
    return tmp_path


def relabel(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.toys", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_a_run_with_a_source_a_refiner_a_model_and_an_export_of_ones_own(corpus: Path) -> None:
    """Only the command's process has them registered; Ray's workers and the export's are given the objects."""
    output = corpus / "out"
    done = relabel(
        "run", "--images", corpus / "images", "--masks", corpus / "masks.txt", "--source", "lines",
        "--refiner", "bright", "--checkpoint", corpus / "weights.json", "--output", output, "--actors", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = open_result(str(output))
    bright = np.zeros((SIDE, SIDE), np.uint8)
    bright[10:30, 12:40] = 1
    refined = [binary.decode(row["refined_rle"]) for row in result.masks().to_pylist()]
    assert [binary.iou(mask, bright) for mask in refined] == [1.0, 1.0]
    [config] = (output / "runs").glob("*/config.yaml")
    assert "model: brightness\n" in config.read_text()
    assert weights.hash_file(corpus / "weights.json") in config.read_text()
    done = relabel("export", output, "--format", "areas", "--to", corpus / "to")
    assert done.returncode == 0, done.stderr
    assert (corpus / "to" / "areas-0.txt").read_text() == f"a.png {bright.sum()}\nb.png {bright.sum()}\n"


@pytest.mark.usefixtures("registered")
def test_an_export_of_ones_own_in_several_processes(tmp_path: Path) -> None:
    cases = [ImageCase(f"{n}.png", (8, 8), [MaskCase(np.eye(8, dtype=np.uint8))]) for n in range(3)]
    made, target = make_result(tmp_path, cases, shards=3), Store(str(tmp_path / "to"))
    done = driver.export(made, target, target, "areas", driver.Options(), workers=2)
    assert (done.groups, done.report["counts"]) == (3, {"images": 3, "masks": 3})
    assert [target.read(f"areas-{n}.txt") for n in range(3)] == [f"{n}.png 8\n".encode() for n in range(3)]


@pytest.mark.usefixtures("registered")
def test_a_refiner_without_a_model_gets_the_original_image_and_no_hash(corpus: Path) -> None:
    method = resolve(overrides={"method": {"refiner": "grown"}}).method
    assert (method.model, weights.resolve(method.model, None, Access()).sha256) == ("none", "")
    coarse = np.zeros((SIDE, SIDE), np.uint8)
    coarse[14:24, 16:30] = 1
    refined = pipeline.refine(corpus / "images" / "a.png", coarse, method=method)
    np.testing.assert_array_equal(refined, toys.grow(np.zeros((SIDE, SIDE, 3), np.uint8), coarse))
    with pytest.raises(ConfigError, match="refiner grown goes with model none, not lite"):
        pipeline.refine(corpus / "images" / "a.png", coarse, model="lite", method=method)


@pytest.mark.usefixtures("registered")
def test_a_promptable_model_of_ones_own_is_one_for_every_refiner_that_prompts(corpus: Path) -> None:
    coarse = np.zeros((SIDE, SIDE), np.uint8)
    coarse[14:24, 16:30] = 1
    method = resolve(overrides={"method": {"model": "fake"}}).method
    assert (method.refiner, method.iterations, method.mirror) == ("samrefiner", 2, False)
    refined = pipeline.refine(corpus / "images" / "a.png", coarse, model="fake", method=method)
    assert binary.iou(refined, coarse) > 0.5
    with pytest.raises(ConfigError, match="refiner grown goes with model none, not fake"):
        resolve(overrides={"method": {"model": "fake", "refiner": "grown"}})
    with pytest.raises(ConfigError, match="model brightness is for refiner bright, not samrefiner"):
        resolve(overrides={"method": {"model": "brightness"}})


@pytest.mark.usefixtures("registered")
def test_a_fresh_process_is_given_them_too(corpus: Path) -> None:
    """It is where a chunk goes whose worker died."""
    output, images = Store(str(corpus / "out")), Store(str(corpus / "images"))
    listed = {file.path: file for file in images.list()}
    source = scan_source("lines", SourceInput(str(corpus / "masks.txt"), Access(), listed))
    plan(output, source, listed, ChunkLimits(8, 1 << 24))
    [chunk] = read_plan(output).chunks
    method = resolve(overrides={"method": {"refiner": "bright"}}).method
    given = weights.resolve("brightness", str(corpus / "weights.json"), Access())
    spec = registry.resolve("brightness", given.uri, Access())
    job = Job(
        output, Store(str(corpus / "run")), Inputs(images, None), method, given, spec.input_side, 1, 1, "cpu", None,
        spec=spec, refiner=REFINERS["bright"],
    )  # fmt: skip
    outcome = run_fresh(Task(chunk, 2).rows(output), job)
    assert outcome.part is not None, outcome.detail
    assert outcome.part["status"].to_pylist() == ["ok", "ok"]


@pytest.mark.usefixtures("registered")
def test_a_checkpoint_says_what_it_is(corpus: Path) -> None:
    uri = str(corpus / "weights.json")
    assert registry.find("brightness").input_side != INPUT_SIDE
    assert registry.resolve("brightness", uri, Access()).input_side == INPUT_SIDE
    assert load_model("brightness", weights.resolve("brightness", uri, Access()), "cpu", 1).input_side == INPUT_SIDE


@pytest.mark.usefixtures("registered")
def test_a_model_that_is_not_what_its_spec_says_is_refused() -> None:
    nothing = weights.resolve("fake", None, Access())
    with pytest.raises(RefusedError, match="model fake has input_side 1024, its spec 512"):
        load_model(replace(toys.FAKE, input_side=512), nothing, "cpu", 1)
    with pytest.raises(RefusedError, match="model fake has stretched False, its spec True"):
        load_model(replace(toys.FAKE, view="stretched"), nothing, "cpu", 1)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_travel_and_its_code_is_there(name: str) -> None:
    spec = MODELS[name]
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.name == name
    if isinstance(spec.load, Imported):
        module = __import__(spec.load.module, fromlist=[spec.load.name])
        assert callable(getattr(module, spec.load.name))


@pytest.mark.parametrize("table", [REFINERS, EXPORTS], ids=["refiners", "exports"])
def test_what_workers_are_given_can_travel(table: dict[str, object]) -> None:
    for name, entry in table.items():
        assert type(pickle.loads(pickle.dumps(entry))) is type(entry), name


def test_every_refiner_goes_with_a_model_that_there_is() -> None:
    for name, refiner in REFINERS.items():
        assert any(refiner.fits(spec) for spec in MODELS.values()), name


def test_where_a_source_has_no_files_of_its_own_nothing_is_read() -> None:
    assert files_root("coco", "masks.json") is None
    assert files_root("voc", "VOC2012") == "VOC2012/SegmentationObject"
    with pytest.raises(RefusedError, match="--images is missing: masks of the source lvis"):
        images_root("lvis", None, "masks.json", Access())
