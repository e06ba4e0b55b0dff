"""What the file systems of fsspec want to be told, and what they tell, each in its own words."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from pipeline.errors import RefusedError
from pipeline.extras import install_command
from pipeline.storage.paths import refuse_secrets

Entry = tuple[str, dict[str, Any]]
"""A file's path as the file system takes it, and what a listing tells of it."""

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


SPECIAL = "special"
"""Key of what a listing tells of an entry that is no file: why it is none."""


def local_entries(root: str, follow_links: bool = False) -> Iterator[Entry]:
    """Files below a folder of this machine, one at a time; links to files, and links that lead nowhere.

    follow_links: what links to folders lead to, too, each folder once; and what is no file (SPECIAL), for whom nothing
    may be left out.
    """
    folders = [root]
    seen = {os.path.realpath(root)}  # a link may lead back up
    while folders:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not (follow_links and _leads_to_folder(entry)):
                    yield from _local_entry(entry, follow_links)
                else:
                    target = os.path.realpath(entry.path)
                    if target in seen or root.startswith(f"{target}/"):
                        yield entry.path, {SPECIAL: f"a link to {target}, which is listed already"}
                    else:
                        seen.add(target)
                        folders.append(entry.path)


def _local_entry(entry: os.DirEntry[str], with_special: bool) -> Iterator[Entry]:
    with suppress(FileNotFoundError):  # gone since
        found = _stat(entry)
        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            yield entry.path, {"size": found.st_size, "mtime": found.st_mtime}
        elif with_special:
            yield entry.path, {SPECIAL: "a pipe, socket or device"}


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Of what a link leads to; of the link itself where that is nothing, or itself."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)


def check_opens(path: str) -> None:
    """Raise FileNotFoundError for a pipe, socket or device of this machine: reading one may never end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise FileNotFoundError(f"{path} is a link that leads to itself") from None
        return  # whoever opens it says so
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FileNotFoundError(f"{path} is no file, but a pipe, socket or device")


def s3_entries(root: str, ask: Callable[..., dict[str, Any]]) -> Iterator[Entry]:
    """An S3 listing page by page, each with its own tries: a million files are a thousand requests.

    ask: sends one ListObjectsV2 with the parameters that it is given.
    """
    bucket, _, key = root.partition("/")
    page: dict[str, Any] = {"IsTruncated": True}
    while page["IsTruncated"]:
        more = {"ContinuationToken": page["NextContinuationToken"]} if "NextContinuationToken" in page else {}
        try:
            page = ask(Bucket=bucket, Prefix=f"{key.rstrip('/')}/" if key else "", **more)
        except FileNotFoundError:
            return
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):  # consoles put such empty objects in place of folders
                yield f"{bucket}/{entry['Key']}", entry


def found_entries(fs: Any, find: Callable[[], dict[str, dict[str, Any]]]) -> Iterator[Entry]:
    """What any other file system finds, at once."""
    fs.invalidate_cache()
    try:
        yield from find().items()
    except FileNotFoundError:
        return
