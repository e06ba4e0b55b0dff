"""Folders of Parquet files or tars, or one of them: which containers there are, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import RefusedError
from pipeline.sources.types import SourceInput
from pipeline.storage import Store, StoredFile, split_uri


def find(given: SourceInput, suffix: str) -> tuple[Store, list[StoredFile]]:
    """The store of the containers and those in it, in order; of one file, its folder and itself.

    Raises RefusedError when there is none.
    """
    if given.masks_uri.endswith(suffix):
        store, name = split_uri(given.masks_uri, given.access)
        return store, [StoredFile(name, store.size(name), None)]
    store = Store(given.masks_uri, given.access)
    found = [file for file in store.list() if file.path.endswith(suffix) and not hidden(file.path)]
    if not found:
        raise RefusedError(f"{given.masks_uri} holds no {suffix} file")
    return store, found


def hidden(path: str) -> bool:
    """Whether a path lies in a folder, or is a file, that starts with a dot or an underscore."""
    return any(part.startswith((".", "_")) for part in path.split("/"))


def problem_of(container: str, images: Mapping[str, StoredFile]) -> str | None:
    """Reason code where the image root (if it can be listed) does not have the container."""
    return "image_missing" if images and container not in images else None
