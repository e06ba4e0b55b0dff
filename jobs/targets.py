"""Files that commands write where an option says: looked at before any work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import RefusedError
from pipeline.storage import Access, Store, split_uri
from pipeline.storage.atomic import is_special
from pipeline.storage.paths import absolute
from pipeline.storage.preflight import check_writable

LOCAL = "file://"


def target_file(option: str, uri: str, access: Access, taken: Iterable[str | None] = ()) -> tuple[Store, str]:
    """The store and the path in it of a file to be written. option: what named it. taken: what the command reads, or
    writes itself, files and folders.

    Raises RefusedError where it is a folder, is or lies in what is taken, or cannot be written.
    """
    store, name = split_uri(uri, access)
    if not name or (store.is_local and Path(store.full(name)).is_dir()):
        raise RefusedError(f"{option} {uri or repr(uri)} is a folder: name a file")
    for other in taken:
        if other and (same(uri, other) or inside(uri, other)):
            raise RefusedError(f"{option} {uri} would be written over an input or into one, {other}: name another file")
    if probed := _folder_of(store, name):
        check_writable(probed)
    return store, name


def _folder_of(store: Store, name: str) -> Store | None:
    """Where a file is made: what a link leads to is written. None: a device or a pipe, in whose folder nothing is."""
    if not store.is_local:
        return store
    path = Path(store.full(name))
    if is_special(path):
        return None
    return Store(str(path.resolve().parent), store.access) if path.is_symlink() else store


def same(one: str, other: str) -> bool:
    """Whether both are one file, by whatever name."""
    first, second = _path(one), _path(other)
    return first == second or (first.exists() and second.exists() and first.samefile(second))


def inside(uri: str, folder: str) -> bool:
    """Whether a URI is below a folder, or the folder itself."""
    return f"{_path(uri)}/".startswith(f"{_path(folder)}/")


def _path(uri: str) -> Path:
    return Path(absolute(uri.removeprefix(LOCAL)))
