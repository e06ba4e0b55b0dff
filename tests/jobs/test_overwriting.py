"""What a command must not write over: its input, what somebody has judged, what is no file."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from jobs.targets import target_file
from pipeline.dataset import open_result
from pipeline.errors import RefusedError
from pipeline.storage import Access, Store
from tests.conftest import DEMO, Cli
from tests.results import SIZE_HW, mask_row, write_result


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A result with a duplicate on each of two images."""
    square = np.zeros(SIZE_HW, np.uint8)
    square[10:30, 10:40] = 1
    rows = [mask_row(f"{n}.png", 2 * n + k, square, square, category="cat") for n in range(2) for k in range(2)]
    write_result(tmp_path / "out", [rows], str(tmp_path))
    return tmp_path / "out"


def test_merge_spares_its_inputs(tmp_path: Path, relabel: Cli) -> None:
    first, second = (Path(shutil.copy(DEMO / "coarse.json", tmp_path / f"{name}.json")) for name in "ab")
    before = first.read_bytes()
    os.link(first, tmp_path / "hard.json")
    for target in (first, tmp_path / "." / "a.json", tmp_path / "hard.json"):
        done = relabel("merge", first, second, "--images", DEMO / "images", "-o", target)
        assert done.returncode == 2, done.stderr
        assert "would be written over an input" in done.stderr
    assert first.read_bytes() == before


def test_no_file_is_written_over_an_input_or_into_a_result(output: Path, tmp_path: Path, relabel: Cli) -> None:
    truth = Path(shutil.copy(DEMO / "coarse.json", tmp_path / "truth.json"))
    (tmp_path / "link").symlink_to(output)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    evaluate = ["evaluate", "--predictions", output, "--ground-truth", truth]
    for words in (
        ["report", output, "--to", output / "current.json"],
        ["report", output, "--to", tmp_path / "link" / "report.html"],
        ["report", f"file://{output}", "--to", output / "report.html"],
        ["report", output, "--ground-truth", truth, "--to", truth],
        ["diff", output, "--html", output / "page.html"],
        ["diff", f"{output}@0", output, "--json", f"file://{output}/figures.json"],
        ["findings", output, "--as-patches", output / "current.json"],
        ["calibrate", output, "--ground-truth", truth, "--output", truth],
        [*evaluate, "--json", truth],
    ):
        done = relabel(*words)
        assert done.returncode == 2, done.stderr
        assert "would be written over an input or into one" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_is_no_file_to_write(output: Path, tmp_path: Path, relabel: Cli) -> None:
    for words in (
        ["report", output, "--to", tmp_path],
        ["report", output, "--to", ""],
        ["diff", output, "--json", f"{tmp_path}/"],
        ["findings", output, "--as-patches", tmp_path],
    ):
        done = relabel(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.endswith("is a folder: name a file\n")
    same = relabel("diff", output, "--json", tmp_path / "a", "--html", tmp_path / "." / "a")
    assert (same.returncode, "name one file" in same.stderr) == (2, True)
    ignored = relabel("findings", output, "--images", tmp_path)
    assert (ignored.returncode, ignored.stderr) == (2, "relabel: --images goes with --with-model\n")


def test_verdicts_in_a_file_of_patches_stay(output: Path, tmp_path: Path, relabel: Cli) -> None:
    patches = tmp_path / "patches.json"
    patches.touch()
    for _ in range(2):  # nobody has judged any
        assert relabel("findings", output, "--as-patches", patches).returncode == 0
    content = json.loads(patches.read_text())
    content["patches"][0]["verdict"] = "yes"
    judged = json.dumps(content)
    patches.write_text(judged)
    done = relabel("findings", output, "--as-patches", patches)
    assert done.returncode == 2, done.stdout
    assert "1 verdict that somebody gave would be lost: bring them (`relabel patch`), or name another" in done.stderr
    assert patches.read_text() == judged
    (tmp_path / "notes.json").write_text("[]")
    assert "is no file of patches" in relabel("findings", output, "--as-patches", tmp_path / "notes.json").stderr
    assert (tmp_path / "notes.json").read_text() == "[]"


def test_links_stay_links_and_pipes_pipes(tmp_path: Path) -> None:
    store, real, link, pipe = Store(str(tmp_path)), tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_bytes(b"before")
    link.symlink_to("real")
    store.put("link", b"after")
    assert link.is_symlink()
    assert real.read_bytes() == b"after"
    (tmp_path / "far").symlink_to("new/folder/file")
    store.put("far", b"made")
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == b"made"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    store.put("pipe", b"through")
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_column_that_there_is_not_is_no_damage(output: Path) -> None:
    with pytest.raises(RefusedError, match="there is no column 'nosuch'; there are mask_id"):
        open_result(str(output)).masks(None, ["nosuch"])


def test_names_that_nothing_has_are_told(output: Path, tmp_path: Path, relabel: Cli) -> None:
    square = {"size": list(SIZE_HW), "counts": open_result(str(output)).masks().to_pylist()[0]["mask_rle"]["counts"]}
    images = [{"id": n, "file_name": f"{n}.png", "height": SIZE_HW[0], "width": SIZE_HW[1]} for n in range(2)]
    annotation = {"id": 0, "image_id": 0, "category_id": 1, "segmentation": square}
    (tmp_path / "truth.json").write_text(json.dumps({"images": images, "annotations": [annotation]}))
    given = ["--predictions", output, "--ground-truth", tmp_path / "truth.json", "--images", tmp_path / "list.json"]
    (tmp_path / "list.json").write_text(json.dumps(["0.png", "1.png"]))  # the second without an annotation
    assert relabel("evaluate", *given).returncode == 0
    (tmp_path / "list.json").write_text(json.dumps(["0.png", "nosuch.png"]))
    done = relabel("evaluate", *given)
    assert done.returncode == 3
    assert "the ground truth does not have 1 image of the list: nosuch.png" in done.stderr
    value = ["value", output, "--ground-truth", tmp_path / "truth.json", "--features", "lite", "--test"]
    done = relabel(*value, tmp_path / "list.json")
    assert done.returncode == 2
    assert "the ground truth does not have 1 image: nosuch.png" in done.stderr


def test_categories_of_the_method_that_no_mask_has_are_told(tmp_path: Path, relabel: Cli) -> None:
    (tmp_path / "c.yaml").write_text("method: {per_category: {dinning table: {keep_coarse: true}}}")
    given = ["--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", tmp_path / "out"]
    done = relabel("plan", *given, "--config", tmp_path / "c.yaml")
    assert done.returncode == 0, done.stderr
    assert "method.per_category: no mask has the category 'dinning table'" in done.stderr


def test_nothing_is_tried_beside_a_device_a_pipe_or_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few may write into /dev, and a link may lie where nobody may."""
    tried: list[str] = []
    monkeypatch.setattr("jobs.targets.check_writable", lambda store: tried.append(store.uri))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "elsewhere" / "page.html")
    (tmp_path / "null").symlink_to("/dev/null")
    for target in ("/dev/null", "/dev/stdout", str(tmp_path / "pipe"), str(tmp_path / "null")):
        target_file("--to", target, Access())
    assert tried == []
    for target in ("link.html", "page.html"):
        target_file("--to", str(tmp_path / target), Access())
    assert tried == [str(tmp_path / "elsewhere"), str(tmp_path)]
