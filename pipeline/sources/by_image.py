"""Entries of a file in any order, brought together by image: in memory while they are few, in files beyond."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUCKETS = 256
HELD_CHARACTERS = 1 << 25

Entry = list[Any]


class ByImage:
    """Entries of two kinds (images, masks) by the image's key, spilled to `folder` by the key's hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[list[str]] = [[] for _ in range(BUCKETS)]
        self._held = 0

    def add(self, key: str, is_mask: bool, entry: Entry) -> None:
        """entry: whatever JSON holds."""
        line = json.dumps([key, is_mask, entry], separators=(",", ":"))
        self._lines[zlib.crc32(key.encode("utf-8", "surrogatepass")) % BUCKETS].append(line)
        self._held += len(line)
        if self._held > HELD_CHARACTERS:
            self._flush()

    def groups(self) -> Iterator[tuple[str, list[Entry], list[Entry]]]:
        """(key, image entries, mask entries) of every key, each in the order in which they were added."""
        for bucket in range(BUCKETS):
            found: dict[str, tuple[list[Entry], list[Entry]]] = {}
            for line in self._read(bucket):
                key, is_mask, entry = json.loads(line)
                found.setdefault(key, ([], []))[is_mask].append(entry)
            for key, (images, masks) in found.items():
                yield key, images, masks

    def _read(self, bucket: int) -> Iterator[str]:
        path = self._path(bucket)
        if path.exists():
            with path.open() as file:
                yield from file
        yield from self._lines[bucket]
        self._lines[bucket] = []

    def _flush(self) -> None:
        for bucket, lines in enumerate(self._lines):
            if lines:
                with self._path(bucket).open("a") as file:
                    file.writelines(f"{line}\n" for line in lines)
                lines.clear()
        self._held = 0

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket:03d}.jsonl"
