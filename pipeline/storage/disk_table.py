"""Rows that need not fit into memory while a command runs: SQLite in a temporary folder that is gone afterwards.

A `DiskTable` partitions values by number; `temporary_database` is for what needs queries. Both respect TMPDIR.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import JobError
from pipeline.storage.backoff import brief

HELD_CHARACTERS = 1 << 23
"""What a DiskTable holds in memory, of JSON, before it writes."""

BETWEEN = ",\n"
"""Stands between values, and within none: JSON has no line breaks but where they are asked for."""

as_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, partition INTEGER, lines TEXT);
    CREATE INDEX IF NOT EXISTS by_partition ON blocks (partition, number);"""
_BLOCKS = "SELECT lines FROM blocks WHERE partition BETWEEN ? AND ? ORDER BY partition, number"
_CURE = "Set TMPDIR to a folder on a larger disk"


class DiskTable:
    """JSON values by partition, each partition in the order in which it was filled."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "table.db"
        self._lines: dict[int, list[str]] = defaultdict(list)
        self._held = 0

    def add(self, partition: int, value: Any) -> None:
        """value: whatever JSON holds."""
        self.add_line(partition, as_json(value))

    def add_line(self, partition: int, line: str) -> None:
        """line: of `as_json`."""
        self._lines[partition].append(line)
        self._held += len(line)
        if self._held > HELD_CHARACTERS:
            self._flush()

    def read(self, low: int, high: int) -> list[Any]:
        """The values of partitions [low, high], one partition after another."""
        return values_of(self.blocks(low, high))

    def lines(self, low: int, high: int) -> Iterator[str]:
        """As `read`, for partitions that need not fit into memory: the JSON of each value."""
        for block in self.blocks(low, high):
            yield from block.split(BETWEEN)

    def blocks(self, low: int, high: int) -> Iterator[str]:
        """As `read`, in pieces that `values_of` takes."""
        self._flush()
        with closing(_connect(self._file)) as database:
            for (block,) in database.execute(_BLOCKS, (low, high)):
                yield block

    def _flush(self) -> None:
        if self._file.exists() and not self._lines:
            return
        blocks = ((partition, BETWEEN.join(lines)) for partition, lines in sorted(self._lines.items()))
        with closing(_connect(self._file)) as database:
            database.executescript(_SCHEMA)
            database.execute("BEGIN")
            database.executemany("INSERT INTO blocks (partition, lines) VALUES (?, ?)", blocks)
            database.execute("COMMIT")
        self._lines.clear()
        self._held = 0


def values_of(blocks: Iterable[str]) -> list[Any]:
    """What a DiskTable's blocks hold."""
    return list(json.loads(f"[{','.join(blocks)}]"))


@contextmanager
def temporary_database(*tables: str) -> Iterator[sqlite3.Connection]:
    """A database in a file that is gone afterwards, with these tables; transactions are the caller's."""
    with scratch_folder("database") as folder, closing(_connect(folder / "files.db")) as database:
        for table in tables:
            database.execute(table)
        yield database


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A temporary folder, gone afterwards. Raises JobError, naming the place, when its disk is full."""
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError as error:  # every candidate is full or may not be written
        raise JobError(f"no room for temporary files: {brief(error)}. {_CURE}") from None
    try:
        with tempfile.TemporaryDirectory(prefix=f"relabel-{purpose}-") as folder:
            yield Path(folder)
    except (OSError, sqlite3.OperationalError) as error:
        if not _is_full(error):
            raise
        raise JobError(f"no room for temporary files in {place}: {brief(error)}. {_CURE}") from None


def _is_full(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return str(error) in ("database or disk is full", "disk I/O error", "unable to open database file")


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    for setting in ("journal_mode = OFF", "synchronous = OFF"):  # nobody reads it after a crash
        connection.execute(f"PRAGMA {setting}")
    return connection


def to_key(path: str) -> bytes:
    """Names of files need not be text, and those in an annotation file need not be names."""
    return path.encode("utf-8", "surrogatepass")


def to_path(key: bytes) -> str:
    """What `to_key` was given."""
    return key.decode("utf-8", "surrogatepass")
