"""What the file systems of fsspec want to be told, and what they tell, each in its own words.

Conditional writes: S3 has If-Match with the ETag, Google's storage ifGenerationMatch, Azure an ETag with a match
condition. A store that takes a condition and does not keep it is found out by `lease.check_store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import fsspec

from pipeline.errors import RefusedError
from pipeline.extras import install_command
from pipeline.storage.paths import SPECIAL, Entry, refuse_secrets


class StoredFile(NamedTuple):
    """One file of a listing: path relative to the store, size in bytes, the store's etag and time of writing (seconds
    since 1970) where it has them. special: why it is no file, "" for those that are. mtime_ns: on this machine.
    sha256: of its content, where somebody read it (`listing.hashed`).
    """

    path: str
    size: int
    etag: str | None
    modified_s: float | None = None
    special: str = ""
    mtime_ns: int | None = None
    sha256: str | None = None

    @property
    def tag(self) -> str | None:
        """What tells it from another one of its name and size, without its content; None for nothing."""
        return self.etag or (None if self.mtime_ns is None else str(self.mtime_ns))


@dataclass(frozen=True)
class Access:
    """How a store is spoken to; the same for every store of a run.

    exclusive: nothing else writes, so no write is conditional; for stores that have no conditions.
    """

    endpoint_url: str | None = None
    tries: int = 8
    timeout_s: float = 60.0
    exclusive: bool = False

    def __post_init__(self) -> None:
        refuse_secrets(self.endpoint_url or "")


EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Kinds of URI whose file system is an extra of this project."""


def connect(uri: str, endpoint_url: str | None, timeout_s: float) -> tuple[Any, str]:
    """The file system behind a URI, and the path inside it. Raises RefusedError for a kind of URI it has none for,
    and for one with credentials in it.
    """
    refuse_secrets(uri)
    kind = uri.partition("://")[0]
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options(uri, endpoint_url, timeout_s))
    except ImportError as error:
        cure = install_command(EXTRAS[kind]) if kind in EXTRAS else str(error)
        raise RefusedError(f"{kind}:// needs a package that is not installed: {cure}") from None
    except ValueError:
        if kind in fsspec.available_protocols():
            raise
        raise RefusedError(
            f"{kind}:// is no kind of URI that is known; there are local paths, s3://, gs://, az://, https://, ..."
        ) from None
    return fs, path


def options(uri: str, endpoint_url: str | None, timeout_s: float) -> dict[str, Any]:
    """fsspec options for a URI. Retries are ours (storage/backoff.py): two layers of them would multiply."""
    if uri.startswith(("s3://", "s3a://")):
        timeout = {"connect_timeout": min(10.0, timeout_s), "read_timeout": timeout_s}
        return {
            "client_kwargs": {"endpoint_url": endpoint_url} if endpoint_url else {},
            "config_kwargs": {**timeout, "retries": {"total_max_attempts": 1}},
            "use_listings_cache": False,
            "default_fill_cache": False,
            "max_concurrency": 1,  # more makes every read ask for the size first
        }
    if uri.startswith(("http://", "https://")):
        return {}
    return {"use_listings_cache": False}


def etag(info: dict[str, Any]) -> str | None:
    """The content tag that a listing gives, None where it gives none."""
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    return None


def modified_s(info: dict[str, Any]) -> float | None:
    """When the file was written, seconds since 1970, None where a listing does not say."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
    return None


def stored(path: str, info: dict[str, Any]) -> StoredFile:
    """What a listing tells of a file. path: relative to the store."""
    size = int(info.get("size") or info.get("Size") or 0)
    special = str(info.get(SPECIAL, ""))
    return StoredFile(path, size, etag(info), modified_s(info), special, info.get("mtime_ns"))


def found_entries(fs: Any, find: Callable[[], dict[str, dict[str, Any]]]) -> Iterator[Entry]:
    """What any other file system finds, at once."""
    fs.invalidate_cache()
    try:
        yield from find().items()
    except FileNotFoundError:
        return


def some_files(fs: Any, root: str, limit: int) -> list[str]:
    """Paths of a few files, in no order, without listing all of them."""
    found: list[str] = []
    for folder, _, names in fs.walk(root):
        found += [f"{folder}/{name}" for name in names]
        if len(found) >= limit:
            break
    return found[:limit]


REFUSED = 412
"""HTTP: the condition does not hold."""


def version_in(info: dict[str, Any]) -> str:
    """The version of a file, from what its file system tells of it; "" where it tells none."""
    found = next((info[key] for key in ("generation", "ETag", "etag") if info.get(key)), "")
    return str(found)


def put_if(fs: Any, full: str, data: bytes, version: str) -> tuple[Any, ...]:
    """The call that writes a file if it has that version: a function or method of `fs`, and its arguments.

    Raises RefusedError for a file system without such a call.
    """
    if hasattr(fs, "call_s3"):
        bucket, _, key = full.partition("/")
        return _put_s3, fs, {"Bucket": bucket, "Key": key, "Body": data, "IfMatch": version}
    if hasattr(fs, "service_client"):
        return _put_azure, fs, full, data, version
    if type(fs).__module__.startswith("gcsfs"):
        return _put_google, fs, full, data, version
    raise RefusedError(f"{type(fs).__name__} has no write that depends on what is there")


def _put_s3(fs: Any, request: dict[str, Any], timeout: float) -> None:
    fs.call_s3("put_object", **request, timeout=timeout)


def _put_google(fs: Any, full: str, data: bytes, version: str, timeout: float) -> None:
    bucket, _, key = full.partition("/")
    fs.call(
        "POST",
        f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o",
        uploadType="media",
        name=key,
        ifGenerationMatch=version,
        headers={"Content-Type": "application/octet-stream"},
        data=data,
        timeout=timeout,
    )


def _put_azure(fs: Any, full: str, data: bytes, version: str, timeout: float) -> None:
    from azure.core import MatchConditions  # of the extra `azure`
    from fsspec.asyn import sync

    container, key, _ = fs.split_path(full)

    async def upload() -> None:
        async with fs.service_client.get_blob_client(container, key) as blob:
            await blob.upload_blob(data, overwrite=True, etag=version, match_condition=MatchConditions.IfNotModified)

    sync(fs.loop, upload, timeout=timeout)


def condition_failed(error: BaseException | None) -> bool:
    """Whether a store refused a write because its condition did not hold: by the answer's code, not its words."""
    while error is not None:
        if isinstance(error, FileExistsError) or _code(error) == REFUSED:
            return True
        error = error.__cause__
    return False


def _code(error: BaseException) -> int:
    """The HTTP status that a client's exception carries, each in its own way; 0 for none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    codes = (str(getattr(error, name, "")) for name in ("status_code", "status", "code"))  # azure, aiohttp, gcsfs
    return next((int(code) for code in codes if code.isdigit()), 0)
