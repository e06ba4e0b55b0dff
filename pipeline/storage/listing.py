"""A listing of millions of files that is looked up by path and not held in memory: SQLite in a temporary file."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage.disk_table import temporary_database, to_key, to_path
from pipeline.storage.file_systems import StoredFile
from pipeline.storage.store import Store

_TABLE = """
    CREATE TABLE files (
        path BLOB PRIMARY KEY, size INTEGER, etag TEXT, modified_s REAL, special TEXT, mtime_ns INTEGER, sha256 TEXT
    ) WITHOUT ROWID"""
BLOCK_BYTES = 1 << 20
AHEAD = 4
"""Files that wait to be read, for each thread."""
_ALL = "SELECT path, size, etag, modified_s, special, mtime_ns, sha256 FROM files"
_FOUND = "SELECT size, etag, modified_s, special, mtime_ns, sha256 FROM files WHERE path = ?"


class Listing(Mapping[str, StoredFile]):
    """Files by path, in the order of their paths."""

    def __init__(self, files: sqlite3.Connection) -> None:
        self._files = files
        [(self._count,)] = files.execute("SELECT COUNT(*) FROM files")

    def __getitem__(self, path: str) -> StoredFile:
        row = self._files.execute(_FOUND, (to_key(path),)).fetchone()
        if row is None:
            raise KeyError(path)
        return StoredFile(path, *row)

    def __iter__(self) -> Iterator[str]:
        return (to_path(key) for (key,) in self._files.execute("SELECT path FROM files ORDER BY path"))

    def __len__(self) -> int:
        return self._count

    def values(self) -> ValuesView[StoredFile]:
        """In one pass, where the paths' own would look each of them up."""
        return _Values(self, self._files)


class Searched(Mapping[str, StoredFile]):
    """Files by path, of which many are found at once for less than one after another."""

    @abstractmethod
    def find(self, paths: Iterable[str]) -> dict[str, StoredFile]:
        """Those of the paths that are there."""


def look_up(files: Mapping[str, StoredFile], paths: Iterable[str]) -> dict[str, StoredFile]:
    """Those of the paths that are there."""
    if isinstance(files, Searched):
        return files.find(paths)
    return {path: file for path in paths if (file := files.get(path)) is not None}


class _Values(ValuesView[StoredFile]):
    def __init__(self, listed: Listing, files: sqlite3.Connection) -> None:
        super().__init__(listed)
        self._files = files

    def __iter__(self) -> Iterator[StoredFile]:
        for path, *told in self._files.execute(_ALL):
            yield StoredFile(to_path(path), *told)


def download(store: Store, path: str, to: Path) -> str:
    """Copy a file to a local path, block by block; returns its SHA-256 (hex). Raises FileNotFoundError."""
    sha256 = hashlib.sha256()
    with store.open(path) as source, to.open("wb") as target:
        while block := source.read(BLOCK_BYTES):
            sha256.update(block)
            target.write(block)
    return sha256.hexdigest()


def hashed(store: Store, files: Iterable[StoredFile], threads: int) -> Iterator[StoredFile]:
    """The files of a store's `walk` with the hashes of their content, which is read for it."""

    def read(file: StoredFile) -> StoredFile:
        try:
            return file._replace(sha256=download(store, file.path, Path(os.devnull)))
        except FileNotFoundError:  # gone since; who reads it says so
            return file

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[StoredFile]] = deque()
        for file in files:
            waiting.append(pool.submit(read, file))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def listing(files: Iterable[StoredFile]) -> Iterator[Listing]:
    """The files of a store's `walk`, for as long as the context lasts."""
    with temporary_database(_TABLE) as database:
        database.execute("BEGIN")
        rows = ((to_key(path), *told) for path, *told in files)
        database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")
        yield Listing(database)
