"""An inventory as the listing of `--images`: what the store wrote down of its objects, in place of a walk.

    manifest.json   of S3 Inventory, with data files in CSV (gzip or not), Parquet or ORC
    *.parquet       a file, or a folder of them, with the columns uri, key or path; size; and etag, where it is known

A `uri` is whole, or relative to `--images` as a `path` is; a `key` is one of the bucket. Entries that lie elsewhere in
the bucket are no images of `--images`, as with a walk; old versions and delete markers are no files.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RefusedError
from pipeline.storage import Access, Store, StoredFile, brief
from pipeline.storage.containers import PARQUET
from pipeline.storage.paths import safe_relative
from pipeline.storage.preflight import read_uri
from pipeline.storage.store import split_uri

MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 28
BATCH_ROWS = 65_536
COLUMNS = {
    "uri": "uri",
    "key": "key",
    "path": "path",
    "size": "size",
    "sizebytes": "size",
    "etag": "etag",
    "lastmodifieddate": "modified",
    "islatest": "is_latest",
    "isdeletemarker": "is_delete_marker",
}
"""What a column is, by its name in small letters without what joins words."""
NAMES = ("uri", "key", "path")

Columns = dict[str, list[Any]]


class DataFile(NamedTuple):
    """A file of an inventory. told_size: what its manifest says. tag: what the manifest, or the store, tells it from
    another one of its name and size by, None for nothing.
    """

    store: Store
    path: str
    size: int
    told_size: int | None = None
    tag: str | None = None


class Some(NamedTuple):
    """Files below `--images`, and among how many entries."""

    files: list[StoredFile]
    entries: int


@dataclass(frozen=True)
class Inventory:
    """Data files, how one is read in columns (names of COLUMNS), and the bucket that keys are of, where it is said.
    Its data files can be read by themselves, wherever that is done.
    """

    uri: str
    images_uri: str
    files: Sequence[DataFile]
    read: Callable[[BinaryIO], Iterator[Columns]]
    bucket: str | None = None

    def scan(self, data: DataFile) -> Iterator[Some]:
        """One of its files. Raises RefusedError where it is damaged."""
        roots, where = _roots(self.images_uri), f"{data.store.uri}/{data.path}"
        for columns in _columns(self, data):
            yield Some(_checked_files(columns, roots, where), len(next(iter(columns.values()))))

    def walk(self) -> Iterator[StoredFile]:
        """The files below `--images`, in no order. Raises RefusedError where there are none, or a file is damaged."""
        entries = found = 0
        for data in self.files:
            for some in self.scan(data):
                entries += some.entries
                found += len(some.files)
                yield from some.files
        self.check(found, entries)

    def check(self, found: int, entries: int) -> None:
        """Raises RefusedError where none of all its entries was found below `--images`."""
        if not found:
            raise RefusedError(
                f"none of the {entries} entries of the inventory {self.uri} lies below {self.images_uri}"
            )


def check(uri: str, access: Access, images_uri: str) -> None:
    """Raise RefusedError for what is no inventory, or one of another bucket."""
    open_inventory(uri, access, images_uri)


def open_inventory(uri: str, access: Access, images_uri: str) -> Inventory:
    """Its data files are not read yet. Raises RefusedError for what is no inventory, or one of another bucket."""
    if uri.endswith(f"/{MANIFEST}"):
        return _from_manifest(uri, access, images_uri)
    store, name = split_uri(uri, access) if uri.endswith(PARQUET) else (Store(uri, access), "")
    listed = [file for file in store.list() if file.path.endswith(PARQUET)] if not name else []
    files = [DataFile(store, file.path, file.size, tag=file.tag) for file in listed]
    files = files or ([DataFile(store, name, 0)] if name else [])
    if not files:
        raise RefusedError(f"the inventory {uri} is no {MANIFEST}, and has no file *{PARQUET}")
    return Inventory(uri, images_uri, files, _parquet)


def _from_manifest(uri: str, access: Access, images_uri: str) -> Inventory:
    """Data files lie in the folder `data` beside the manifest's own folder."""
    try:
        content = json.loads(read_uri(uri, access, MANIFEST_BYTES, "inventory"))
        files, kind, schema = content["files"], content["fileFormat"], content["fileSchema"]
        names = [(_last(str(file["key"])), int(file["size"]), str(file.get("MD5checksum") or "")) for file in files]
        bucket = str(content["sourceBucket"])
        readers = {"CSV": _csv_reader(str(schema)), "Parquet": _parquet, "ORC": _orc}
        read = readers[kind]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(f"{uri} is no manifest of an S3 Inventory: {brief(error)}") from None
    if "://" in images_uri and _bucket(images_uri) != bucket:
        raise RefusedError(f"the inventory {uri} is of the bucket {bucket}, and --images is {images_uri}")
    store = Store(f"{uri.rsplit('/', 2)[0]}/data", access)
    files = [DataFile(store, name, size, size, md5 or None) for name, size, md5 in names]
    return Inventory(uri, images_uri, files, read, bucket)


def _last(key: str) -> str:
    return key.rpartition("/")[2]


def _columns(inventory: Inventory, data: DataFile) -> Iterator[Columns]:
    where = f"{data.store.uri}/{data.path}"
    try:
        if data.told_size is not None and (size := data.store.size(data.path)) != data.told_size:
            raise RefusedError(f"{where} has {size} bytes, its manifest says {data.told_size}")
        with data.store.open(data.path) as file:
            for columns in inventory.read(file):
                if missing := [name for name in ("size",) if name not in columns] + _unnamed(columns):
                    raise RefusedError(f"the inventory {where} has no column {' and none '.join(missing)}")
                yield columns
    except FileNotFoundError:
        raise RefusedError(f"{where}, which an inventory names, is not there") from None
    except (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error, ValueError) as error:
        raise RefusedError(f"{where} cannot be read as an inventory: {brief(error)}") from None


def _unnamed(columns: Columns) -> list[str]:
    return [] if any(name in columns for name in NAMES) else ["uri, key or path"]


def _parquet(file: BinaryIO) -> Iterator[Columns]:
    parquet = pq.ParquetFile(file)
    names = _known(parquet.schema_arrow.names)
    for batch in parquet.iter_batches(BATCH_ROWS, columns=list(names)):
        yield {names[name]: _texts(batch[name]) for name in names}


def _orc(file: BinaryIO) -> Iterator[Columns]:
    from pyarrow import orc

    found = orc.ORCFile(file)
    names = _known(found.schema.names)
    for number in range(found.nstripes):
        stripe = found.read_stripe(number, columns=list(names))
        yield {names[name]: _texts(stripe[name]) for name in names}


def _csv_reader(schema: str) -> Callable[[BinaryIO], Iterator[Columns]]:
    """schema: the names of the columns, which the files themselves do not have. Keys are encoded as in URLs."""
    columns = [name.strip() for name in schema.split(",")]
    names = _known(columns)

    def read(file: BinaryIO) -> Iterator[Columns]:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        text = io.TextIOWrapper(gzip.GzipFile(fileobj=file), "utf-8") if zipped else codecs.getreader("utf-8")(file)
        for batch in _batches(csv.reader(text)):
            if any(len(row) != len(columns) for row in batch):
                raise ValueError(f"a row has other columns than {schema}")
            found = dict(zip(columns, map(list, zip(*batch, strict=True)), strict=True))
            told: Columns = {names[name]: found[name] for name in names}
            yield {**told, "key": [unquote_plus(key) for key in told["key"]]} if "key" in told else told

    return read


def _batches(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    batch: list[list[str]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _known(columns: Sequence[str]) -> dict[str, str]:
    """A file's columns that are used: name in the file -> what it is."""
    bare = {name: name.lower().replace("_", "").replace(" ", "") for name in columns}
    return {name: COLUMNS[found] for name, found in bare.items() if found in COLUMNS}


def _texts(values: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values; text that is stored as bytes is decoded, as S3 writes it in Parquet."""
    is_bytes = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    return list((values.cast(pa.string()) if is_bytes else values).to_pylist())


class _Roots(NamedTuple):
    """What stands before a path below `--images`: in a whole URI, and in a key of the bucket."""

    uri: str
    key: str


def _roots(images_uri: str) -> _Roots:
    root = f"{images_uri.rstrip('/')}/"
    key = root.partition("://")[2].partition("/")[2] if "://" in root else ""
    return _Roots(root, key)


def _bucket(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


def _checked_files(columns: Columns, roots: _Roots, where: str) -> list[StoredFile]:
    try:
        return list(_files(columns, roots))
    except ValueError as error:
        raise RefusedError(f"{where} cannot be read as an inventory: {brief(error)}") from None


def _files(columns: Columns, roots: _Roots) -> Iterator[StoredFile]:
    kind = next(name for name in NAMES if name in columns)
    nothing: list[Any] = [None] * len(columns[kind])
    told = (columns.get(name, nothing) for name in ("size", "etag", "modified", "is_latest", "is_delete_marker"))
    for name, size, etag, modified, latest, marker in zip(columns[kind], *told, strict=True):
        path = _below(str(name or ""), kind, roots)
        if path and not safe_relative(path):
            raise RefusedError(f"the inventory names {name}, which leaves --images")
        if path and not path.endswith("/") and _is_true(latest, True) and not _is_true(marker, False):
            yield StoredFile(path, int(size or 0), str(etag).strip('"') if etag else None, _seconds(modified))


def _below(name: str, kind: str, roots: _Roots) -> str:
    """The path below `--images`; "" for what lies elsewhere."""
    if kind == "path":
        return name
    if kind == "uri":
        is_whole = "://" in name or name.startswith("/")
        return name.removeprefix(roots.uri) if not is_whole or name.startswith(roots.uri) else ""
    return name[len(roots.key) :] if name.startswith(roots.key) else ""


def _is_true(value: Any, default: bool) -> bool:
    return default if value in (None, "") else value is True or str(value).lower() == "true"


def _seconds(modified: Any) -> float | None:
    """When a file was written, seconds since 1970."""
    if isinstance(modified, str) and modified:
        modified = datetime.fromisoformat(modified)
    return modified.timestamp() if isinstance(modified, datetime) else None
