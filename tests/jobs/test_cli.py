"""The command line as its users meet it: real processes, a real Ray, a real S3 server, real photographs."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from PIL import Image

import pipeline
from pipeline.dataset import open_result
from pipeline.masks import binary
from schemas.records import MASKS
from tests.conftest import DEMO, ROOT, Cli, Demo

PHOTOS, COARSE = DEMO / "images", DEMO / "coarse.json"
HOSTILE_REASONS = {
    "truncated.jpg": "image_truncated",
    "text.jpg": "image_unreadable",
    "missing.jpg": "image_missing",
    "../outside.jpg": "image_outside_root",
}


def test_demo_writes_a_dataset_that_plain_readers_open(demo: Demo) -> None:
    import duckdb

    folder, done = demo
    assert done.returncode == 0, done.stderr
    shards = str(folder / "result" / "runs" / "*" / "masks" / "*.parquet")
    table = ds.dataset(next(folder.glob("result/runs/*/masks"))).to_table()
    assert table.schema.equals(MASKS)
    assert table.num_rows == len(json.loads(COARSE.read_text())["annotations"])
    [(rows, columns)] = duckdb.sql(f"select count(*), count(distinct mask_id) from '{shards}'").fetchall()
    assert (rows, columns) == (table.num_rows, table.num_rows)
    heights = duckdb.sql(f"select distinct mask_rle.size[1] from '{shards}' where image_uri = 'coffee.jpg'").fetchall()
    assert heights == [(400,)]
    assert {path.stem for path in (folder / "pictures").glob("*.png")} == {path.stem for path in PHOTOS.iterdir()}
    assert all(Image.open(path).width > 1000 for path in (folder / "pictures").glob("*.png"))
    assert "astronaut.jpg" in done.stdout
    assert "Traceback" not in done.stderr


def test_demo_really_refines(demo: Demo) -> None:
    table = pipeline.open(str(demo.folder / "result")).masks()
    changed = [row for row in table.to_pylist() if row["decision"] == "refined" and row["coarse_iou"] < 0.99]
    assert len(changed) >= 7
    contrast = [row["boundary_contrast"] - row["coarse_boundary_contrast"] for row in changed]
    assert np.mean(contrast) > 0.02  # outlines moved to where colours change


def test_status_of_a_plan_that_nothing_has_run(tmp_path: Path, relabel: Cli) -> None:
    given = ["--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", tmp_path / "out"]
    planned = json.loads(relabel("plan", *given, "--json").stdout)
    [status] = json.loads(relabel("status", tmp_path / "out", "--json").stdout)
    assert (status["fingerprint"], status["planned"], status["pending"]) == (None, [5, 10], [5, 10])
    assert status["scan"] == planned["scan"]
    assert re.search(r"masks +│ +10 │ +0 │ +0 │ +10 │", relabel("status", tmp_path / "out").stdout)


def test_status_and_files(demo: Demo, relabel: Cli) -> None:
    output = demo.folder / "result"
    [status] = json.loads(relabel("status", output, "--json").stdout)
    assert (status["planned"], status["done"], status["failed"], status["pending"]) == (
        [5, 10],
        [5, 10],
        [0, 0],
        [0, 0],
    )
    assert status["is_current"]
    assert (status["decisions"], status["mask_reasons"], status["image_reasons"]) == (
        {"refined": 10},
        {"improved": 10},
        {},
    )
    assert status["scan"]["unread"] == 0
    assert (output / status["scan"]["path"]).is_file()
    listed = relabel("files", output).stdout.split()
    assert [pa.parquet.read_table(path).num_rows for path in listed] == [10]


def test_refine_one_image(tmp_path: Path, relabel: Cli) -> None:
    annotation = next(a for a in json.loads(COARSE.read_text())["annotations"] if a["image_id"] == 3)
    with Image.open(PHOTOS / "chelsea.jpg") as photo:
        coarse = binary.decode(binary.from_polygons(annotation["segmentation"], (photo.height, photo.width)))
    Image.fromarray(coarse * 255).save(tmp_path / "coarse.png")
    done = relabel(
        "refine", PHOTOS / "chelsea.jpg", tmp_path / "coarse.png", "--output", tmp_path / "x.png",
        "--picture", tmp_path / "y.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refined = np.asarray(Image.open(tmp_path / "x.png")) > 0
    assert binary.iou(refined, coarse) > 0.5
    from_python = pipeline.refine(PHOTOS / "chelsea.jpg", tmp_path / "coarse.png")
    np.testing.assert_array_equal(from_python > 0, refined)
    assert Image.open(tmp_path / "y.png").width > 1000
    assert "quality 0." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "vit_x"], "unknown model 'vit_x'; there are lite"),
        (["--model", "vit_b"], "needs --checkpoint"),
        (["--model", "vit_b", "--checkpoint", "/no/such.pth"], "the checkpoint /no/such.pth does not exist"),
        (["--output", "/proc/relabel"], "cannot write to the output /proc/relabel"),
        (["--config", "/no/such.yaml"], "the configuration /no/such.yaml does not exist"),
        (["--config", "UNKNOWN_KEY"], "unknown key 'method.iteratoins'"),
        (["--images", "/no/such/folder"], "the image folder /no/such/folder does not exist"),
        (["--masks", "EMPTY"], "no mask at all"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (["--refiner", "magic"], "unknown refiner 'magic'; there are"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, relabel: Cli
) -> None:
    (tmp_path / "unknown.yaml").write_text("method: {iteratoins: 3}")
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": []}')
    stand_ins = {"UNKNOWN_KEY": tmp_path / "unknown.yaml", "EMPTY": tmp_path / "empty.json"}
    given = {"--images": PHOTOS, "--masks": COARSE, "--output": tmp_path / "out"}
    given |= {arguments[i]: stand_ins.get(arguments[i + 1], arguments[i + 1]) for i in range(0, len(arguments), 2)}
    done = relabel("run", *(part for pair in given.items() for part in pair), timeout=60)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines[:-1] in ([], ["plan: reading the input"]), done.stderr
    assert words in lines[-1]
    assert done.stdout == ""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Good photographs among broken ones; COCO JSON beside them."""
    images = tmp_path / "images"
    shutil.copytree(PHOTOS, images)
    photo = (images / "coffee.jpg").read_bytes()
    (images / "truncated.jpg").write_bytes(photo[: len(photo) // 2])
    (images / "text.jpg").write_text("this is text")
    content = json.loads(COARSE.read_text())
    size = {"height": 400, "width": 600}
    box = {"category_id": 1, "segmentation": [[10, 10, 200, 10, 200, 200]], "iscrowd": 0}
    for number, name in enumerate(HOSTILE_REASONS, start=50):
        content["images"].append({"id": number, "file_name": name, **size})
        content["annotations"].append({"id": number, "image_id": number, **box})
    coffee = next(image["id"] for image in content["images"] if image["file_name"] == "coffee.jpg")
    content["images"].append({"id": 70, "file_name": "empty name.jpg", **size})  # an image with no annotation
    (images / "empty name.jpg").write_bytes(photo)
    wrong = {
        "90": binary.encode(np.ones((40, 60), np.uint8)),
        "91": {"size": [400, 600], "counts": "broken!"},
        "92": binary.encode(np.zeros((400, 600), np.uint8)),
    }
    content["annotations"] += [
        {"id": int(key), "image_id": coffee, "category_id": 1, "segmentation": rle} for key, rle in wrong.items()
    ]
    (tmp_path / "coarse.json").write_text(json.dumps(content))
    return tmp_path


def test_bad_input_is_rows_with_reasons_and_exit_code_3(hostile: Path, relabel: Cli, cluster: dict[str, str]) -> None:
    done = relabel(
        "run", "--images", hostile / "images", "--masks", hostile / "coarse.json", "--output", hostile / "out",
        "--chunk-images", "3", "--actors", "1", **cluster,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "11 of 27 rows failed" in done.stderr
    result = open_result(str(hostile / "out"))
    images = {row["image_id"]: row for row in result.images().to_pylist()}
    assert {name: row["reason"] for name, row in images.items() if row["status"] == "failed"} == HOSTILE_REASONS
    assert images["empty name.jpg"]["masks"] == 0
    assert images["empty name.jpg"]["status"] == "ok"
    rows = {row["source_mask_id"]: row for row in result.masks().to_pylist()}
    assert len(rows) == 17
    reasons = {key: row["reason"] for key, row in rows.items() if row["decision"] == "failed"}
    assert {reasons.pop(str(number)) for number in range(50, 54)} == set(HOSTILE_REASONS.values())
    assert reasons == {"90": "mask_size_mismatch", "91": "mask_unreadable", "92": "mask_empty"}
    assert rows["90"]["coarse_rle"]["size"] == [40, 60]  # what came in is kept
    for row in rows.values():
        assert (row["mask_rle"] is None) == (row["decision"] == "failed") == (row["quality"] is None)


def test_limit_is_exact_and_the_rest_follows_on_an_existing_cluster(
    tmp_path: Path, relabel: Cli, cluster: dict[str, str]
) -> None:
    where = ["--address", cluster["RAY_ADDRESS"], "--actors", "1:2"]
    arguments = ["run", "--images", PHOTOS, "--masks", COARSE, "--output", tmp_path / "out", *where]
    done = relabel(*arguments, "--limit", "2", **cluster)
    assert done.returncode == 0, done.stderr
    assert open_result(str(tmp_path / "out")).images().num_rows == 2
    again = relabel(*arguments, "--limit", "2", **cluster)
    assert again.returncode == 0
    assert "nothing pending" in again.stderr
    assert relabel(*arguments, **cluster).returncode == 0
    result = open_result(str(tmp_path / "out"))
    assert result.images().num_rows == 5
    assert result.masks().num_rows == 10


@pytest.mark.slow
def test_png_masks(tmp_path: Path, relabel: Cli) -> None:
    """A folder of mask PNGs beside the photographs gives the masks that the COCO file gives."""
    content = json.loads(COARSE.read_text())
    sizes = {image["id"]: image for image in content["images"]}
    for annotation in content["annotations"]:
        image = sizes[annotation["image_id"]]
        mask = binary.decode(binary.from_polygons(annotation["segmentation"], (image["height"], image["width"])))
        path = tmp_path / "masks" / Path(image["file_name"]).stem / f"{annotation['id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = io.BytesIO()
        Image.fromarray(mask * 255).save(sink, "PNG")
        path.write_bytes(sink.getvalue())
    done = relabel(
        "run", "--images", PHOTOS, "--masks", tmp_path / "masks", "--output", tmp_path / "out", "--actors", "1"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {Path(row["source_mask_id"]).name: row for row in open_result(str(tmp_path / "out")).masks().to_pylist()}
    assert sorted(found, key=int) == [str(a["id"]) for a in content["annotations"]]
    assert found["1"]["coarse_rle"]["size"] == [found["1"]["height"], found["1"]["width"]]


ENDING = """
import atexit, sys
from jobs import __main__, cli

class Global:
    def __del__(self):
        print("the interpreter was taken down")

def command():
    atexit.register(print, "cleaned up")
    sys.stdout.write("done; ")
    sys.exit(3)

kept = Global()
cli.main = command
__main__.main()
"""


def test_the_process_ends_after_its_clean_up_without_taking_python_down() -> None:
    """Arrow's threads abort a process whose interpreter ends while they let go of Python's objects."""
    done = subprocess.run([sys.executable, "-c", ENDING], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "done; cleaned up\n", "")


@pytest.mark.parametrize(
    ("command", "kept"),
    [("run", "; finished chunks are kept. Rerun the same command to resume"), ("report", "")],
)
def test_an_interrupted_command_promises_what_it_keeps(command: str, kept: str) -> None:
    code = (
        "import os, signal, sys; from jobs import cli; signal.signal(signal.SIGINT, cli._unwind);"
        f"sys.argv = ['relabel', {command!r}]; os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, f"relabel: interrupted{kept}\n")


def test_a_command_that_is_interrupted_while_it_imports_shows_no_traceback() -> None:
    script = "import builtins, os, signal, sys; from jobs import __main__; sys.meta_path.insert(0, type('Late', (), {"
    script += "'find_spec': lambda *_: os.kill(os.getpid(), signal.SIGINT)})); __main__.main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "relabel: interrupted\n")


def test_weights_of_another_model_are_named(relabel: Cli, tmp_path: Path) -> None:
    """What a worker says of the model that it cannot load, not what Ray makes of that."""
    weights = ROOT / "pipeline" / "models" / "weights" / "lite.safetensors"
    where = ["--images", PHOTOS, "--masks", COARSE, "--output", tmp_path / "out", "--actors", "1"]
    done = relabel("run", *where, "--model", "vit_b", "--checkpoint", weights, timeout=300)
    assert done.returncode == 1
    assert "lite.safetensors is not a vit_b checkpoint: it lacks image_encoder" in done.stderr.splitlines()[-1]
