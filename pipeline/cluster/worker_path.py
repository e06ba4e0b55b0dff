"""Keeps strangers' modules off the workers' import path.

Ray puts the folder in which its driver was started first on its workers' path, before what is installed. Where that
folder has a `pipeline.py`, a `schemas/` or a `jobs/` of its own, workers would import those in place of this project.
Ray's driver, a process of ours, is started elsewhere then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path

OURS = ("pipeline", "schemas", "jobs")
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def driver_folder() -> Iterator[str]:
    """Where Ray's driver starts: this process's own folder, or, if strangers are in it, an empty one that lasts inside.

    Relative paths in the environment (RELABEL_CACHE, credentials) are relative to the empty folder, then.
    """
    here = Path.cwd()
    if not strangers(here):
        yield str(here)
        return
    with tempfile.TemporaryDirectory(prefix="relabel-") as empty:
        yield empty


def strangers(folder: Path) -> list[str]:
    """Files in `folder` that would be imported in place of this project's packages; none in this project's own root."""
    if folder.resolve() == ROOT:
        return []
    # a folder without __init__.py has no origin, and gives way to an installed package
    found = (PathFinder.find_spec(name, [str(folder)]) for name in OURS)
    return [spec.origin for spec in found if spec is not None and spec.origin is not None]
