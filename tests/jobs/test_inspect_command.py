"""`relabel inspect` as a command: its exit codes are those of planning, and it plans nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import RefusedError
from tests.field.world import put, put_images, square

MASK = square() * 255


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "masks" / "a.png", MASK)
    put(tmp_path / "masks" / "b.png", MASK)
    return tmp_path


def inspect(folder: Path, *words: str | Path, masks: str = "masks") -> Any:
    given = ("inspect", "--images", folder / "images", "--masks", folder / masks, "--output", folder / "looked", *words)
    return CliRunner().invoke(app, [str(word) for word in given])


def test_all_is_well(folder: Path) -> None:
    done = inspect(folder)
    assert done.exit_code == 0, done.output
    assert "planning would accept all of it: 2 images with 2 masks" in done.stdout
    assert sorted(path.name for path in (folder / "looked").iterdir()) == ["sheet.html", "sheet.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["images", "looked", "masks"]


def test_what_would_be_left_unread(folder: Path) -> None:
    put(folder / "masks" / "x.json", "{}")
    done = inspect(folder, "--json")
    assert done.exit_code == 3, done.output
    content = json.loads(done.stdout)
    assert (content["unread"], content["masks"], content["sample"]) == (1, 2, [])
    assert content["written"] == [f"{folder}/looked/sheet.png", f"{folder}/looked/sheet.html"]
    assert inspect(folder, "--max-unread", "1", "--sample", "0").exit_code == 0
    assert inspect(folder, "--ignore", "*.json", "--sample", "0").exit_code == 0
    config = put(folder / "relabel.yaml", 'operation: {ignore: ["x.*"]}')
    assert inspect(folder, "--config", config, "--sample", "0").exit_code == 0


def test_what_would_be_refused(folder: Path) -> None:
    put(folder / "other" / "dog.png", MASK)
    done = inspect(folder, masks="other")
    assert isinstance(done.exception, RefusedError)
    assert "--masks has dog.png, --images has a.jpg" in str(done.exception)
    assert "coverage (png)" in done.stdout
    assert "none of 1 mask files is that of an image" in done.stdout
    assert not (folder / "looked").is_dir() or not [*(folder / "looked").iterdir()]


@pytest.mark.parametrize("where", ["images", "masks/deep"])
def test_the_sheet_is_not_put_where_planning_would_find_it(folder: Path, where: str) -> None:
    done = inspect(folder, "--output", folder / where)
    assert isinstance(done.exception, RefusedError)
    assert "name another" in str(done.exception)
