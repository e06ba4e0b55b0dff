"""A long listing by stretches, each of which may be had by another process."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.storage import s3_listing
from pipeline.storage.file_systems import StoredFile, stored
from pipeline.storage.store import Store


def is_divisible(store: Store, folder: str) -> bool:
    """Whether the listing of a folder is long, and the store has stretches of it `between` paths."""
    ask = store.asking(folder)
    return ask is not None and s3_listing.is_divisible(store.full(folder), ask)


def between(store: Store, folder: str, after: str, before: str) -> Iterator[StoredFile]:
    """A stretch of a listing that `is_divisible`: files after one path and before another, "" for no end."""
    prefix, ask = store.full("").rstrip("/") + "/", store.asking(folder)
    ends = [store.full(path) if path else "" for path in (after, before)]
    for path, info in s3_listing.between(store.full(folder), ask, *ends) if ask else ():
        yield stored(path.removeprefix(prefix), info)
