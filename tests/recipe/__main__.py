"""`make recipe`: the commands that a user gives for COCO-ReM's job, and what each of them was worth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from tests.conftest import ROOT
from tests.recipe import figures, pair, reviewer

CONFIG = ROOT / "jobs" / "examples" / "coco_rem.yaml"
DATA = ROOT.parent / "shared" / "data"
out = Console()


def relabel(*words: str | Path, folder: Path, codes: tuple[int, ...] = (0,)) -> None:
    """Run the command as a user would, and show it."""
    out.print(f"\n$ relabel {' '.join(map(str, words))}", style="bold", markup=False)
    command = [sys.executable, "-m", "jobs.cli", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=_environment(), check=False)
    if done.returncode not in codes:
        raise typer.Exit(done.returncode)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}


def run(folder: Path) -> dict[str, Any]:
    """The recipe on the pair in `folder`; returns the figures."""
    truth, merged, output = folder / "truth.json", folder / "merged.json", folder / "refined"
    names = ("--names", "coco,lvis", "--only-known", "--only-first-images")
    relabel("merge", "coco.json", "lvis.json", "--images", "images", *names, "-o", "merged.json", folder=folder)
    relabel(
        "run", "--images", "images", "--masks", "merged.json", "--output", "refined", "--config", CONFIG, folder=folder
    )
    relabel("findings", "refined", "--boxes", "coco.json", "--as-patches", "patches.json", folder=folder)
    relabel("report", "refined", "--to", "audit.html", folder=folder)
    told = {"merge": figures.of_merge(folder / "coco.json", merged, truth), "findings": figures.of_findings(output)}
    told["verdicts"] = reviewer.judge(folder / "patches.json", output)
    refined = figures.of_dataset(figures.of_result(output), truth)
    relabel("patch", "refined", "--from", "patches.json", folder=folder, codes=(0, 3))
    relabel("seal", "refined", folder=folder)
    relabel("verify", "refined", folder=folder)
    relabel("diff", "refined", "--html", "changes.html", "--json", "changes.json", folder=folder)
    relabel("diff", "refined@0", "refined", "--html", "patched.html", folder=folder)
    relabel("export", "refined", "--format", "coco", "--to", "coco-rem", folder=folder)
    stages = {
        "the COCO-like annotation": figures.of_dataset(figures.of_coco(folder / "coco.json"), truth),
        "merged with the LVIS-like one": figures.of_dataset(figures.of_coco(merged), truth),
        "refined": refined,
        "patched and exported": figures.of_dataset(figures.of_coco(folder / "coco-rem" / "instances.json"), truth),
    }
    return {**told, "stages": stages}


def main(
    folder: Path = ROOT / "build" / "recipe",
    per_source: int = pair.PER_SOURCE,
    skip: int = 0,
    part: Literal["val", "iou"] = "val",
    json_out: Path | None = None,
) -> None:
    """Make the pair, run the recipe, tell what it was worth. skip: photographs of each source that are left out.
    part: of the training data's, val or iou."""
    if not (DATA / "train" / "gt.json").exists():
        raise SystemExit(f"the photographs with accurate masks are not at {DATA}: `make recipe` needs them")
    shutil.rmtree(folder, ignore_errors=True)
    pair.make([DATA / "train", DATA / "train2"], folder, per_source, skip, part)
    told = run(folder)
    (json_out or folder / "figures.json").write_text(json.dumps(told, indent=1))
    show(told)


def show(told: dict[str, Any]) -> None:
    """The figures as tables."""
    _table("Left out by the first annotation, and brought by merging", {"": told["merge"]})
    _table("Findings, against what was planted", told["findings"])
    _table("Masks against the truth (matched at IoU 0.5 and above)", told["stages"])


def _table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table(title=title)
    for name in ("", *names):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in rows.items():
        table.add_row(name, *(_brief(row.get(column)) for column in names))
    out.print(table)


def _brief(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
