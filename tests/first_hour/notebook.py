"""Runs a notebook's cells in this process, as Jupyter would, and keeps what they show.

    python -m tests.first_hour.notebook    writes what the tutorial shows into it

No kernel is needed: cells are Python, in one namespace, and the last expression of each is shown.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

TUTORIAL = ROOT / "jobs" / "examples" / "tutorial.ipynb"

Cell = dict[str, Any]


def read(path: Path = TUTORIAL) -> dict[str, Any]:
    """The notebook's JSON."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def code_of(cell: Cell) -> str:
    return "".join(cell["source"])


def run(notebook: dict[str, Any], folder: Path) -> None:
    """Run all cells in `folder`; their outputs stand in the notebook afterwards."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with chdir(folder):
        for number, cell in enumerate(code for code in notebook["cells"] if code["cell_type"] == "code"):
            cell["outputs"], cell["execution_count"] = _run(code_of(cell), namespace, number + 1), number + 1


def _run(code: str, namespace: dict[str, Any], number: int) -> list[Cell]:
    body = ast.parse(code).body
    last = ast.Expression(body.pop().value) if body and isinstance(body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"<cell {number}>", "exec"), namespace)
        shown = eval(compile(last, f"<cell {number}>", "eval"), namespace) if last else None
    outputs: list[Cell] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if shown is not None:
        data = _data_of(shown)
        outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return outputs


def _data_of(shown: Any) -> Cell:
    """A picture as JPEG, which is small; a table as HTML; and everything as text."""
    data: Cell = {"text/plain": repr(shown).splitlines(keepends=True)}
    if hasattr(shown, "_repr_jpeg_"):
        data = {"image/jpeg": base64.b64encode(shown._repr_jpeg_()).decode(), "text/plain": ["a picture"]}
    elif hasattr(shown, "_repr_html_"):
        data["text/html"] = shown._repr_html_().splitlines(keepends=True)
    return data


def main() -> None:
    """Run the tutorial in a folder of its own; that folder's name is not kept."""
    notebook = read()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        run(notebook, Path(folder))
        text = json.dumps(notebook, indent=1, ensure_ascii=False).replace(f"{Path(folder).resolve()}/", "")
    TUTORIAL.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
