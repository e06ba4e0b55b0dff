"""Object storage and file systems behind fsspec: read, list, and put atomically, with bounded retries.

A Store is one root URI. Paths inside it are relative, with forward slashes. It is pickled to workers; each process
makes its own connection. Credentials come from the environment (AWS_*, GOOGLE_*, workload identity), never from here.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RefusedError

T = TypeVar("T")

FINAL_ERRORS = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    FileExistsError,
    ValueError,  # a path outside the root, a damaged Parquet file
)
"""Asking again would not change these answers."""


class StoredFile(NamedTuple):
    """One file of a listing: path relative to the store, size in bytes, and the store's etag where it has one."""

    path: str
    size: int
    etag: str | None


@dataclass(frozen=True)
class Access:
    """How a store is spoken to; the same for every store of a run."""

    endpoint_url: str | None = None
    tries: int = 8
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Store:
    """A root URI (`s3://bucket/prefix`, `/local/folder`, any fsspec URI) and how to reach it."""

    uri: str
    access: Access = field(default_factory=Access)

    @cached_property
    def _fs_and_root(self) -> tuple[Any, str]:
        fs, root = fsspec.core.url_to_fs(self.uri, **options(self.uri, self.access))
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

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        return self._retried(lambda: bytes(self._fs_and_root[0].cat_file(self.full(path))))

    def read_parquet(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A whole Parquet file, or some of its columns."""
        return pq.read_table(pa.BufferReader(self.read(path)), columns=columns)

    def put_parquet(self, path: str, table: pa.Table, row_group_rows: int | None = None) -> bytes:
        """Write `table` atomically; returns the file's bytes. The same table gives the same bytes."""
        data = parquet_bytes(table, row_group_rows)
        self.put(path, data)
        return data

    def read_rows(self, path: str, start: int, count: int, columns: list[str] | None = None) -> pa.Table:
        """Rows [start, start + count) of a Parquet file; only the row groups that hold them are fetched."""
        return self._retried(lambda: self._read_rows(path, start, count, columns))

    def _read_rows(self, path: str, start: int, count: int, columns: list[str] | None) -> pa.Table:
        with self._fs_and_root[0].open(self.full(path), "rb") as file:
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

    def put(self, path: str, data: bytes) -> None:
        """Write the file so that readers see all of it or nothing (one PUT; or temporary file, fsync, rename)."""
        if self.is_local:
            _put_local(Path(self.full(path)), data)
        else:
            self._retried(lambda: self._fs_and_root[0].pipe_file(self.full(path), data))

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return bool(self._retried(lambda: self._fs_and_root[0].exists(self.full(path))))

    def delete(self, path: str) -> None:
        """Remove the file; no error when it is already gone."""
        with suppress(FileNotFoundError):
            self._retried(lambda: self._fs_and_root[0].rm_file(self.full(path)))

    def list(self, folder: str = "") -> list[StoredFile]:
        """All files below `folder`, sorted by path; empty when there is no such folder."""
        fs = self._fs_and_root[0]

        def find() -> dict[str, dict[str, Any]]:
            fs.invalidate_cache()
            try:
                found = fs.find(self.full(folder), detail=True)
            except FileNotFoundError:
                return {}
            return dict(found)

        prefix = self.full("").rstrip("/") + "/"
        files = [
            StoredFile(path.removeprefix(prefix), int(info.get("size") or 0), _etag(info))
            for path, info in self._retried(find).items()
            if not Path(path).name.startswith(TEMPORARY_PREFIX)
        ]
        return sorted(files)

    def probe_writable(self) -> None:
        """Write and delete a small file; raises RefusedError with the reason when that fails."""
        name = f"{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
        once = Store(self.uri, Access(self.access.endpoint_url, tries=1, timeout_s=5))
        try:
            once.put(name, b"")
            once.delete(name)
        except Exception as error:
            raise RefusedError(f"cannot write to the output {self.uri}: {brief(error)}") from None

    def _retried(self, action: Callable[[], T]) -> T:
        return retried(action, self.access.tries)


TEMPORARY_PREFIX = ".tmp-"


def retried(action: Callable[[], T], tries: int, sleep: Callable[[float], None] = time.sleep) -> T:
    """Run `action`, again after each error that may pass, up to `tries` times; exponential backoff, full jitter."""
    for attempt in range(1, tries + 1):
        try:
            return action()
        except FINAL_ERRORS:
            raise
        except Exception:
            if attempt == tries:
                raise
            sleep(random.uniform(0, min(20.0, 0.2 * 2**attempt)))  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable: the last try returns or raises")


def parquet_bytes(table: pa.Table, row_group_rows: int | None = None) -> bytes:
    """`table` as a Parquet file (zstd). Deterministic for one pyarrow version."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_rows)
    return bytes(sink.getvalue().to_pybytes())


def check_readable(uri: str, access: Access, what: str) -> None:
    """Raise RefusedError unless `uri` exists and can be listed or read."""
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options(uri, Access(access.endpoint_url, 1, 5)))
        present = fs.exists(path) or bool(fs.ls(path, detail=False))
    except FileNotFoundError:
        present = False
    except Exception as error:  # each store has exceptions of its own
        raise RefusedError(f"cannot read the {what} {uri}: {brief(error)}") from None
    if not present:
        raise RefusedError(f"the {what} {uri} does not exist")


def split_uri(uri: str, access: Access) -> tuple[Store, str]:
    """A file's URI -> the store of its folder, and its name."""
    folder, _, name = uri.rpartition("/")
    return Store(folder or (f"{uri.partition('://')[0]}://" if "://" in uri else "."), access), name


def brief(error: BaseException) -> str:
    """One line for a user; botocore and aiohttp say the rest of it in a page."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def options(uri: str, access: Access) -> dict[str, Any]:
    """fsspec options for a URI."""
    if uri.startswith(("s3://", "s3a://")):
        timeout = {"connect_timeout": min(10.0, access.timeout_s), "read_timeout": access.timeout_s}
        client = {"endpoint_url": access.endpoint_url} if access.endpoint_url else {}
        # Retries are ours (`retried`): two layers of them would multiply.
        return {
            "client_kwargs": client,
            "config_kwargs": {**timeout, "retries": {"max_attempts": 1}},
            "use_listings_cache": False,
            "default_fill_cache": False,
        }
    if uri.startswith(("http://", "https://")):
        return {}
    return {"use_listings_cache": False}


def _etag(info: dict[str, Any]) -> str | None:
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    return None


def _put_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
