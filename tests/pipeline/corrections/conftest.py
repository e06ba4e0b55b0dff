"""An output to correct."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.corrections.way_back import sealed
from tests.pipeline.outputs import Output


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return sealed(tmp_path)
