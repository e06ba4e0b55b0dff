"""A stranger's first hour: the wheel in an empty environment, a dataset of one's own, and the README's commands alone.

Says the CPU seconds of each step (of all processes that were waited for, not of those that Ray leaves to themselves):

    pytest -s -m slow tests/first_hour/test_stranger.py
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.masks import binary
from tests.conftest import DEMO, ROOT

UV = Path(sys.executable).parent / "uv"
SIZE_WH = (400, 300)
BUCKET = "s3://bucket/"
KEPT = {"HOME", "LANG", "RAY_worker_niceness"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not UV.exists(), reason=f"builds and installs with uv, which is not at {UV}"),
]


def readme_commands() -> list[str]:
    """What the README tells people to type, in its order; a bucket is a folder here."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [
        line.partition(" #")[0].strip().removeprefix(".venv/bin/") for block in blocks for line in block.split("\n")
    ]
    return [line.replace(BUCKET, "bucket/") for line in lines if line.startswith("relabel ")]


def own_dataset(folder: Path) -> None:
    """Photographs with two pieces of another one pasted in; coarse masks in COCO JSON, and the true ones."""
    (folder / "bucket" / "photos").mkdir(parents=True)
    piece = np.asarray(Image.open(DEMO / "images" / "rocket.jpg").resize(SIZE_WH))
    images, true, coarse = [], [], []
    for number, path in enumerate(sorted((DEMO / "images").glob("*.jpg"))[:4]):
        scene = np.array(Image.open(path).convert("RGB").resize(SIZE_WH))
        images.append({"id": number, "file_name": f"own{number}.png", "height": SIZE_WH[1], "width": SIZE_WH[0]})
        for at, (x, y, radius) in enumerate([(110, 100, 45), (290, 180, 60)]):
            disc, corners = np.zeros(SIZE_WH[::-1], np.uint8), np.zeros(SIZE_WH[::-1], np.uint8)
            cv2.circle(disc, (x, y), radius, 1, -1)
            cv2.fillPoly(corners, [cv2.ellipse2Poly((x + 6, y - 5), (radius, radius - 7), 0, 0, 359, 60)], 1)
            scene[disc > 0] = piece[disc > 0]
            shared = {"id": 2 * number + at, "image_id": number, "category_id": 1, "iscrowd": 0}
            for mask, into in ((disc, true), (corners, coarse)):
                into.append({**shared, "segmentation": binary.encode(mask), "area": int(mask.sum())})
        Image.fromarray(scene).save(folder / "bucket" / "photos" / f"own{number}.png")
    for name, masks in (("truth", true), ("coarse", coarse)):
        content = {"images": images, "categories": [{"id": 1, "name": "disc"}], "annotations": masks}
        (folder / "bucket" / f"{name}.json").write_text(json.dumps(content))
    Image.fromarray(scene).save(folder / "photo.jpg", quality=95)
    Image.fromarray(corners * 255).save(folder / "coarse.png")


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def step(what: str, command: Sequence[str | Path], folder: Path, **env: str) -> str:
    """Run it as somebody would who has only that folder; say what it took; its output."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    before = cpu_s()
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**kept, **env},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    print(f"{cpu_s() - before:7.1f} CPU s  {what}")
    assert done.returncode == 0, f"{what}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert "(raylet)" not in done.stdout + done.stderr
    return done.stdout


def test_from_the_wheel_to_an_exported_dataset(tmp_path: Path) -> None:
    print()
    own_dataset(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    environment["PATH"] = os.environ["PATH"]
    step(
        "build the wheel",
        [UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", ROOT],
        tmp_path,
        **environment,
    )
    [wheel] = (tmp_path / "dist").glob("relabel_masks-*.whl")
    step(
        "an empty environment",
        [UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"],
        tmp_path,
        **environment,
    )
    install = [UV, "pip", "install", "--quiet", "--python", tmp_path / "venv" / "bin" / "python"]
    step("install the wheel", [*install, "--constraint", ROOT / "constraints.txt", wheel], tmp_path, **environment)
    path = f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin"
    commands = readme_commands()
    assert [line.split()[1] for line in commands[:3]] == ["demo", "inspect", "run"]
    said = {line.split()[1]: step(line, shlex.split(line), tmp_path, PATH=path) for line in commands}
    assert "disc" in said["inspect"]
    [gain] = re.findall(r"disc +8 +[\d.]+ +[\d.]+ +\+([\d.]+)", said["evaluate"])  # points of IoU over the coarse masks
    assert float(gain) > 10
    assert (tmp_path / "audit.html").stat().st_size > 50_000
    assert Image.open(tmp_path / "compare.gif").n_frames == 3
    exported = [json.loads(path.read_text()) for path in (tmp_path / "bucket" / "coco").glob("instances_*.json")]
    assert sum(len(split["annotations"]) for split in exported) > 0
