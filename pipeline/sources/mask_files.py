"""Mask images that rows of a table name by their paths, and the digest of what they held."""

from __future__ import annotations

import hashlib

from pipeline.decoding import raster
from pipeline.sources.types import SourceInput
from pipeline.storage import Store
from pipeline.storage.paths import safe_relative

HEAD_BYTES = 1 << 16


def image_size(path: str, given: SourceInput) -> tuple[int, int] | None:
    """(H, W) of an image of the image root by its header; None where it is not there, or the root is not known."""
    if not given.images_uri or not safe_relative(path):
        return None
    store = Store(given.images_uri, given.access)
    try:
        return raster.size_hw(store.read_range(path, 0, HEAD_BYTES)) or raster.size_hw(store.read(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return None


class MaskFiles:
    """Files of a store; folder: what paths are relative to in it, with a slash at its end."""

    def __init__(self, store: Store, folder: str = "") -> None:
        self._store, self._folder = store, folder
        self._digests: list[str] = []

    def path(self, name: str) -> str:
        """The path in the store of a name in a row."""
        return f"{self._folder}{name}"

    def read(self, name: str) -> bytes | None:
        """The file's bytes, None where there is none."""
        try:
            data = self._store.read(self.path(name)) if safe_relative(self.path(name)) else None
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
            data = None
        self._digests.append("missing" if data is None else hashlib.sha256(data).hexdigest())
        return data

    def take_digest(self) -> str:
        """Of the files read since the last call, "" for none."""
        digest = ",".join(self._digests)
        self._digests.clear()
        return digest
