"""The tutorial: it is small, holds the pictures that GitHub shows, and runs as it stands."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.first_hour import notebook


def shown(cells: list[notebook.Cell]) -> list[list[tuple[str, ...]]]:
    """What kind of things each cell of code shows."""
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    return [[(one["output_type"], *sorted(one.get("data", ()))) for one in several] for several in outputs]


def test_it_is_kept_with_its_pictures_and_without_paths_of_a_machine() -> None:
    text = notebook.TUTORIAL.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert text.count('"image/jpeg"') == 2
    assert not re.search(r"/(tmp|home|root|work|Users)/", text)
    assert all(
        cell["outputs"] or "import" in notebook.code_of(cell) for cell in notebook.read()["cells"] if "outputs" in cell
    )


@pytest.mark.slow
def test_it_runs_and_shows_what_it_is_kept_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    kept, now = notebook.read(), notebook.read()
    notebook.run(now, tmp_path)
    assert shown(now["cells"]) == shown(kept["cells"])
    figures = [
        one["text"] for cell in now["cells"] for one in cell.get("outputs", ()) if one["output_type"] == "stream"
    ]
    coarse, refined, _ = (float(line.split()[-1]) for line in figures[-1])
    assert refined > coarse + 0.1
