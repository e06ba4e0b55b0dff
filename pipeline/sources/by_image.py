"""Entries of a file in any order, brought together by image: in memory while they are few, on disk beyond."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.storage.disk_table import DiskTable

PARTITIONS = 256

Entry = list[Any]


class ByImage:
    """Entries of two kinds (images, masks) by the image's key, spilled to `folder` by the key's hash."""

    def __init__(self, folder: Path) -> None:
        self._table = DiskTable(folder)

    def add(self, key: str, is_mask: bool, entry: Entry) -> None:
        """entry: whatever JSON holds."""
        self._table.add(zlib.crc32(key.encode("utf-8", "surrogatepass")) % PARTITIONS, [key, is_mask, entry])

    def groups(self) -> Iterator[tuple[str, list[Entry], list[Entry]]]:
        """(key, image entries, mask entries) of every key, each in the order in which they were added."""
        for partition in range(PARTITIONS):
            found: dict[str, tuple[list[Entry], list[Entry]]] = {}
            for key, is_mask, entry in self._table.read(partition, partition):
                found.setdefault(key, ([], []))[is_mask].append(entry)
            for key, (images, masks) in found.items():
                yield key, images, masks
