"""Models of transformers through every command that runs them: from a folder, from a bucket; and a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from pipeline import sources
from pipeline.configuration import resolve
from pipeline.dataset import open_result
from pipeline.models import registry, weights
from pipeline.planning.increment import ChunkLimits, plan, read_plan
from pipeline.refiners import REFINERS
from pipeline.refining.chunk import Inputs, Job, Task
from pipeline.refining.subprocess_worker import run_fresh
from pipeline.storage import Access, Store
from tests.conftest import DEMO, Cli
from tests.pipeline.models import pretrained

pytest.importorskip("transformers", reason="the extra `hf` is not installed")
COARSE = DEMO / "coarse.json"
SIDES = {"sam3_tracker": 252}
"""Of the square that a tiny network sees, 256 where none is given."""


def test_a_chunk_in_a_process_of_its_own(tmp_path: Path) -> None:
    """What a worker is given is enough: images are stretched on the way in, the folder's model refines them."""
    folder = pretrained.save("sam2", tmp_path / "sam2", 256)
    output, images = Store(str(tmp_path / "out")), Store(str(DEMO / "images"))
    listed = {file.path: file for file in images.list()}
    source = sources.scan("coco", sources.SourceInput(str(COARSE), Access(), listed))
    plan(output, source, listed, ChunkLimits(8, 1 << 28))
    [chunk] = read_plan(output).chunks
    method = resolve(overrides={"method": {"model": "hf", "iterations": 1, "dtype": "float32"}}).method
    given = weights.resolve("hf", str(folder), Access())
    spec = registry.resolve("hf", given.readable, Access())
    assert (spec.input_side, spec.mask_side, spec.stretched) == (256, 64, True)
    job = Job(
        output, Store(str(tmp_path / "run")), Inputs(images, None), method, given, spec.input_side, 1, 1, "cpu", None,
        spec=spec, refiner=REFINERS["samrefiner"],
    )  # fmt: skip
    outcome = run_fresh(Task(chunk, 2).rows(output), job)
    assert outcome.part is not None, outcome.detail
    assert outcome.part["status"].to_pylist() == ["ok", "ok"]
    masks = [mask for row in outcome.part["masks"].to_pylist() for mask in row]
    assert masks
    assert all(mask["refined_rle"] and mask["predicted_iou"] is not None for mask in masks)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", pretrained.ARCHITECTURES)
def test_a_run_with_a_folder_in_a_bucket(
    architecture: str, relabel: Cli, bucket: str, s3_endpoint: str, tmp_path: Path
) -> None:
    folder = pretrained.save(architecture, tmp_path / architecture, SIDES.get(architecture, 256))
    store = fsspec.filesystem("s3", client_kwargs={"endpoint_url": s3_endpoint})
    store.put(str(folder), f"{bucket}/{architecture}", recursive=True)
    output, cache = tmp_path / "out", {"RELABEL_CACHE": str(tmp_path / "cache")}
    command = [
        "run", "--images", DEMO / "images", "--masks", COARSE, "--output", output, "--model", "hf",
        "--checkpoint", f"s3://{bucket}/{architecture}", "--endpoint-url", s3_endpoint, "--iterations", "1",
        "--actors", "1",
    ]  # fmt: skip
    (tmp_path / "config.yaml").write_text("method:\n  dtype: float32\n")
    done = relabel(*command, "--config", tmp_path / "config.yaml", timeout=590, **cache)
    assert done.returncode == 0, done.stderr
    sha256 = weights.resolve("hf", str(folder), Access()).sha256
    assert (tmp_path / "cache" / sha256 / "config.json").exists()
    [config] = (output / "runs").glob("*/config.yaml")
    assert "model: hf\n" in config.read_text()
    assert sha256 in config.read_text()
    rows = open_result(str(output)).masks().to_pylist()
    assert len(rows) == len(json.loads(COARSE.read_text())["annotations"])
    assert all(row["mask_rle"] == row["coarse_rle"] for row in rows), "noise was kept"
    manifest = (output / "current.json").read_bytes()
    again = relabel(*command, "--config", tmp_path / "config.yaml", **cache)
    assert again.returncode == 0, again.stderr
    assert (output / "current.json").read_bytes() == manifest
    judged = relabel("evaluate", "--predictions", output, "--ground-truth", COARSE)
    assert judged.returncode == 0, judged.stderr


def test_a_folder_of_something_else_is_refused_before_any_work(relabel: Cli, tmp_path: Path) -> None:
    folder = pretrained.save("sam", tmp_path / "sam", 256)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    where = ["--images", DEMO / "images", "--masks", COARSE, "--output", tmp_path / "out"]
    done = relabel("run", *where, "--model", "hf", "--checkpoint", folder)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "is of model_type 'bert'" in line
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", pretrained.ARCHITECTURES)
def test_each_architecture_in_every_command(architecture: str, relabel: Cli, tmp_path: Path) -> None:
    """`plan --estimate`, `run`, the same once more, `evaluate`, `refine`, `bench`; two runs give the same bytes."""
    folder = pretrained.save(architecture, tmp_path / architecture, SIDES.get(architecture, 256))
    model = ["--model", "hf", "--checkpoint", folder]
    given = ["--images", DEMO / "images", "--masks", COARSE, *model, "--iterations", "1"]

    def told(*words: str | Path) -> str:
        done = relabel(*words, timeout=590)
        assert done.returncode == 0, done.stderr
        return done.stdout

    estimate = json.loads(
        told("plan", *given, "--output", tmp_path / "planned", "--estimate", "--sample", "2", "--json")
    )
    assert estimate["estimate"]["sample"]["images"] == 2
    outputs = [tmp_path / name for name in ("once", "twice")]
    for output in outputs:
        told("run", *given, "--output", output, "--actors", "1")
    once, twice = (shards(output) for output in outputs)
    assert once == twice
    told("run", *given, "--output", outputs[0], "--actors", "1")
    assert shards(outputs[0]) == once
    assert (outputs[0] / "current.json").exists()
    told("evaluate", "--predictions", outputs[0], "--ground-truth", COARSE)
    rows = open_result(str(outputs[0])).masks().to_pylist()
    assert len(rows) == len(json.loads(COARSE.read_text())["annotations"])
    assert "images" in told("bench", *model, "--images", "2", "--masks-per-image", "2", "--iterations", "1", "--json")


def shards(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.glob("masks/*.parquet"))}
