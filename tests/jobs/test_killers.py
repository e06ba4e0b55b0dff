"""Images that kill their worker, in whole runs: they alone fail, the rest is done, and nobody else is blamed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.dataset import open_result
from tests.conftest import ROOT
from tests.killers import picture

pytestmark = pytest.mark.slow  # the gate has tests/pipeline/refining/test_isolate.py


class Run:
    """A folder of pictures with one square mask each, and `relabel run` on it with the deadly model and store."""

    def __init__(self, folder: Path, chunk_images: int, **operation: object) -> None:
        self.folder = folder
        (folder / "images").mkdir()
        (folder / "weights").write_text("any file")
        (folder / "config.yaml").write_text(json.dumps({"operation": {"chunk_images": chunk_images, **operation}}))
        self.names: list[str] = []

    def add(self, name: str, image: Image.Image) -> None:
        image.save(self.folder / "images" / name)
        self.names.append(name)

    def __call__(self, *more: str | Path, output: str = "out", **env: str) -> subprocess.CompletedProcess[str]:
        square = {"category_id": 1, "segmentation": [[5, 5, 40, 5, 40, 40, 5, 40]], "iscrowd": 0}
        content = {
            "images": [{"id": i, "file_name": n, "height": 48, "width": 48} for i, n in enumerate(self.names)],
            "annotations": [{"id": i, "image_id": i, **square} for i in range(len(self.names))],
            "categories": [{"id": 1, "name": "square"}],
        }
        (self.folder / "coarse.json").write_text(json.dumps(content))
        command = [sys.executable, "-m", "tests.killers", "run", "--images", self.folder / "images"]
        command += ["--masks", self.folder / "coarse.json", "--output", self.folder / output, "--actors", "1"]
        command += ["--refiner", "torchscript", "--checkpoint", self.folder / "weights"]
        command += ["--config", self.folder / "config.yaml", *more]
        return subprocess.run(
            list(map(str, command)), cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=580,
            check=False,
        )  # fmt: skip

    def reasons(self, output: str = "out") -> dict[str, str]:
        """Reasons of the failed images; asserts that every image and mask is there once."""
        result = open_result(str(self.folder / output))
        images, masks = result.images().to_pylist(), result.masks().to_pylist()
        assert sorted(row["image_id"] for row in images) == sorted(self.names)
        assert sorted(row["image_id"] for row in masks) == sorted(self.names)
        failed = {row["image_id"]: row["reason"] for row in images if row["status"] == "failed"}
        assert failed == {row["image_id"]: row["reason"] for row in masks if row["decision"] == "failed"}
        return failed


@pytest.mark.slow
def test_a_killer_among_200_good_images(tmp_path: Path) -> None:
    run = Run(tmp_path, chunk_images=16)
    for index in range(200):
        run.add(f"{index:03d}.png", picture(index))
    run.add("killer.png", picture(1000, "segfault"))
    done = run()
    assert done.returncode == 3, done.stderr
    assert run.reasons() == {"killer.png": "killed_worker"}
    again = run()
    assert "nothing pending" in again.stderr  # it is not tried again on every run


@pytest.mark.slow
def test_killers_of_every_kind_in_load_and_in_the_model(tmp_path: Path) -> None:
    run = Run(tmp_path, chunk_images=4, worker_memory_mb=4096)
    for index in range(10):
        run.add(f"{index:03d}.png", picture(index))
    killers = {"load-exit.png": None, "load-memory.png": None, "exit.png": "exit", "memory.png": "memory"}
    for index, (name, mark) in enumerate(killers.items(), start=100):
        run.add(name, picture(index, mark))
    run.add("raise.png", picture(200, "raise"))
    done = run()
    assert done.returncode == 3, done.stderr
    assert run.reasons() == {**dict.fromkeys(killers, "killed_worker"), "raise.png": "model_failed"}


def test_a_model_that_fails_for_everything_stops_the_job_and_commits_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, chunk_images=2)
    for index in range(20):
        run.add(f"{index:03d}.png", picture(index, "raise"))
    done = run()
    assert done.returncode == 1, done.stderr
    assert "5 chunks in a row failed" in done.stderr
    assert "this image is not to my taste" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/runs/*/parts/*"))


def test_a_machine_on_which_every_worker_dies_blames_nobody(tmp_path: Path) -> None:
    run = Run(tmp_path, chunk_images=8)
    for index in range(16):
        run.add(f"{index:03d}.png", picture(index, "exit"))
    done = run()
    assert done.returncode == 1, done.stderr
    assert "no known-good image exists" in done.stderr
    assert not list(tmp_path.glob("out/runs/*/parts/*"))
