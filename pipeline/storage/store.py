"""Object storage and file systems behind fsspec: read, list, and put atomically, with timeouts and bounded retries.

What a store answers (no such file, a path outside the root) is the exception that Python has for it; a store that
fails, or gives no answer within the tries, is a StorageError.

A Store is one root URI. Paths inside it are relative, with forward slashes. It is pickled to workers; each process
makes its own connection. Credentials come from the environment (AWS_*, GOOGLE_*, workload identity), never from here.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import JobError, StorageError
from pipeline.storage.atomic import TEMPORARY_PREFIX, create_local, local_writer, put_local
from pipeline.storage.backoff import ANSWERS, deadline_s, is_failure, retried
from pipeline.storage.file_systems import (
    SPECIAL,
    Entry,
    check_opens,
    connect,
    etag,
    found_entries,
    local_entries,
    modified_s,
    s3_entries,
)
from pipeline.storage.paths import refuse_secrets
from pipeline.storage.ranges import Ranges
from schemas import secrets

T = TypeVar("T")

UNKNOWN_BYTES = 1 << 30
"""Bounds the time of a read whose size nobody told."""
BLOCK_BYTES = 1 << 20


class StoredFile(NamedTuple):
    """One file of a listing: path relative to the store, size in bytes, the store's etag and time of writing (seconds
    since 1970) where it has them. special: why it is no file, "" for those that are.
    """

    path: str
    size: int
    etag: str | None
    modified_s: float | None = None
    special: str = ""


@dataclass(frozen=True)
class Access:
    """How a store is spoken to; the same for every store of a run."""

    endpoint_url: str | None = None
    tries: int = 8
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        refuse_secrets(self.endpoint_url or "")


@dataclass(frozen=True)
class Store:
    """A root URI (`s3://bucket/prefix`, `/local/folder`, any fsspec URI) and how to reach it."""

    uri: str
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        refuse_secrets(self.uri)

    @cached_property
    def _fs_and_root(self) -> tuple[Any, str]:
        fs, root = connect(self.uri, self.access.endpoint_url, self.access.timeout_s)
        if hasattr(fs, "retries"):
            fs.retries = 1  # ours are enough; see storage/backoff.py
        return fs, root.rstrip("/") or "/"

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "access": self.access}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def is_local(self) -> bool:
        """Whether files live on this machine's file system (and every node's, if there are several)."""
        protocol = self._fs_and_root[0].protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def full(self, path: str) -> str:
        """The path as fsspec takes it. Raises ValueError when it would leave the root."""
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} leaves {self.uri}")
        return f"{self._fs_and_root[1].rstrip('/')}/{path}" if path else self._fs_and_root[1]

    def read(self, path: str, size_bytes: int | None = None) -> bytes:
        """The whole file. `size_bytes`, where it is known, bounds the time it may take. Raises FileNotFoundError."""
        return bytes(self._call("read", "cat_file", path, moved=size_bytes or UNKNOWN_BYTES))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """`length` bytes from `start` on; fewer where the file ends. Raises FileNotFoundError."""
        return bytes(self._call("read", "cat_file", path, start=start, end=start + length, moved=length))

    def size(self, path: str) -> int:
        """Bytes of the file. Raises FileNotFoundError."""
        return int(self._call("read", "info", path)["size"] or 0)

    def open(self, path: str) -> BinaryIO:
        """The file for reading at any place; a remote one is fetched in ranges, each with its own tries.

        Raises FileNotFoundError.
        """
        if self.is_local:
            check_opens(self.full(path))
            return Path(self.full(path)).open("rb")
        return cast(BinaryIO, Ranges(self.size(path), partial(self.read_range, path)))

    def read_parquet(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A whole Parquet file, or some of its columns (`a.list.element.b` for a field in a list).

        Raises JobError when it is damaged.
        """
        with self._undamaged(path):
            return pq.ParquetFile(pa.BufferReader(self.read(path))).read(columns)

    def put_parquet(self, path: str, table: pa.Table, row_group_rows: int | None = None) -> bytes:
        """Write `table` atomically; returns the file's bytes. The same table gives the same bytes."""
        data = parquet_bytes(table, row_group_rows)
        self.put(path, data)
        return data

    def read_rows(self, path: str, start: int, count: int, columns: list[str] | None = None) -> pa.Table:
        """Rows [start, start + count) of a Parquet file; only the row groups that hold them are fetched."""
        with self._undamaged(path), self.open(path) as file:
            parquet = pq.ParquetFile(file)
            groups: list[int] = []
            first_row, row = 0, 0
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if row < start + count and row + rows > start:
                    first_row = row if not groups else first_row
                    groups.append(group)
                row += rows
            return parquet.read_row_groups(groups, columns=columns).slice(start - first_row, count)

    @contextmanager
    def _undamaged(self, path: str) -> Iterator[None]:
        """Arrow's complaints about a file's content as one line."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise JobError(f"{self.uri}/{path} is damaged: {brief(error)}") from None

    def scan(
        self,
        path: str,
        columns: dict[str, pc.Expression],
        where: pc.Expression | None = None,
        schema: pa.Schema | None = None,
    ) -> pa.Table:
        """Columns of a Parquet file computed by expressions, rows in order; only what those need is fetched.

        schema: columns of it that the file does not have, because an earlier version wrote it, are null.
        """
        import pyarrow.dataset as ds  # it imports pandas, which takes longer than all else that a command needs

        with self._undamaged(path), self.open(path) as file:
            fragment = ds.ParquetFileFormat().make_fragment(pa.PythonFile(file, mode="r"))
            return fragment.to_table(schema=schema, columns=columns, filter=where)

    def put(self, path: str, data: bytes) -> None:
        """Write the file so that readers see all of it or nothing (one PUT; or temporary file, fsync, rename)."""
        try:
            if self.is_local:
                self._retried("write", path, lambda: put_local(Path(self.full(path)), data))
            else:
                self._call("write", "pipe_file", path, data, moved=len(data))
        except FileNotFoundError as error:  # an object store says so of a bucket
            raise StorageError(f"cannot write {self.uri}/{path}: {brief(error)}") from None

    def create(self, path: str, data: bytes) -> bool:
        """Write the file unless it is there; whether it was written (or holds `data`, which answers a lost reply).

        One winner among any number of writers where the store can do that; `lease.check_store` finds out.
        """
        if self.is_local:
            return self._retried("write", path, lambda: create_local(Path(self.full(path)), data))

        def attempt() -> bool:
            try:
                self._timed("pipe_file", self.full(path), data, mode="create", moved=len(data))
            except OSError as error:
                if isinstance(error, FileExistsError) or "precondition" in str(error).lower():
                    return False
                raise
            return True

        if self._retried("write", path, attempt):
            return True
        with suppress(FileNotFoundError):
            return self.read(path) == data
        return False

    def download(self, path: str, to: Path) -> str:
        """Copy the file to a local path, block by block; returns its SHA-256 (hex). Raises FileNotFoundError."""
        sha256 = hashlib.sha256()
        with self.open(path) as source, to.open("wb") as target:
            while block := source.read(BLOCK_BYTES):
                sha256.update(block)
                target.write(block)
        return sha256.hexdigest()

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A file to write piece by piece; readers see all of it once the context ends well, else nothing.

        It grows on local disk: beside its target, or in a temporary folder until it is uploaded.
        """
        if self.is_local:
            with local_writer(Path(self.full(path))) as local:
                yield local
            return
        with tempfile.NamedTemporaryFile(prefix="relabel-") as spooled:
            yield cast(BinaryIO, spooled)
            spooled.flush()
            moved = Path(spooled.name).stat().st_size
            full = self.full(path)
            self._retried("write", path, lambda: self._timed("put_file", spooled.name, full, moved=moved))

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return bool(self._call("read", "exists", path))

    def has_entries(self) -> bool:
        """Whether the root is a folder with something in it."""
        return bool(self._call("list", "ls", "", detail=False))

    def delete(self, path: str) -> None:
        """Remove the file; no error when it is already gone."""
        with suppress(FileNotFoundError):
            self._call("delete", "rm_file", path)

    def some(self, limit: int) -> list[str]:
        """Paths of a few files below the root, in no order, without listing all of them."""
        fs, root = self._fs_and_root
        if self.is_local:
            return [path for path, info in islice(self._entries("", True), 2 * limit) if SPECIAL not in info][:limit]

        def walk() -> list[str]:
            found: list[str] = []
            for folder, _, names in fs.walk(root):
                found += [f"{folder}/{name}" for name in names]
                if len(found) >= limit:
                    break
            return found[:limit]

        return self._retried("list", "", walk)

    def list(self, folder: str = "", temporary: bool = False) -> list[StoredFile]:
        """All files below `folder`, sorted by path; empty when there is no such folder.

        temporary: list what unfinished writes left behind, and nothing else.
        """
        return sorted(self.walk(folder, temporary))

    def walk(self, folder: str = "", temporary: bool = False, follow_links: bool = False) -> Iterator[StoredFile]:
        """As `list`, one at a time and in no order: a listing of millions need not be held.

        follow_links: into folders that links on this machine lead to; what is no file comes too, and says so.
        """
        prefix = self.full("").rstrip("/") + "/"
        for path, info in self._entries(folder, follow_links):
            if path.rpartition("/")[2].startswith(TEMPORARY_PREFIX) == temporary:
                size = int(info.get("size") or info.get("Size") or 0)
                special = str(info.get(SPECIAL, ""))
                yield StoredFile(path.removeprefix(prefix), size, etag(info), modified_s(info), special)

    def _entries(self, folder: str, follow_links: bool) -> Iterator[Entry]:
        fs = self._fs_and_root[0]
        if self.is_local:
            try:
                yield from local_entries(self.full(folder), follow_links)
            except OSError as error:  # a folder left out would be images left out
                raise StorageError(f"cannot list {self.uri}/{folder}: {brief(error)}") from None
        elif hasattr(fs, "call_s3"):
            ask = partial(self._timed, "call_s3", "list_objects_v2")
            tried = partial(self._retried, "list", folder)
            yield from s3_entries(self.full(folder), lambda **asked: tried(partial(ask, **asked)))
        else:
            find = partial(fs.find, self.full(folder), detail=True)
            yield from found_entries(fs, partial(self._retried, "list", folder, find))

    def _call(self, what: str, method: str, path: str, *arguments: Any, moved: int = 0, **options: Any) -> Any:
        """One method of the file system on one path, with time limit and retries. `moved`: bytes of the body."""
        full = self.full(path)
        if what == "read" and method != "exists" and self.is_local:
            check_opens(full)
        return self._retried(what, path, lambda: self._timed(method, full, *arguments, moved=moved, **options))

    def _timed(self, method: str, *arguments: Any, moved: int = 0, **options: Any) -> Any:
        """The network file systems of fsspec take a limit for the whole call; read timeouts are per packet only."""
        fs = self._fs_and_root[0]
        if getattr(fs, "async_impl", False):
            options["timeout"] = deadline_s(self.access.timeout_s, moved)
        return getattr(fs, method)(*arguments, **options)

    def _retried(self, what: str, path: str, action: Callable[[], T]) -> T:
        try:
            return retried(action, self.access.tries)
        except ANSWERS:
            raise
        except Exception as error:
            if not is_failure(error):
                raise
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                raise FileNotFoundError(f"no file can have the name {path[:100]}...") from None
            raise StorageError(f"cannot {what} {self.uri}/{path}: {brief(error)}") from None


def parquet_bytes(table: pa.Table, row_group_rows: int | None = None) -> bytes:
    """`table` as a Parquet file (zstd). Deterministic for one pyarrow version."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_rows)
    return bytes(sink.getvalue().to_pybytes())


def split_uri(uri: str, access: Access) -> tuple[Store, str]:
    """A file's URI -> the store of its folder, and its name."""
    refuse_secrets(uri)
    folder, _, name = uri.rpartition("/")
    return Store(folder or (f"{uri.partition('://')[0]}://" if "://" in uri else "."), access), name


def brief(error: BaseException) -> str:
    """One line for a user; botocore and aiohttp say the rest of it in a page."""
    text = secrets.redacted(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
