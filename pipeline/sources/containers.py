"""Files that hold many images or rows: which of them lie below `--masks`, and what lies there beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from pipeline.errors import RefusedError
from pipeline.sources import walks
from pipeline.sources.types import IMAGE_SUFFIXES, SourceInput
from pipeline.storage import Store, StoredFile, split_uri
from pipeline.storage.listing import look_up

COMPRESSED = (".gz", ".tgz", ".zst", ".bz2", ".xz", ".zip", ".7z", ".lz4")


class Piece(NamedTuple):
    """One file of a source that is read file by file. problem: reason code of all its images, None for none. tag: what
    the store tells it from another one of its name and size by, None for nothing.
    """

    path: str
    size: int
    problem: str | None
    tag: str | None = None


def pieces(given: SourceInput, suffix: str, beside: Collection[str] = ()) -> list[Piece]:
    """The containers, in order; see `find`. Each has a problem where the image root can be listed and lacks it.

    None has a tag where images lie beside them: rows may name these as their masks, and then say what was in them.
    """
    has_images = False

    def noted(files: Iterable[StoredFile]) -> Iterator[StoredFile]:
        nonlocal has_images
        for file in files:
            has_images = has_images or walks.has_suffix(file.path, IMAGE_SUFFIXES)
            yield file

    _, found = find(replace(given, within=lambda files: noted(given.within(files))), suffix, beside)
    there = look_up(given.images, [file.path for file in found]) if given.images else None
    problems = [None if there is None or file.path in there else "image_missing" for file in found]
    tags = [None if has_images else file.tag for file in found]
    return [Piece(file.path, file.size, why, tag) for file, why, tag in zip(found, problems, tags, strict=True)]


def root(given: SourceInput, suffix: str) -> Store:
    """The folder of the containers."""
    return (
        split_uri(given.masks_uri, given.access)[0] if is_alone(given, suffix) else Store(given.masks_uri, given.access)
    )


def find(given: SourceInput, suffix: str, beside: Collection[str] = ()) -> tuple[Store, list[StoredFile]]:
    """The store of the containers and those in it, in order; of one file, its folder and itself.

    beside: suffixes of files that belong to such a dataset and hold no masks. Raises RefusedError when there is none.
    """
    if given.masks_uri.endswith(suffix):
        store, name = split_uri(given.masks_uri, given.access)
        return store, [StoredFile(name, store.size(name), None)]
    store = Store(given.masks_uri, given.access)
    found = []
    for file in walks.listed(given):
        if file.path.endswith(suffix) and not hidden(file.path):
            found.append(file)
        elif walks.has_suffix(file.path, beside):
            given.coverage.ignore(file.path, "part of the dataset, no masks")
        elif walks.is_same_folder(given) and walks.has_suffix(file.path, IMAGE_SUFFIXES):
            given.coverage.ignore(file.path, walks.AN_IMAGE)
        else:
            given.coverage.leave(file.path, _why_not(file.path, suffix))
    if not found:
        raise RefusedError(f"{given.masks_uri} holds no {suffix} file")
    return store, sorted(found)


def is_alone(given: SourceInput, suffix: str) -> bool:
    """Whether `--masks` is one container: then what is wrong with it is wrong with the command."""
    return given.masks_uri.endswith(suffix)


def hidden(path: str) -> bool:
    """Whether a path lies in a folder, or is a file, that starts with a dot or an underscore."""
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _why_not(path: str, suffix: str) -> str:
    if path.lower().endswith(COMPRESSED):
        return "compressed: it cannot be read in place; decompress it"
    if path.endswith(suffix):
        return "hidden: its name, or a folder's, starts with . or _"
    return f"no {suffix} file"
