"""Object storage and file systems behind fsspec: read, list, and put atomically, with timeouts and bounded retries.

What a store answers (no such file, a path outside the root) is the exception that Python has for it; a store that
fails, or gives no answer within the tries, is a StorageError.

A Store is one root URI. Paths inside it are relative, with forward slashes. It is pickled to workers; each process
makes its own connection. Credentials come from the environment (AWS_*, GOOGLE_*, workload identity), never from here.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StorageError
from pipeline.storage import atomic, file_systems, s3_listing, tables
from pipeline.storage.backoff import ANSWERS, brief, deadline_s, is_failure, retried
from pipeline.storage.file_systems import Access, StoredFile
from pipeline.storage.paths import SPECIAL, Entry, check_opens, local_entries, refuse_secrets
from pipeline.storage.tables import READ_AHEAD_BYTES, Ranges, parquet_bytes

T = TypeVar("T")

UNKNOWN_BYTES = 1 << 30  # bounds the time of a read whose size nobody told


@dataclass(frozen=True)
class Store:
    """A root URI (`s3://bucket/prefix`, `/local/folder`, any fsspec URI) and how to reach it."""

    uri: str
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        refuse_secrets(self.uri)

    @cached_property
    def _fs_and_root(self) -> tuple[Any, str]:
        fs, root = file_systems.connect(self.uri, self.access.endpoint_url, self.access.timeout_s)
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

    def open(self, path: str, ahead_bytes: int = READ_AHEAD_BYTES) -> BinaryIO:
        """The file for reading at any place; a remote one is fetched in ranges of so many bytes, each with its own
        tries. Raises FileNotFoundError.
        """
        if self.is_local:
            check_opens(self.full(path))
            return Path(self.full(path)).open("rb")
        return cast(BinaryIO, Ranges(self.size(path), partial(self.read_range, path), ahead_bytes))

    def read_parquet(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A whole Parquet file, or some of its columns (`a.list.element.b` for a field in a list).

        Raises JobError when it is damaged, or is not there.
        """
        with tables.undamaged(f"{self.uri}/{path}"):
            return tables.read(pa.BufferReader(self.read(path)), columns)

    def put_parquet(self, path: str, table: pa.Table, row_group_rows: int | None = None) -> bytes:
        """Write `table` atomically; returns the file's bytes. The same table gives the same bytes."""
        self.put(path, data := parquet_bytes(table, row_group_rows))
        return data

    def read_rows(self, path: str, start: int, count: int, columns: list[str] | None = None) -> pa.Table:
        """Rows [start, start + count) of a Parquet file; only the row groups that hold them are fetched."""
        with tables.undamaged(f"{self.uri}/{path}"), self.open(path) as file:
            return tables.read_rows(file, start, count, columns)

    def scan(
        self,
        path: str,
        columns: dict[str, pc.Expression],
        where: pc.Expression | None = None,
        schema: pa.Schema | None = None,
        rows: range | None = None,
    ) -> pa.Table:
        """Columns of a Parquet file computed by expressions, rows in order; only what those need is fetched.

        schema: columns of it that the file does not have, because an earlier version wrote it, are null. rows: only
        these, then without `where`.
        """
        with tables.undamaged(f"{self.uri}/{path}"), self.open(path) as file:
            return tables.scan(file, columns, where, schema, rows)

    def put(self, path: str, data: bytes) -> None:
        """Write the file so that readers see all of it or nothing (one PUT; or temporary file, fsync, rename)."""
        try:
            if self.is_local:
                self._retried("write", path, lambda: atomic.put_local(Path(self.full(path)), data))
            else:
                self._call("write", "pipe_file", path, data, moved=len(data))
        except FileNotFoundError as error:  # an object store says so of a bucket
            raise StorageError(f"cannot write {self.uri}/{path}: {brief(error)}") from None

    def create(self, path: str, data: bytes) -> bool:
        """Write the file unless it is there; whether it was written (or holds `data`, which answers a lost reply).

        One winner among any number of writers where the store can do that; `lease.check_store` finds out.
        """
        if self.access.exclusive:
            return self._holds(path, data) if self.exists(path) else self._put_anyway(path, data)
        if self.is_local:
            return self._retried("write", path, lambda: atomic.create_local(Path(self.full(path)), data))
        return self._put_if(path, data, "pipe_file", self.full(path), data, mode="create")

    def versioned(self, path: str) -> tuple[bytes, str]:
        """The file, and its version for `swap`: of its content, or an older one. Raises FileNotFoundError."""
        if self.is_local:
            return (data := self.read(path)), atomic.content_version(data)
        version = file_systems.version_in(self._call("read", "info", path))
        return self.read(path), version

    def swap(self, path: str, data: bytes, version: str | None) -> bool:
        """As `create`, where the file still has that version (None: where there is none)."""
        if version is None:
            return self.create(path, data)
        if self.access.exclusive:
            return self._put_anyway(path, data)
        if self.is_local:
            return self._retried("write", path, lambda: atomic.swap_local(Path(self.full(path)), data, version))
        try:
            return self._put_if(path, data, *file_systems.put_if(self._fs_and_root[0], self.full(path), data, version))
        except FileNotFoundError:
            return False

    def _put_anyway(self, path: str, data: bytes) -> bool:
        self.put(path, data)
        return True

    def _put_if(self, path: str, data: bytes, method: Any, *arguments: Any, **options: Any) -> bool:
        """A conditional write: whether its condition held, or the file is what it should become."""

        def attempt() -> bool:
            try:
                self._timed(method, *arguments, moved=len(data), **options)
            except Exception as error:
                if file_systems.condition_failed(error):
                    return False
                raise
            return True

        return self._retried("write", path, attempt) or self._holds(path, data)

    def _holds(self, path: str, data: bytes) -> bool:
        with suppress(FileNotFoundError):
            return self.read(path) == data
        return False

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A file to write piece by piece; readers see all of it once the context ends well, else nothing.

        It grows on local disk: beside its target, or in a temporary folder until it is uploaded.
        """
        full = self.full(path)

        def upload(local: str, moved: int) -> None:
            self._retried("write", path, lambda: self._timed("put_file", local, full, moved=moved))

        place = full if self.is_local else f"temporary files in {tempfile.gettempdir()}"
        writer = atomic.local_writer(Path(full)) if self.is_local else atomic.spooled_writer(upload)
        with atomic.full_disk_told(place), writer as file:
            yield file

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
        if self.is_local:
            return [path for path, info in islice(self._entries("", True), 2 * limit) if SPECIAL not in info][:limit]
        return self._retried("list", "", partial(file_systems.some_files, *self._fs_and_root, limit))

    def list(self, folder: str = "", temporary: bool = False) -> list[StoredFile]:
        """All files below `folder`, sorted by path; empty when there is no such folder.

        temporary: list what unfinished writes left behind, and nothing else.
        """
        return sorted(self.walk(folder, temporary))

    def walk(
        self, folder: str = "", temporary: bool = False, follow_links: bool = False, bounds: Sequence[str] = ()
    ) -> Iterator[StoredFile]:
        """As `list`, one at a time and in no order: a listing of millions need not be held.

        follow_links: into folders that links on this machine lead to; what is no file comes too, and says so. bounds:
        paths, of no file, at which a store may divide a long listing.
        """
        prefix = self.full("").rstrip("/") + "/"
        for path, info in self._entries(folder, follow_links, bounds):
            if path.rpartition("/")[2].startswith(atomic.TEMPORARY_PREFIX) == temporary:
                yield file_systems.stored(path.removeprefix(prefix), info)

    def _entries(self, folder: str, follow_links: bool, bounds: Sequence[str] = ()) -> Iterator[Entry]:
        if self.is_local:
            try:
                yield from local_entries(self.full(folder), follow_links)
            except OSError as error:  # a folder left out would be images left out
                raise StorageError(f"cannot list {self.uri}/{folder}: {brief(error)}") from None
        else:
            ask, fs, full = self.asking(folder), self._fs_and_root[0], self.full(folder)
            found = partial(self._retried, "list", folder, partial(fs.find, full, detail=True))
            at = [self.full(path) for path in bounds]
            yield from s3_listing.entries(full, ask, at) if ask else file_systems.found_entries(fs, found)

    def asking(self, folder: str) -> s3_listing.Ask | None:
        """How S3 is asked for a page of the files below `folder`; None where the store is none."""
        if not hasattr(self._fs_and_root[0], "call_s3"):
            return None
        ask = partial(self._timed, "call_s3", "list_objects_v2")
        return lambda **asked: self._retried("list", folder, partial(ask, **asked))

    def _call(self, what: str, method: str, path: str, *arguments: Any, moved: int = 0, **options: Any) -> Any:
        """One method of the file system on one path, with time limit and retries. `moved`: bytes of the body."""
        full = self.full(path)
        if what == "read" and method != "exists" and self.is_local:
            check_opens(full)
        return self._retried(what, path, lambda: self._timed(method, full, *arguments, moved=moved, **options))

    def _timed(self, method: Any, *arguments: Any, moved: int = 0, **options: Any) -> Any:
        """A method of the file system, by name or as a function, within a limit of time where it takes one."""
        fs = self._fs_and_root[0]
        if getattr(fs, "async_impl", False):
            options["timeout"] = deadline_s(self.access.timeout_s, moved)  # read timeouts are per packet only
        return (getattr(fs, method) if isinstance(method, str) else method)(*arguments, **options)

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


def split_uri(uri: str, access: Access) -> tuple[Store, str]:
    """A file's URI -> the store of its folder, and its name."""
    refuse_secrets(uri)
    folder, _, name = uri.rpartition("/")
    return Store(folder or (f"{uri.partition('://')[0]}://" if "://" in uri else "."), access), name
