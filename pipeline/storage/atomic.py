"""Files on this machine's file system, there whole or not at all: temporary file beside them, fsync, rename or link."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".tmp-"


def put_local(path: Path, data: bytes) -> None:
    """Write the file, over another one if there is one."""
    with local_writer(path) as file:
        file.write(data)


def create_local(path: Path, data: bytes) -> bool:
    """Write the file unless there is one that holds something else; whether `data` is there now."""
    try:
        with local_writer(path, _link) as file:
            file.write(data)
    except FileExistsError:
        return path.read_bytes() == data
    return True


@contextmanager
def local_writer(path: Path, settle: Callable[[Path, Path], object] = Path.replace) -> Iterator[BinaryIO]:
    """A file to write; readers see all of it once the context ends well, else nothing.

    settle: brings the temporary file to its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(temporary: Path, path: Path) -> None:
    """Raises FileExistsError when there is such a file, on a file system without links too."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        with path.open("xb") as file:
            file.write(temporary.read_bytes())
