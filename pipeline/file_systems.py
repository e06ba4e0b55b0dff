"""What the file systems of fsspec want to be told, and what they tell, each in its own words."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def options(uri: str, endpoint_url: str | None, timeout_s: float) -> dict[str, Any]:
    """fsspec options for a URI. Retries are ours (retries.py): two layers of them would multiply."""
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
