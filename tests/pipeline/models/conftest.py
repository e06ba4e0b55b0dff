"""Folders of tiny networks of transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.models import load_model, weights
from pipeline.storage import Access
from tests.pipeline.models import pretrained

SIDES = {"sam3_tracker": (252, 72)}
SIDE = 256


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One for each architecture: read them, do not change them."""
    root = tmp_path_factory.mktemp("pretrained")
    sides = {name: SIDES.get(name, (SIDE, 64))[0] for name in pretrained.ARCHITECTURES}
    return {name: pretrained.save(name, root / name, side) for name, side in sides.items()}


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(folders["sam"], tmp_path / "folder"))


def loaded(folder: Path, **how: Any) -> Any:
    return load_model("hf", weights.resolve("hf", str(folder), Access()), "cpu", 1, **how)
