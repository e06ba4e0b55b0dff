"""Files on this machine's file system, there whole or not at all: temporary file beside them, fsync, rename or link."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.errors import StorageError
from pipeline.storage.backoff import brief

TEMPORARY_PREFIX = ".tmp-"
LOCK_PREFIX = f"{TEMPORARY_PREFIX}lock-"
"""Of files that are locked while another one is compared and replaced. They must not be removed by anyone else."""
OPEN_FILES = ("/dev/std", "/dev/fd/", "/proc/")
"""Names of what a process has open."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
LOCK_WAIT_S, LOCK_POLL_S = 10.0, 0.01


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


def content_version(data: bytes) -> str:
    """The version of a file of this machine: its content."""
    return hashlib.sha256(data).hexdigest()


def swap_local(path: Path, data: bytes, version: str) -> bool:
    """Write the file if it has that version; whether `data` is there now."""
    try:
        with _locked(path):
            found = path.read_bytes()
            if content_version(found) != version:
                return found == data
            put_local(path, data)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def local_writer(path: Path, settle: Callable[[Path, Path], object] = Path.replace) -> Iterator[BinaryIO]:
    """A file to write; readers see all of it once the context ends well, else nothing.

    settle: brings the temporary file to its name. What a link leads to is written, and the link stays; a device or a
    pipe is written as it is.
    """
    if settle is Path.replace:
        if is_special(path):
            with path.open("wb") as file:
                yield file
            return
        path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if settle is Path.replace:
            _keep_mode(path, temporary)
        settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _keep_mode(path: Path, temporary: Path) -> None:
    """Let a file that takes another one's place be read by no more people than that one."""
    with suppress(OSError):  # there is none, or the file system has no modes
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))


def is_special(path: Path) -> bool:
    """Whether there is something of that name that cannot be replaced by a file; /dev/stdout may lead to one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or str(path).startswith(OPEN_FILES)


@contextmanager
def spooled_writer(upload: Callable[[str, int], None]) -> Iterator[BinaryIO]:
    """A temporary file to write, taken elsewhere once the context ends well. upload: is given its path and size."""
    with tempfile.NamedTemporaryFile(prefix="relabel-") as file:
        yield cast(BinaryIO, file)
        file.flush()
        upload(file.name, Path(file.name).stat().st_size)


@contextmanager
def full_disk_told(what: str) -> Iterator[None]:
    """A disk without room, or one that may not be written, as one line. what: what was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StorageError(f"no room for {what}: {brief(error)}. What is finished is kept; run again") from None


def _link(temporary: Path, path: Path) -> None:
    """Raises FileExistsError when there is such a file, on a file system without links too."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        with _locked(path):
            if path.exists():
                raise FileExistsError(path) from None
            temporary.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among those that compare and replace this file, on every machine that shares its file system.

    Raises OSError where another one keeps the lock, or the file system has none.
    """
    lock = path.with_name(f"{LOCK_PREFIX}{path.name}")
    descriptor = _lock(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone, and makes another
        os.close(descriptor)


def _lock(lock: Path) -> int:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and lock.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise OSError(errno.ETIMEDOUT, "another process keeps the lock", str(lock)) from None
            time.sleep(LOCK_POLL_S)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
