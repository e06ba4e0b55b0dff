"""What is no file on this machine is named and never opened: reading a pipe or a device may never end."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from pipeline.sources import SourceInput, scan
from pipeline.sources.coverage import Coverage
from pipeline.storage import Access, Store


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with a pipe, a socket, links to a device and to the pipe, a link to itself, a loop of folders."""
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.png"))
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "to-pipe.png").symlink_to("pipe.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "loop").symlink_to(".")
    return tmp_path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["pipe.png", "socket.png", "device.png", "to-pipe.png"])
def test_it_is_never_opened(odd: Path, name: str) -> None:
    store = Store(str(odd))
    for read in (store.read, store.size, store.open, lambda path: store.read_range(path, 0, 1)):
        with pytest.raises(FileNotFoundError, match="pipe, socket or device"):
            read(name)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("source", ["png", "instances", "voc-boxes", "cam"])
def test_a_source_names_it_and_goes_on(odd: Path, source: str) -> None:
    coverage = Coverage()
    list(scan(source, SourceInput(str(odd), Access(), {}, coverage=coverage)))
    names = {left.name: left.detail for left in coverage.left()}
    assert {"pipe.png", "socket.png", "device.png", "to-pipe.png", "loop"} <= names.keys()
    assert "pipe" in names["to-pipe.png"]


def test_a_file_that_is_replaced_is_not_opened_to_others(tmp_path: Path) -> None:
    path = tmp_path / "private.png"
    path.write_bytes(b"old")
    path.chmod(0o600)
    Store(str(tmp_path)).put(path.name, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
