"""A folder of documents, JSON or XML, one for an image: read ahead, in order, and what is not read is named.

What one document holds is its source's business (`labelme.py`, `sa1b.py`, ...). `--masks` may also be one document.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.sources import annotated, walks, xml_stream
from pipeline.sources.annotated import Annotated
from pipeline.sources.pairs import stem
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, SourceInput
from pipeline.storage import Store, StoredFile, split_uri

BATCH = 256
BATCH_BYTES = 1 << 26
MAX_BYTES = 1 << 28
SUFFIX = ".json"


@dataclass(frozen=True)
class Wrong:
    """Why a document has no content."""

    reason: str
    detail: str = ""


def json_of(data: bytes) -> Any:
    """The object in a JSON document."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Wrong("no JSON", str(error)[:80])
    return content if isinstance(content, dict) else Wrong("no JSON object")


def xml_of(data: bytes) -> Any:
    """The outermost element of an XML document."""
    try:
        return xml_stream.parse(data)
    except xml_stream.MarkupError as error:
        return Wrong("no XML", str(error)[:80])


@dataclass(frozen=True)
class Form:
    """A format of documents.

    read: path and content -> what it says of its image; None: the document is of another format. beside: why other
    files of that suffix are no documents. decode: content of a file's bytes.
    """

    name: str
    read: Callable[[str, Any, SourceInput], Annotated | None]
    beside: walks.Beside = walks.nothing_beside
    suffix: str = SUFFIX
    decode: Callable[[bytes], Any] = json_of


def scan(given: SourceInput, form: Form, order: Iterable[str] = ()) -> Iterator[PlannedImage]:
    """Every image that has a document."""
    yield from annotated.plan(given, _found(given, form), order)


def _found(given: SourceInput, form: Form) -> Iterator[Annotated]:
    store, files = _documents(given, form)
    with ThreadPoolExecutor(given.threads) as pool:
        for batch in _batches(files):
            for file, content in zip(batch, pool.map(lambda one: _read(store, one, form), batch), strict=True):
                one = None if isinstance(content, Wrong) else form.read(file.path, content, given)
                if one is not None:
                    given.coverage.take(file.path)
                    yield one
                else:
                    given.coverage.leave(file.path, *_why_not(content, form))


def _batches(files: Iterable[StoredFile]) -> Iterator[list[StoredFile]]:
    """A bounded number of files, and of bytes: some hold their images too."""
    batch: list[StoredFile] = []
    held = 0
    for file in files:
        batch.append(file)
        held += file.size
        if len(batch) >= BATCH or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _documents(given: SourceInput, form: Form) -> tuple[Store, Iterator[StoredFile]]:
    if given.masks_uri.lower().endswith(form.suffix):
        store, name = split_uri(given.masks_uri, given.access)
        return store, iter([StoredFile(name, store.size(name), None)])
    return Store(given.masks_uri, given.access), walks.mask_files(given, {form.suffix}, form.beside)


def _read(store: Store, file: StoredFile, form: Form) -> Any:
    """A document's content, or what is Wrong with it."""
    if file.size > MAX_BYTES:
        return Wrong("too large", f"{file.size} bytes, more than {MAX_BYTES}")
    try:
        data = store.read(file.path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return Wrong("gone", "it is listed and cannot be opened; a link to nothing?")
    return form.decode(data)


def _why_not(content: Any, form: Form) -> tuple[str, str]:
    """Reason and detail."""
    if isinstance(content, Wrong):
        return content.reason, content.detail
    said = f"its keys are {', '.join(map(str, content))}" if isinstance(content, dict) else f"it is <{content.tag}>"
    return f"no document of {form.name}", said[:200]


def names_of(path: str, stated: str, given: SourceInput) -> Iterator[str]:
    """The images that a document may mean, likeliest first: where its name says, seen from where it lies; beside it by
    the last part of the name; by that alone; by the document's own name.
    """
    folder, said = posixpath.dirname(path), stated.replace("\\", "/")
    last = said.rpartition("/")[2]
    if said:
        inside = _seen_from(given, folder, said)
        plain = _inside(posixpath.join(folder, said))
        yield from (name for name in (inside, plain, posixpath.join(folder, last)) if name)
        yield from (_inside(said), last)
    own = stem(path)
    for suffix in ("", *sorted(IMAGE_SUFFIXES)):
        yield from (f"{own}{suffix}", f"{own}{suffix.upper()}")


def _seen_from(given: SourceInput, folder: str, said: str) -> str | None:
    """The path in --images of a name that is relative to a folder in --masks, where it leads there."""
    if not given.images_uri:
        return None
    masks, images = _roots(given.masks_uri, given.images_uri)
    whole = posixpath.normpath(posixpath.join(masks, folder, said))
    return whole[len(images) + 1 :] if whole.startswith(f"{images}/") else None


@lru_cache(maxsize=8)
def _roots(masks_uri: str, images_uri: str) -> tuple[str, str]:
    """Both folders as paths from one root."""
    folder = masks_uri.rpartition("/")[0] if masks_uri.lower().endswith((SUFFIX, ".xml")) else masks_uri
    scheme, slashes, masks = walks.location(folder or ".").rpartition("://")
    return masks, walks.location(images_uri).removeprefix(scheme + slashes)


def _inside(path: str) -> str:
    """Without what leads out of the folder."""
    return "/".join(part for part in posixpath.normpath(path).split("/") if part not in ("", ".", ".."))
