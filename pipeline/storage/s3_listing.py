"""Listings of S3, of millions of files: page by page, in stretches of keys that are asked for at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pipeline.storage.paths import Entry

STRETCHES = 32
"""Of a listing, that are asked for at the same time."""

S3Page = dict[str, Any]
"""An answer to ListObjectsV2."""
Ask = Callable[..., S3Page]
"""Sends one ListObjectsV2 with the parameters that it is given."""


def entries(root: str, ask: Ask, bounds: Sequence[str] = ()) -> Iterator[Entry]:
    """An S3 listing page by page, each with its own tries: a million files are a thousand requests.

    One of many pages is divided into STRETCHES of keys, which are asked for at the same time: at `bounds`, paths of no
    file, or else at folders. ask: sends one ListObjectsV2 with the parameters that it is given.
    """
    bucket, prefix = _place(root)
    ask = partial(ask, Bucket=bucket)
    try:
        first = ask(Prefix=prefix)
    except FileNotFoundError:
        return
    divisible = _is_divisible(first)
    known = sorted(path.partition("/")[2] for path in bounds)
    starts = (_evenly(known) or _bounds(ask, prefix)) if divisible else []
    pages = partial(_pages, partial(ask, Prefix=prefix))
    ends = [*starts, None]
    listings = [
        pages(first, ends[0]),
        *(pages(None, end, StartAfter=start) for start, end in zip(starts, ends[1:], strict=True)),
    ]
    for entry in _at_once(listings):
        if not entry["Key"].endswith("/"):  # consoles put such empty objects in place of folders
            yield f"{bucket}/{entry['Key']}", entry


def is_divisible(root: str, ask: Ask) -> bool:
    """Whether a listing has many pages, of which stretches can be had `between` paths."""
    bucket, prefix = _place(root)
    try:
        return _is_divisible(ask(Bucket=bucket, Prefix=prefix))
    except FileNotFoundError:
        return False


def between(root: str, ask: Ask, after: str, before: str) -> Iterator[Entry]:
    """A stretch of what `entries` has, where it `is_divisible`: after one path and before another, "" for no end."""
    bucket, prefix = _place(root)
    start, end = (path.partition("/")[2] for path in (after, before))
    begin = {"StartAfter": start} if start else {}
    for page in _pages(partial(ask, Bucket=bucket, Prefix=prefix), None, end or None, **begin):
        yield from ((f"{bucket}/{entry['Key']}", entry) for entry in page)


def _place(root: str) -> tuple[str, str]:
    """Bucket and prefix."""
    bucket, _, key = root.partition("/")
    return bucket, f"{key.rstrip('/')}/" if key else ""


def _is_divisible(first: S3Page) -> bool:
    """The first page is not all, and keys come in order: from a few stores they do not."""
    keys = [entry["Key"] for entry in first.get("Contents", [])]
    return bool(first["IsTruncated"] and keys == sorted(keys))


def _bounds(ask: Ask, prefix: str) -> list[str]:
    """Folders, as evenly spread as their number allows, at which a listing is divided; in the order of keys."""
    page = ask(Prefix=prefix, Delimiter="/")
    folders = sorted(one["Prefix"] for one in page.get("CommonPrefixes", []))
    if len(folders) == 1 and not page.get("Contents"):
        return _bounds(ask, folders[0])
    return _evenly(folders)


def _evenly(keys: Sequence[str]) -> list[str]:
    """So many of them, evenly spread, that they divide a listing into STRETCHES at most."""
    return list(keys[:: -(-len(keys) // STRETCHES)][1:]) if keys else []


def _pages(ask: Ask, page: S3Page | None, end: str | None, **start: str) -> Iterator[list[dict[str, Any]]]:
    """The entries of a listing's pages, up to a key. page: the first one, where it is known."""
    page = ask(**start) if page is None else page
    while True:
        entries = page.get("Contents", [])
        yield [entry for entry in entries if end is None or entry["Key"] < end]
        if not page["IsTruncated"] or (end is not None and entries and entries[-1]["Key"] >= end):
            return
        page = ask(ContinuationToken=page["NextContinuationToken"])


def _at_once(listings: Sequence[Iterator[list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
    """All entries; of each listing, the next page is asked for while others are taken."""
    with ThreadPoolExecutor(len(listings)) as pool:
        waiting = deque((one, pool.submit(next, one, None)) for one in listings)
        while waiting:
            one, asked = waiting.popleft()
            if (page := asked.result()) is not None:
                waiting.append((one, pool.submit(next, one, None)))
                yield from page
