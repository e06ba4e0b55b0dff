"""The scans of an output: what the manifest's planning pass covered, against its own hashes and counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.coverage import IGNORED, UNNAMED, UNREAD
from pipeline.verify.files import Check
from pipeline.words import plural
from schemas import layout, records
from schemas.manifest import Manifest


def check_scans(check: Check, manifest: Manifest) -> None:
    """The pass that the manifest names is what it was, and its names are as many as it counts; the others are known."""
    check.named.update(path for path in check.files if layout.is_scan(path))
    named = manifest.scan
    if named is None:
        return  # sealed before there was one
    path, unread = named.path, layout.unread(named.path)
    local = check.fetch(path, named.sha256)
    if local is None:
        return
    scan = json.loads(local.read_bytes())
    if scan["unread"] != named.unread:
        check.report.add("accounting", path, f"says {scan['unread']} unread, the manifest {named.unread}")
    if scan["unread"]:
        check.report.notes.append(
            f"{plural(scan['unread'], 'file or entry', 'files or entries')} of the input not read: {unread}"
        )
    names = check.fetch(unread, scan["unread_sha256"])
    if names is not None:
        _check_names(check, unread, names, scan)


def _check_names(check: Check, path: str, local: Path, scan: Mapping[str, Any]) -> None:
    file = pq.ParquetFile(local)
    if not records.is_version_of(file.schema_arrow, records.UNREAD):
        check.report.add("schema", path, "has other columns than documented")
        return
    found: Counter[str] = Counter()
    for batch in file.iter_batches(columns=["state"]):
        found.update(pa.Table.from_batches([batch])["state"].to_pylist())
    counted: Counter[str] = Counter()
    for tally in scan["found"]:
        if tally["state"] in (UNREAD, IGNORED, UNNAMED):
            counted[tally["state"]] += tally["count"]
    if found != counted:
        check.report.add("accounting", path, f"names {dict(found)}, the scan counts {dict(counted)}")
