"""Which mask file belongs to which image, by their names: `masks/NAME.png` or `masks/NAME/*.png` for `images/NAME.jpg`.

Of images that differ in their suffix alone, one has the files and the others none: the first by name that is no PNG
(a PNG beside it may be the mask itself), else the first.

The names of millions of files are not held in memory: they stand in a temporary SQLite file (`disk_table.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.storage import StoredFile
from pipeline.storage.disk_table import temporary_database, to_key, to_path

_TABLES = (
    "CREATE TABLE images (stem BLOB, png INTEGER, path BLOB, PRIMARY KEY (stem, png, path)) WITHOUT ROWID",
    "CREATE TABLE files (stem BLOB, path BLOB, size INTEGER, PRIMARY KEY (stem, path)) WITHOUT ROWID",
)
_ADD_IMAGE = "INSERT OR REPLACE INTO images VALUES (?, ?, ?)"
_IMAGES = """
    SELECT images.path, files.path, files.size FROM images LEFT JOIN files ON files.stem = images.stem AND NOT EXISTS (
        SELECT 1 FROM images AS other
        WHERE other.stem = images.stem AND (other.png, other.path) < (images.png, images.path))
    ORDER BY images.stem, images.png, images.path, files.path"""
_ORPHANS = """
    SELECT files.stem, files.path, files.size FROM files WHERE stem NOT IN (SELECT stem FROM images)
    ORDER BY files.stem, files.path"""


class MaskFile(NamedTuple):
    """A mask file's path and its size in bytes."""

    path: str
    size: int


class Pairs:
    """Images with their mask files, and mask files without an image; each in the order of their names."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def images(self) -> Iterator[tuple[str, list[MaskFile]]]:
        """Each image's path with its files, which may be none."""
        return self._groups(_IMAGES)

    def orphans(self) -> Iterator[tuple[str, list[MaskFile]]]:
        """The name of an image that is not there, with its files."""
        return self._groups(_ORPHANS)

    def _groups(self, query: str) -> Iterator[tuple[str, list[MaskFile]]]:
        for name, rows in groupby(self._database.execute(query), key=lambda row: row[0]):
            yield to_path(name), [MaskFile(to_path(path), size) for _, path, size in rows if path is not None]


Key = Callable[[str], str]
"""A path without its suffix -> what an image and its files have in common."""


def same(name: str) -> str:
    """The name itself."""
    return name


Candidates = Callable[[str], Iterable[str]]
"""A mask file's path -> what its image may have in common with it, likeliest first."""


def by_name(path: str) -> Iterable[str]:
    """Its own name, and its folder's."""
    return stem(path), str(PurePosixPath(path).parent)


@contextmanager
def pairs(
    images: Iterable[str], files: Iterable[StoredFile], of_image: Key = same, of_file: Candidates = by_name
) -> Iterator[Pairs]:
    """Paths of images and the mask files of a store's `walk`, for as long as the context lasts."""
    with temporary_database(*_TABLES) as database:
        database.execute("BEGIN")
        database.executemany(_ADD_IMAGE, (_image_row(path, of_image) for path in images))
        rows = ((to_key(_image_stem(file.path, of_file, database)), to_key(file.path), file.size) for file in files)
        database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
        database.execute("COMMIT")
        yield Pairs(database)


def stem(path: str) -> str:
    """The path without its suffix; the path itself where it is no name of a file."""
    return str(PurePosixPath(path).with_suffix("")) if PurePosixPath(path).name else path


def _image_row(path: str, of_image: Key) -> tuple[bytes, bool, bytes]:
    return to_key(of_image(stem(path))), PurePosixPath(path).suffix.lower() == ".png", to_key(path)


def _image_stem(path: str, of_file: Candidates, database: sqlite3.Connection) -> str:
    """The image that a mask file belongs to: the first candidate that is one, else the first."""
    found = list(of_file(path))
    return next((name for name in found if _is_image(name, database)), found[0] or stem(path))


def _is_image(name: str, database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM images WHERE stem = ?", (to_key(name),)).fetchone() is not None
