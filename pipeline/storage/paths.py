"""Paths: whether one from an annotation stays where it belongs, a user's made absolute, what lies below one here."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import RefusedError
from schemas import secrets

Entry = tuple[str, dict[str, Any]]
"""A file's path as the file system takes it, and what a listing tells of it."""
SPECIAL = "special"
"""Key of what a listing tells of an entry that is no file: why it is none."""


def safe_relative(path: str) -> bool:
    """Whether a path from an annotation stays inside the image root."""
    return bool(path) and not path.startswith("/") and "://" not in path and ".." not in path.split("/")


def absolute(uri: str) -> str:
    """A URI as it is; a local path made absolute: workers may run in another folder."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())


def refuse_secrets(uri: str) -> None:
    """Raise RefusedError where credentials stand in `uri`: whatever opens one asks, before it says a word of it."""
    if why := secrets.refusal(uri):
        raise RefusedError(why)


def local_entries(root: str, follow_links: bool = False) -> Iterator[Entry]:
    """Files below a folder of this machine, one at a time; links to files, and links that lead nowhere.

    follow_links: what links to folders lead to, too, each folder once; and what is no file (SPECIAL), for whom nothing
    may be left out.
    """
    folders = [root]
    seen = {os.path.realpath(root)}  # a link may lead back up
    while folders:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not (follow_links and _leads_to_folder(entry)):
                    yield from _local_entry(entry, follow_links)
                else:
                    target = os.path.realpath(entry.path)
                    if target in seen or root.startswith(f"{target}/"):
                        yield entry.path, {SPECIAL: f"a link to {target}, which is listed already"}
                    else:
                        seen.add(target)
                        folders.append(entry.path)


def _local_entry(entry: os.DirEntry[str], with_special: bool) -> Iterator[Entry]:
    with suppress(FileNotFoundError):  # gone since
        found = _stat(entry)
        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            yield entry.path, {"size": found.st_size, "mtime": found.st_mtime, "mtime_ns": found.st_mtime_ns}
        elif with_special:
            yield entry.path, {SPECIAL: "a pipe, socket or device"}


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Of what a link leads to; of the link itself where that is nothing, or itself."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)


def check_opens(path: str) -> None:
    """Raise FileNotFoundError for a pipe, socket or device of this machine: reading one may never end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise FileNotFoundError(f"{path} is a link that leads to itself") from None
        if isinstance(error, NotADirectoryError):
            raise FileNotFoundError(f"{path} is not there: what should be its folder is a file") from None
        return  # whoever opens it says so
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FileNotFoundError(f"{path} is no file, but a pipe, socket or device")
