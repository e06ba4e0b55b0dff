"""Scans on disk: what each planning pass covered.

scans/<digest>.json             counts by kind and reason with the first names, rules, categories, the dataset's own
                                words (info, licenses, categories); the digest is of its bytes, no time is in it
scans/<digest>.unread.parquet   every name that was not read (schema UNREAD); the JSON has its SHA-256
scans/current.json              the last pass; and what was found out about each input, which later passes keep to
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.planning.coverage import Content, content
from pipeline.planning.rows import as_text
from pipeline.sources import SourceInput
from pipeline.sources.coverage import Coverage, Left
from pipeline.storage import Store
from pipeline.storage.lease import Hold
from schemas import layout, secrets
from schemas.manifest import Scanned
from schemas.records import UNREAD

BATCH_ROWS = 65_536


def coverage_for(output: Store, images_uri: str, masks_uri: str, source: str, ignore: tuple[str, ...]) -> Coverage:
    """An empty Coverage that keeps to what earlier passes found out, over the same input by the same source."""
    pinned = _pinned(output, images_uri, masks_uri)
    return Coverage(ignore, pinned if pinned.get("source") == source else {})


def pinned_source(output: Store, images_uri: str, masks_uri: str) -> str | None:
    """The source that an earlier pass over the same input was read with."""
    source = _pinned(output, images_uri, masks_uri).get("source")
    return None if source is None else str(source)


def record(output: Store, given: SourceInput, source: str, hold: Hold) -> Content:
    """Write what a pass covered, and let it be the current one. The same pass again writes nothing new."""
    coverage = given.coverage
    table = _unread_bytes(coverage.left())
    found = {**content(coverage, source), "unread_sha256": hashlib.sha256(table).hexdigest()}
    text = secrets.redacted(json.dumps(found, indent=1, sort_keys=True))
    found, data = json.loads(text), text.encode()
    digest = hashlib.sha256(data).hexdigest()
    for path, part in ((layout.unread(digest), table), (layout.scan(digest), data)):
        if not output.exists(path):
            output.put(path, part)
    with hold() as fence:
        pointer = _pointer(output)
        key = _input_key(given.images_uri, given.masks_uri)
        pinned = {**pointer.get("pinned", {}), key: {**coverage.pinned, "source": source}}
        new = json.loads(secrets.redacted(json.dumps({"scan": digest, "pinned": pinned})))
        if new != pointer:
            fence()
            output.put(layout.LAST_SCAN, json.dumps(new, indent=1, sort_keys=True).encode())
    return found


def current_digest(output: Store) -> str | None:
    """The digest of the last pass, None where none was recorded."""
    digest = _pointer(output).get("scan")
    return None if digest is None else str(digest)


def read_scan(output: Store, digest: str | None) -> Content | None:
    """A pass's content; None where there is none."""
    if digest is None:
        return None
    with suppress(FileNotFoundError, ValueError):
        return dict(json.loads(output.read(layout.scan(digest))))
    return None


def scan_entry(output: Store) -> Scanned | None:
    """The current pass as the manifest names it: its file, digest, and how much was left unread."""
    digest = current_digest(output)
    found = read_scan(output, digest)
    if digest is None or found is None:
        return None
    return Scanned(path=layout.scan(digest), sha256=digest, unread=found["unread"])


def _pointer(output: Store) -> dict[str, Any]:
    with suppress(FileNotFoundError, ValueError):
        return dict(json.loads(output.read(layout.LAST_SCAN)))
    return {}


def _pinned(output: Store, images_uri: str, masks_uri: str) -> dict[str, Any]:
    return dict(_pointer(output).get("pinned", {}).get(_input_key(images_uri, masks_uri), {}))


def _input_key(images_uri: str, masks_uri: str) -> str:
    """What stands for an input, without telling where it lies."""
    return hashlib.sha256(f"{images_uri}\0{masks_uri}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _unread_bytes(left: Iterator[Left]) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, UNREAD, compression="zstd") as writer:
        batch: list[dict[str, str]] = []
        for one in left:
            batch.append({name: as_text(value) for name, value in vars(one).items()})
            if len(batch) >= BATCH_ROWS:
                writer.write_table(pa.Table.from_pylist(batch, UNREAD))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, UNREAD))
    return bytes(sink.getvalue().to_pybytes())
