"""Stored results: an archive for each, with its input, what the input grows by, the output, and what to expect of it.

    input/          as the output was made from it
    grow/           files to be laid over input/: one image more (where the result is for that)
    out/            the output, as the run left it
    expected.json   how it was made, and what stood in it

`make.py` writes them, `test_compat.py` reads them with whatever the code is by then. Both know the contract on disk
(plan/, runs/, current.json) and no module that reads or writes it.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from typer.main import get_command

import pipeline
from jobs.cli import app

DATA = Path(__file__).parent / "data"
MASK_COLUMNS = (
    *("mask_id", "image_id", "image_uri", "source_mask_id", "source_image_id", "category_id", "category", "decision"),
    *("reason", "coarse_rle", "refined_rle", "mask_rle"),
)
IMAGE_COLUMNS = ("image_id", "source_image_id", "height", "width", "status", "reason", "masks", "attempt")

RELABEL = get_command(app)  # once: it takes longer than most commands here

Row = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A result and its input below one folder, wherever that lies."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @cached_property
    def expected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "expected.json").read_text(encoding="utf-8"))
        return found

    def words(self, output: Path | None = None) -> list[str]:
        """The options of `relabel run` and `relabel plan` that the result was made with."""
        return words(self.expected["made"], self.folder / "input", output or self.output)

    def grow(self) -> None:
        """Let the input be that of the next night."""
        shutil.copytree(self.folder / "grow", self.folder / "input", dirs_exist_ok=True)


def words(made: Mapping[str, str | None], folder: Path, output: Path) -> list[str]:
    """made: options by name, None where one was not given; `{input}` stands for the input's folder."""
    found = ["--output", str(output)]
    for name in ("masks", "images", "source", "refiner"):
        if (value := made[name]) is not None:
            found += [f"--{name}", value.replace("{input}", str(folder))]
    return found


def command(*arguments: str | Path, code: int = 0) -> str:
    """Standard output of `relabel ...` in this process, which is expected to end with `code`."""
    sink = io.StringIO()
    with redirect_stdout(sink):
        ended = RELABEL.main([str(argument) for argument in arguments], "relabel", standalone_mode=False)
    assert (ended or 0) == code, sink.getvalue()
    return sink.getvalue()


def unpack(name: str, folder: Path) -> Stored:
    """The stored result of that name, below `folder`."""
    with tarfile.open(DATA / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return Stored(folder)


def pack(folder: Path, path: Path) -> None:
    """The same files in the same bytes, whenever they were written and whoever did."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            info = tarfile.TarInfo(file.relative_to(folder).as_posix())
            info.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(info, content)
    path.write_bytes(gzip.compress(sink.getvalue(), 9, mtime=0))


def increments(output: Path) -> list[dict[str, Any]]:
    """What each committed increment says of itself, the first one first."""
    markers = sorted(output.glob("plan/*/_COMMITTED"), key=lambda path: int(path.parent.name))
    return [json.loads(path.read_text()) for path in markers]


def planned_ids(output: Path) -> dict[str, list[str]]:
    """Ids of an output's planned masks by image id; of an image that was planned again, the last ones."""
    found: dict[str, list[str]] = {}
    for folder in sorted((path.parent for path in output.glob("plan/*/_COMMITTED")), key=lambda path: int(path.name)):
        attempt = json.loads((folder / "_COMMITTED").read_text()).get("attempt", "")
        for bucket in sorted((folder / attempt).glob("bucket-*.parquet")):
            rows = pq.read_table(bucket, columns=["image_id", "masks"]).to_pylist()
            found |= {row["image_id"]: [mask["mask_id"] for mask in row["masks"]] for row in rows}
    return found


def mask_rows(output: Path) -> list[Row]:
    """The current result's masks, by id: what they are, their decision and their three RLEs."""
    rows = pipeline.open(str(output)).masks(columns=list(MASK_COLUMNS)).to_pylist()
    return sorted(rows, key=lambda row: str(row["mask_id"]))


def image_rows(output: Path) -> list[Row]:
    """The current result's images, by id."""
    rows = pipeline.open(str(output)).images(columns=list(IMAGE_COLUMNS)).to_pylist()
    return sorted(rows, key=lambda row: str(row["image_id"]))
