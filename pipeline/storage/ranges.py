"""A stored file for readers that seek: fetched in ranges, a little ahead."""

from __future__ import annotations

import io
from collections.abc import Callable

READ_AHEAD_BYTES = 1 << 22


class Ranges(io.RawIOBase):
    """`fetch(start, length)` gives bytes of a file of `size` bytes; one window of them is held."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size, self._fetch = size, fetch
        self._at = self._held_at = 0
        self._held = b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        end = self._size if count is None or count < 0 else min(self._size, self._at + count)
        if not self._held_at <= self._at <= end <= self._held_at + len(self._held):
            ahead = min(self._size, max(end, self._at + READ_AHEAD_BYTES))
            self._held, self._held_at = self._fetch(self._at, ahead - self._at), self._at
        found = self._held[self._at - self._held_at : end - self._held_at]
        self._at = end
        return found
