"""Images inside containers, read in place: a byte range of a tar, a cell of a Parquet file. Nothing is unpacked.

An image in a container has the URI `path/container.tar#name`, or `path/file.parquet#000000000123` (its row). Where it
stands is in the plan (`Member`); readers of a result, who have the URI alone, look into the container (`read_image`).
"""

from __future__ import annotations

import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ImageError, RefusedError
from pipeline.storage.backoff import STORE_ERRORS, brief
from pipeline.storage.file_systems import Access
from pipeline.storage.store import Store

MARK = "#"
MAX_LINKS = 8
TAR, PARQUET = ".tar", ".parquet"
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "picture", "image_bytes", "photo")
URI_COLUMNS = ("image_uri", "image_path", "file_name", "filepath", "image_file", "uri", "path", "url")


class Member(TypedDict):
    """Where an image stands. Tar: `length` bytes from `offset`, `column` null. Parquet: row `offset` of `column`."""

    container: str
    offset: int
    length: int
    column: str | None


def member_uri(container: str, name: str | int) -> str:
    """The URI of an image in a container; rows sort as numbers do."""
    return f"{container}{MARK}{name:012d}" if isinstance(name, int) else f"{container}{MARK}{name}"


def split_member(uri: str) -> tuple[str, str] | None:
    """Container and name, where a URI is that of a member."""
    for suffix in (TAR, PARQUET):
        container, mark, name = uri.partition(suffix + MARK)
        if mark and container and name:
            return container + suffix, name
    return None


def read_member(store: Store, member: Member) -> bytes:
    """The bytes of an image in a tar. Raises ImageError where the container ends before it does."""
    data = store.read_range(member["container"], member["offset"], member["length"])
    if len(data) != member["length"]:
        raise ImageError("image_truncated", f"{member['container']} ends within the image")
    return data


def read_cells(store: Store, members: Sequence[tuple[str, Member]]) -> dict[str, bytes | ImageError]:
    """(id, member) of images in Parquet files -> their bytes by id; each row group that holds one is read once."""
    found: dict[str, bytes | ImageError] = {}
    by_column: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for image_id, member in members:
        by_column[member["container"], member["column"] or ""].append((member["offset"], image_id))
    for (container, column), wanted in by_column.items():
        try:
            found.update(_read_column(store, container, column, sorted(wanted)))
        except FileNotFoundError:
            found.update({image_id: ImageError("image_missing", container) for _, image_id in wanted})
        except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError) as error:
            found.update({image_id: ImageError("image_unreadable", brief(error)) for _, image_id in wanted})
        except STORE_ERRORS as error:
            found.update({image_id: ImageError("storage", brief(error)) for _, image_id in wanted})
    return found


def _read_column(
    store: Store, container: str, column: str, wanted: Sequence[tuple[int, str]]
) -> Iterator[tuple[str, bytes | ImageError]]:
    with store.open(container) as file:
        parquet = pq.ParquetFile(file)
        first = 0
        for group in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(group).num_rows
            here = [(row - first, image_id) for row, image_id in wanted if first <= row < end]
            if here:
                cells = parquet.read_row_group(group, columns=[column])[column]
                for row, image_id in here:
                    yield image_id, _cell(cells[row].as_py(), container)
            first = end
        for row, image_id in wanted:
            if row >= first:
                yield image_id, ImageError("image_missing", f"{container} has no row {row}")


def _cell(value: Any, container: str) -> bytes | ImageError:
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) else ImageError("image_missing", f"{container}: the cell holds no image")


def image_column(schema: pa.Schema) -> str | None:
    """The column that holds images, as bytes or as {bytes, path}."""
    fitting = [field.name for field in schema if _holds_bytes(field.type)]
    return next((name for name in IMAGE_COLUMNS if name in fitting), None)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def read_image(store: Store, uri: str) -> bytes:
    """The bytes of an image by its URI alone, in a container or not. Raises ImageError."""
    inside = split_member(uri)
    try:
        if inside is None:
            return store.read(uri)
        container, name = inside
        if container.endswith(PARQUET):
            return _read_row(store, container, name)
        place = tar_members(store.uri, store.access, container).get(name)
        if place is None:
            raise ImageError("image_missing", uri)
        return read_member(store, {"container": container, "offset": place[0], "length": place[1], "column": None})
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ImageError("image_missing", uri) from None
    except pa.ArrowInvalid as error:  # it is a ValueError, too
        raise ImageError("image_unreadable", brief(error)) from None
    except ValueError as error:
        raise ImageError("image_outside_root", brief(error)) from None


def _read_row(store: Store, container: str, name: str) -> bytes:
    if not name.isdigit():
        raise ImageError("image_missing", f"{container} has no row {name!r}")
    with store.open(container) as file:
        column = image_column(pq.read_schema(file))
    member: Member = {"container": container, "offset": int(name), "length": 0, "column": column}
    data = read_cells(store, [("", member)])[""]
    if isinstance(data, ImageError):
        raise data
    return data


@lru_cache(maxsize=8)
def tar_members(root: str, access: Access, container: str) -> dict[str, tuple[int, int]]:
    """Name -> (offset, length) of the files in a tar; of two of one name the last, as tar has it."""
    with Store(root, access).open(container) as file:
        found = tar_contents(file, container)
    if found.problem:
        raise RefusedError(found.problem)
    return {one.name: (one.offset, one.length) for one in found.files}


class TarFile(NamedTuple):
    """A file in a tar: `length` bytes from `offset` on."""

    name: str
    offset: int
    length: int


class TarContents(NamedTuple):
    """What a tar holds, in its order, as far as it can be read. others: names of what is neither a file nor a folder,
    or leads to none in the tar, with what it is. problem: why the rest cannot be read, "" where it can. is_closed:
    whether the mark stands at its end that says that nothing is missing.
    """

    files: list[TarFile]
    others: list[tuple[str, str]]
    problem: str
    is_closed: bool


class _Link(NamedTuple):
    """target: the name of the member that it leads to; "" for what is no link."""

    name: str
    target: str
    what: str


def tar_contents(file: BinaryIO, name: str) -> TarContents:
    """What an uncompressed tar holds, by its headers. Links are the files that they lead to."""
    found: list[TarFile | _Link] = []
    problem, end = "", b""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if not info.isdir():
                    found.append(_entry(info))
                tar.members = []  # type: ignore[attr-defined] # the list would grow with the archive
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if any(end) or 0 < len(end) < tarfile.BLOCKSIZE:  # tarfile takes what it cannot read for the end
                problem = f"{name} is damaged, or was cut, at byte {tar.offset:,}: no member begins there"
    except (tarfile.TarError, EOFError, ValueError) as error:
        problem = f"{name} is not an uncompressed tar, or is damaged: {brief(error)}"
    last = {posixpath.normpath(one.name): one for one in found}
    whole = [one if isinstance(one, TarFile) else _followed(one, last) for one in found]
    files = [one for one in whole if isinstance(one, TarFile)]
    others = [(one.name, one.what) for one in whole if isinstance(one, _Link)]
    return TarContents(files, others, problem, is_closed=bool(end))


def _entry(info: tarfile.TarInfo) -> TarFile | _Link:
    if info.isreg() and not info.issparse():
        return TarFile(info.name, info.offset_data, info.size)
    if info.islnk():  # named from the tar's root
        return _Link(info.name, info.linkname, "a link to what is no file in the tar")
    if info.issym():  # named from its own folder
        target = posixpath.normpath(posixpath.join(posixpath.dirname(info.name), info.linkname))
        return _Link(info.name, target, "a link to what is no file in the tar")
    return _Link(info.name, "", "a sparse file" if info.isreg() else "no file")


def _followed(link: _Link, last: Mapping[str, TarFile | _Link]) -> TarFile | _Link:
    """The file that a link leads to, under the link's name; the link where it leads to none."""
    found: TarFile | _Link | None = link
    for _ in range(MAX_LINKS):
        if not isinstance(found, _Link) or not found.target:
            break
        found = last.get(posixpath.normpath(found.target))
    return found._replace(name=link.name) if isinstance(found, TarFile) else link
