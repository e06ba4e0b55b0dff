"""Every command and every line of Python in README and REFERENCE works as written; every column they name exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.main import get_command

import pipeline
from jobs.cli import app
from pipeline.configuration import resolve
from pipeline.dataset.verdicts import digest
from pipeline.errors import REASONS
from schemas.records import IMAGES, MASKS
from tests.conftest import DEMO, ROOT, Demo

TEXT = "".join((ROOT / name).read_text() for name in ("README.md", "REFERENCE.md"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, demo: Demo) -> Path:
    """A folder in which the README's relative paths hold, with the demo's result in it."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "jobs").symlink_to(ROOT / "jobs")
    (folder / "demo").symlink_to(demo.folder)
    (folder / "bucket").mkdir()
    (folder / "bucket" / "photos").symlink_to(DEMO / "images")
    (folder / "bucket" / "coarse.json").symlink_to(DEMO / "coarse.json")
    (folder / "bucket" / "truth.json").write_text(rle_truth())
    return folder


def rle_truth() -> str:
    """The demo's masks as if they were the truth."""
    content = json.loads((DEMO / "coarse.json").read_text())
    for annotation in content["annotations"]:
        annotation |= {"area": 1000.0, "bbox": [0, 0, 10, 10]}
    return json.dumps(content)


def run(words: list[str], folder: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env |= {"HF_HOME": str(folder / "hugging-face"), "HF_HUB_OFFLINE": "1", "RAY_ADDRESS": "local"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def test_every_line_of_python(workplace: Path) -> None:
    """In their order, in one process, on the demo's result."""
    script = "\n".join(blocks("python"))
    script += "\nassert pixels.shape == tuple(row['mask_rle']['size'])\nassert len(frame) == table.num_rows == 10"
    script += "\nassert by_ray.count() == by_hugging_face.num_rows == 10\nassert state['consumed'] == len(feed) > 0"
    script += "\nassert sure.num_rows <= 10\nassert better.shape == coarse.shape"
    assert "decision" in run([sys.executable, "-c", script], workplace)


@pytest.mark.slow
def test_every_command(workplace: Path) -> None:
    """In their order, in one place; buckets are folders here, and `make setup` and the demo have run."""
    commands = [line.partition(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [command.removeprefix(".venv/bin/").replace("s3://", "") for command in commands if command]
    assert commands[:2] == ["make setup", "relabel demo"]
    (workplace / "photo.jpg").symlink_to(DEMO / "images" / "chelsea.jpg")
    coarse = np.zeros((300, 451), np.uint8)
    coarse[90:150, 135:208] = 255
    Image.fromarray(coarse).save(workplace / "coarse.png")
    for command in commands[2:]:
        assert command.startswith("relabel ")
        if command.startswith("relabel review"):
            (workplace / "verdicts.json").write_text(json.dumps(verdicts(workplace / "bucket" / "refined")))
        if "annotations.xml" in command:
            [sent] = (workplace / "bucket" / "to-review").rglob("annotations.xml")
            corrected(sent, workplace / "annotations.xml")
        run(shlex.split(command), workplace)
    assert (workplace / "compare.gif").exists()


def corrected(sent: Path, to: Path) -> None:
    """What CVAT gives back when a person has removed one mask."""
    tree = ElementTree.parse(sent)
    image = next(image for image in tree.iter("image") if len(image))
    image.remove(image[0])
    tree.write(to)


def verdicts(output: Path) -> dict[str, object]:
    """What the page downloads when a person has looked at one mask."""
    row = pipeline.open(str(output)).masks().to_pylist()[0]
    said = {"mask_id": row["mask_id"], "digest": digest(row), "verdict": "better", "strata": []}
    return {"kind": "relabel-verdicts", "schema_version": 1, "verdicts": [said]}


def test_the_configuration_file_is_one() -> None:
    [text] = blocks("yaml")
    assert set(yaml.safe_load(text)) == {"method", "gate", "operation"}
    assert resolve("default", text).method.iterations == 2


def test_every_option_exists() -> None:
    parameters = [one for command in get_command(app).commands.values() for one in command.params]
    known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
    for option in set(re.findall(r"--[a-z][a-z-]+", TEXT)) - {"--help"}:
        assert option in known, option


def test_every_column_and_reason_is_documented_and_exists() -> None:
    cells = [re.findall(r"`([a-z_]+)`", row.split("|")[1]) for row in TEXT.splitlines() if row.startswith("| `")]
    named = {name for names in cells for name in names}
    assert named == set(MASKS.names) | set(IMAGES.names)
    codes = set(re.findall(r"`((?:image|refined)_[a-z_]+)`", TEXT)) - named - {"image_uri"}
    assert codes <= set(REASONS)
