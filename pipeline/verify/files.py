"""The files of an output against the hashes that vouch for them, and files that nothing names."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from pipeline.errors import JobError
from pipeline.storage import Store, StoredFile
from pipeline.storage.documents import find_seal, parse, read_current, run_store
from pipeline.storage.listing import download
from pipeline.words import plural
from schemas import layout
from schemas.config import ConfigError, fingerprint, fingerprints, is_whole, parse_config
from schemas.manifest import Manifest

EXAMPLES = 5
READERS = 16
KINDS = {
    "missing": "a file that is named is not there",
    "truncated": "a file is shorter than it was",
    "altered": "a file is not what it was",
    "extra": "a file that nothing names",
    "schema": "a file has other columns than documented",
    "row": "a row contradicts itself",
    "accounting": "planned and found do not agree",
}

Numbers = dict[str, int]
"""images and masks"""


def none() -> Numbers:
    return {"images": 0, "masks": 0}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. kind: a key of KINDS; path: relative to the output."""

    kind: str
    path: str
    detail: str


@dataclass
class Report:
    """What was recomputed: planned = done + failed + pending; `findings` is empty when the output is sound."""

    output: str
    fingerprint: str = ""
    generation: int | None = None
    files: int = 0
    planned: Numbers = field(default_factory=none)
    done: Numbers = field(default_factory=none)
    failed: Numbers = field(default_factory=none)
    pending: Numbers = field(default_factory=none)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, path: str, detail: str) -> None:
        """Note a finding; of a kind in one file only the first few are kept, and counted by `close`."""
        self._counts[kind, path] += 1
        if self._counts[kind, path] <= EXAMPLES:
            self.findings.append(Finding(kind, path, detail))

    def close(self) -> Report:
        for (kind, path), count in self._counts.items():
            if count > EXAMPLES:
                self.findings.append(Finding(kind, path, f"and {count - EXAMPLES} more like this"))
        return self


@dataclass(frozen=True)
class Check:
    """What every step needs: the output, its listing, a folder for files at hand, and where findings go."""

    output: Store
    files: Mapping[str, StoredFile]
    folder: Path
    report: Report
    on_file: Callable[[int, int], None]
    named: set[str] = field(default_factory=set)

    def fetch(self, path: str, sha256: str, size: int | None = None) -> Path | None:
        """The file, brought here, when it is what its hash says; else a finding and None."""
        if not self.present(path):
            return None
        local = self.folder / "file"
        found = download(self.output, path, local)
        return local if self.same(path, found, sha256, size) else None

    def present(self, path: str) -> bool:
        """Whether a file that something names is there; a finding if not."""
        self.named.add(path)
        self.on_file(1, len(self.files))
        if path not in self.files:
            self.report.add("missing", path, "is not there")
        return path in self.files

    def same(self, path: str, found: str, sha256: str, size: int | None = None) -> bool:
        """Whether a file's hash is the one it should have; a finding if not."""
        held = self.files[path].size
        if found == sha256:
            return True
        if size is not None and held < size:
            self.report.add("truncated", path, f"has {held} of its {size} bytes")
        else:
            self.report.add("altered", path, f"has the SHA-256 {found[:12]}..., not {sha256[:12]}...")
        return False


class Current(NamedTuple):
    """The current generation: what it says, and where it is."""

    manifest: Manifest
    seal: layout.Seal


def check_manifest(check: Check) -> Current | None:
    """The current generation, when the pointer and it agree. Raises RefusedError where a newer version wrote them."""
    if not check.present(layout.CURRENT):
        return None
    try:
        current = read_current(check.output)
    except JobError:
        current = None
    if current is None:
        check.report.add("altered", layout.CURRENT, "does not name a manifest")
        return None
    check.report.fingerprint, check.report.generation = current.fingerprint, current.generation
    seal = layout.Seal(current.generation, current.attempt)
    path = layout.in_run(current.fingerprint, seal.manifest)
    success = layout.in_run(current.fingerprint, seal.success)
    if check.present(success) and find_seal(run_store(check.output, current.fingerprint), current.generation) != seal:
        check.report.add("altered", success, f"does not name {seal.folder}")
    local = check.fetch(path, current.manifest_sha256)
    if local is None:
        return None
    return Current(parse(Manifest, local.read_bytes(), f"{check.output.uri}/{path}"), seal)


def check_parts(check: Check, current: Current) -> dict[str, int] | None:
    """The parts that were sealed, by hash; returns the sealed images of each chunk, None when that is not known."""
    manifest = current.manifest
    path = layout.in_run(manifest.fingerprint, current.seal.parts)
    local = check.fetch(path, manifest.parts.sha256, manifest.parts.bytes)
    if local is None:
        return None
    entries = [
        {**entry, "path": layout.in_run(manifest.fingerprint, entry["path"])}
        for entry in pq.read_table(local).to_pylist()
    ]
    present = [entry for entry in entries if check.present(entry["path"])]

    def digest(entry: dict[str, Any]) -> str:
        return hashlib.sha256(check.output.read(entry["path"])).hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        for entry, found in zip(present, pool.map(digest, present), strict=True):
            check.same(entry["path"], found, entry["sha256"], entry["bytes"])
    return {entry["chunk_id"]: entry["images"] for entry in entries if not _is_retry(entry["path"])}


def check_run_files(check: Check, manifest: Manifest) -> None:
    """The run's configuration, its retry rounds, and the shards of older generations that are kept."""
    _check_config(check, layout.in_run(manifest.fingerprint, layout.CONFIG), manifest.fingerprint)
    for number, sha256 in enumerate(manifest.retries.sha256, start=1):
        check.fetch(layout.in_run(manifest.fingerprint, layout.retry_round(number)), sha256)
    for path in check.files:
        name, within = layout.split_run(path) or ("", "")
        generation = layout.sealed_number(within)
        if name != manifest.fingerprint or generation is None or generation == manifest.generation:
            continue
        seal = find_seal(run_store(check.output, name), generation)
        if seal is None:  # it keeps a generation from completion
            check.named.add(path)
        elif generation < manifest.generation and any(
            layout.in_run(name, file) in check.files for file in (seal.manifest, seal.parts)
        ):  # else it was removed, and named afterwards
            check.named.add(path)
            _check_older(check, name, seal)


def _check_config(check: Check, path: str, name: str) -> None:
    if not check.present(path):
        return
    try:
        text = check.output.read(path).decode()
        method = parse_config(text).method
        if not is_whole(text):
            check.report.add("altered", path, "is not what its last line says it was")
        elif layout.fingerprint_of(name) not in fingerprints(method):
            check.report.add("altered", path, f"is of the method {fingerprint(method)}")
    except (ConfigError, UnicodeDecodeError):
        check.report.add("altered", path, "is no configuration")


def _check_older(check: Check, name: str, seal: layout.Seal) -> None:
    path = layout.in_run(name, seal.manifest)
    if not check.present(path):
        return
    try:
        manifest = parse(Manifest, check.output.read(path), path)
    except JobError:
        check.report.add("altered", path, "is no manifest")
        return
    shards = [shard for shard in (*manifest.masks, *manifest.images) if shard.path not in check.named]
    check.fetch(layout.in_run(name, seal.parts), manifest.parts.sha256, manifest.parts.bytes)
    for shard in shards:
        check.fetch(shard.path, shard.sha256, shard.bytes)


def check_extra(check: Check, manifest: Manifest, chunk_ids: Collection[str]) -> None:
    """Files that nothing names. What an interrupted run may leave, and the next one or `gc` takes away, is a note."""
    others, leftovers = set(), 0
    for path in sorted(check.files.keys() - check.named):
        name, within = layout.split_run(path) or ("", "")
        if name and name != manifest.fingerprint:
            others.add(name)
        elif (sha256 := layout.reviewed(path)) is not None:
            _check_review(check, path, sha256)
        elif path.startswith(f"{layout.LEASES}/") or _waits(within, chunk_ids):
            continue
        elif _left_over(path, within, check.files) or _is_unlisted_shard(check, path, within):
            leftovers += 1
        else:
            check.report.add("extra", path, "nothing names it; `relabel gc` tells what can go")
    if others:
        check.report.notes.append(f"results of other methods are not checked: {', '.join(sorted(others))}")
    if leftovers:
        check.report.notes.append(
            f"{plural(leftovers, 'file')} left by an interrupted run; the next run or `relabel gc` removes what is left"
        )


def _check_review(check: Check, path: str, sha256: str) -> None:
    """A file of verdicts is what its name says."""
    check.named.add(path)
    found = hashlib.sha256(check.output.read(path)).hexdigest()
    if not found.startswith(sha256):
        check.report.add("altered", path, f"has the SHA-256 {found[:16]}..., not that of its name")


def _waits(within: str, chunk_ids: Collection[str]) -> bool:
    """A part that is not sealed yet, or no longer; a retry round that began after the seal."""
    name = layout.part_name(within)
    if name is not None and within == layout.part(*name):
        return name.chunk_id in chunk_ids
    return layout.numbered(layout.RETRIES, within) is not None


def _left_over(path: str, within: str, files: Collection[str]) -> bool:
    """Of planning that was killed, an increment that was never committed, or a seal that never became current."""
    if layout.shuffled_by(path):
        return True
    number = layout.numbered(layout.PLAN, path)
    if number is not None:
        return layout.attempt_of(layout.PLAN, path) is not None or layout.Increment(number).choice not in files
    return layout.numbered(layout.SEALS, within) is not None


def _is_unlisted_shard(check: Check, path: str, within: str) -> bool:
    """A shard, by what its name says of its content, that a seal wrote and did not publish."""
    return layout.is_shard(within) and layout.name_of(path).startswith(
        hashlib.sha256(check.output.read(path)).hexdigest()[:32]
    )


def _is_retry(path: str) -> bool:
    name = layout.part_name(path)
    return name is not None and name.round is not None
