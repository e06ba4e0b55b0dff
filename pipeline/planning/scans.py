"""Scans on disk: what each planning pass covered.

scans/<attempt>/<digest>.json             counts by kind and reason with the first names, rules, categories, and the
                                          dataset's own words (info, licenses, ...); the digest is of its bytes
scans/<attempt>/<digest>.unread.parquet   every name that was not read (schema UNREAD); the JSON has its SHA-256
scans/current.json                        the last pass; and what was found out about each input, which later passes
                                          keep to

A pass that is not the current one is written below a new name, even when an earlier one was the same: that one may be
about to be removed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import JobError
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
    with hold() as fence:
        pointer, version = _versioned(output)
        key = _input_key(given.images_uri, given.masks_uri)
        pinned = {**pointer.get("pinned", {}), key: {**coverage.pinned, "source": source}}
        new = {**pointer, **json.loads(secrets.redacted(json.dumps({"scan": digest, "pinned": pinned})))}
        if pointer.get("scan") != digest or read_scan(output, current_scan(output)) is None:
            new["path"] = layout.scan(digest, uuid.uuid4().hex)
            output.put(layout.unread(new["path"]), table)
            output.put(new["path"], data)
        if new != pointer:
            fence()
            _replace(output, new, version)
    return found


def _replace(output: Store, pointer: dict[str, Any], version: str | None) -> None:
    if not output.swap(layout.LAST_SCAN, json.dumps(pointer, indent=1, sort_keys=True).encode(), version):
        raise JobError(f"another run replaced {output.uri}/{layout.LAST_SCAN} in the meantime. Run it again")


def current_scan(output: Store) -> str | None:
    """The path of the last pass, None where none was recorded."""
    pointer = _pointer(output)
    digest = pointer.get("scan")
    return None if digest is None else str(pointer.get("path") or layout.scan(str(digest)))


def read_scan(output: Store, path: str | None) -> Content | None:
    """A pass's content; None where there is none, or it is damaged."""
    if path is None:
        return None
    with suppress(FileNotFoundError, ValueError):
        data = output.read(path)
        if layout.name_of(path) == f"{hashlib.sha256(data).hexdigest()}.json":
            return dict(json.loads(data))
    return None


def scan_entry(output: Store) -> Scanned | None:
    """The current pass as the manifest names it: its file, digest, and how much was left unread."""
    path = current_scan(output)
    found = read_scan(output, path)
    if path is None or found is None:
        return None
    return Scanned(path=path, sha256=layout.name_of(path).removesuffix(".json"), unread=found["unread"])


def _pointer(output: Store) -> dict[str, Any]:
    return _versioned(output)[0]


def _versioned(output: Store) -> tuple[dict[str, Any], str | None]:
    """The last pass, {} where there is none or it is damaged, and the version of its file."""
    try:
        data, version = output.versioned(layout.LAST_SCAN)
    except FileNotFoundError:
        return {}, None
    with suppress(ValueError, RecursionError):
        content = json.loads(data)
        if isinstance(content, dict) and isinstance(content.get("pinned", {}), dict):
            return content, version
    return {}, version


def _pinned(output: Store, images_uri: str, masks_uri: str) -> dict[str, Any]:
    found = _pointer(output).get("pinned", {}).get(_input_key(images_uri, masks_uri), {})
    return dict(found) if isinstance(found, dict) else {}


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
