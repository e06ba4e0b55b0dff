"""The increments of a plan: what names each, its marker, its small files and their counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pyarrow.parquet as pq

from pipeline.errors import JobError
from pipeline.planning.attempts import choice_of
from pipeline.planning.chunks import Chunk, read_chunks
from pipeline.storage.documents import Committed, find_increment
from pipeline.verify.files import Check
from schemas import layout
from schemas.manifest import IncrementHash, Marker, sha256
from schemas.records import CHUNKS, SUPERSEDED, is_version_of


def check_increments(check: Check, markers: Sequence[IncrementHash]) -> dict[str, list[Chunk]]:
    """Every committed increment: its marker, its small files, its counts. Returns the chunks of each plan file.

    An increment that was committed after the seal has nothing that vouches for its marker but itself.
    """
    vouched = {marker.increment: marker.sha256 for marker in markers}
    committed = {number for path in check.files if (number := layout.committed_number(path)) is not None}
    chunks: dict[str, list[Chunk]] = defaultdict(list)
    for number in sorted(vouched.keys() | committed):
        found = check_marker(check, number, vouched.get(number))
        if found is None:
            continue
        if number not in vouched:
            check.report.notes.append(f"{found.files.folder} is planned and not sealed yet")
            for name in filter(layout.bucket_range, found.marker.sha256):
                check.fetch(found.files.file(name), found.marker.sha256[name])
        for chunk in check_small_files(check, found.files, found.marker):
            chunks[chunk.file].append(chunk)
    return chunks


def check_marker(check: Check, number: int, vouched: str | None) -> Committed | None:
    """An increment's marker, when it is what the seal vouches for, if that was after it."""
    choice = layout.Increment(number).choice
    if not check.present(choice):
        return None
    try:
        found = find_increment(check.output, number)
    except JobError:
        check.report.add("altered", choice, "does not name an attempt")
        return None
    if vouched is not None and found.sha256 != vouched:
        check.report.add("altered", choice, f"has a marker of SHA-256 {found.sha256[:12]}..., not {vouched[:12]}...")
        return None
    if found.files.attempt:
        check.fetch(choice, sha256(choice_of(found.files, found.marker)))
    return found if check.fetch(found.files.marker, found.sha256) is not None else None


def check_small_files(check: Check, increment: layout.Increment, marker: Marker) -> list[Chunk]:
    """An increment's chunks and superseded rows; its buckets are only noted as named."""
    hashes = {increment.file(name): sha256 for name, sha256 in marker.sha256.items()}
    check.named.update(hashes)
    chunks: list[Chunk] = []
    found = {"chunks": 0, "images": 0, "masks": 0, "superseded": 0}
    files = (("chunks", increment.chunks, CHUNKS), ("superseded", increment.superseded, SUPERSEDED))
    for name, path, schema in files:
        if path not in hashes:
            continue
        local = check.fetch(path, hashes[path])
        if local is None:
            return []
        table = pq.read_table(local)
        if not is_version_of(table.schema, schema):
            check.report.add("schema", path, "has other columns than documented")
            return []
        found[name] = table.num_rows
        if name == "chunks":
            chunks = list(read_chunks(check.output, [increment]))
    found |= {"images": sum(chunk.images for chunk in chunks), "masks": sum(chunk.masks for chunk in chunks)}
    for name, number in found.items():
        if (said := getattr(marker, name)) != number:
            check.report.add("accounting", increment.marker, f"says {said} {name}, there are {number}")
    return chunks
