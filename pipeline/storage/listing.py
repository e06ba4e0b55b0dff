"""A listing of millions of files that is looked up by path and not held in memory: SQLite in a temporary file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from pipeline.storage.disk_table import temporary_database, to_key, to_path
from pipeline.storage.file_systems import StoredFile

_TABLE = """
    CREATE TABLE files (
        path BLOB PRIMARY KEY, size INTEGER, etag TEXT, modified_s REAL, special TEXT, mtime_ns INTEGER
    ) WITHOUT ROWID"""
_FOUND = "SELECT size, etag, modified_s, special, mtime_ns FROM files WHERE path = ?"


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


@contextmanager
def listing(files: Iterable[StoredFile]) -> Iterator[Listing]:
    """The files of a store's `walk`, for as long as the context lasts."""
    with temporary_database(_TABLE) as database:
        database.execute("BEGIN")
        rows = ((to_key(path), *told) for path, *told in files)
        database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")
        yield Listing(database)
