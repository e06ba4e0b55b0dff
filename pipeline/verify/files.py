"""The files of an output against the hashes that vouch for them, and files that nothing names."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from pipeline.output.manifest import SHARD_FOLDERS, Manifest
from pipeline.refining.parts import PART_NAME
from pipeline.refining.retry_rounds import round_path
from pipeline.storage import Store, StoredFile
from schemas.config import ConfigError, fingerprint, is_whole, parse_config

EXAMPLES = 5
READERS = 16
EMPTY = hashlib.sha256(b"").hexdigest()
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
        found = self.output.download(path, local)
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


def check_manifest(check: Check) -> Manifest | None:
    """The current manifest, when `current.json` and it agree."""
    if not check.present("current.json"):
        return None
    try:
        current = json.loads(check.output.read("current.json"))
        name, generation, sha256 = str(current["fingerprint"]), int(current["generation"]), current["manifest_sha256"]
    except (ValueError, KeyError, TypeError):
        check.report.add("altered", "current.json", "does not name a manifest")
        return None
    check.report.fingerprint, check.report.generation = name, generation
    folder = f"runs/{name}/seals/{generation}"
    check.fetch(f"{folder}/_SUCCESS", EMPTY)
    local = check.fetch(f"{folder}/manifest.json", str(sha256))
    return None if local is None else json.loads(local.read_bytes())


def check_parts(check: Check, manifest: Manifest) -> dict[str, int] | None:
    """The parts that were sealed, by hash; returns the sealed images of each chunk, None when that is not known."""
    run = f"runs/{manifest['fingerprint']}"
    listing = manifest["parts"]
    path = f"{run}/seals/{manifest['generation']}/parts.parquet"
    local = check.fetch(path, listing["sha256"], listing["bytes"])
    if local is None:
        return None
    entries = pq.read_table(local).to_pylist()
    present = [entry for entry in entries if check.present(f"{run}/{entry['path']}")]

    def digest(entry: dict[str, Any]) -> str:
        return hashlib.sha256(check.output.read(f"{run}/{entry['path']}")).hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        for entry, found in zip(present, pool.map(digest, present), strict=True):
            check.same(f"{run}/{entry['path']}", found, entry["sha256"], entry["bytes"])
    return {entry["chunk_id"]: entry["images"] for entry in entries if not _is_retry(entry["path"])}


def check_run_files(check: Check, manifest: Manifest) -> None:
    """The run's configuration, its retry rounds, and the shards of older generations that are kept."""
    run = f"runs/{manifest['fingerprint']}"
    if check.present(f"{run}/config.yaml"):
        try:
            text = check.output.read(f"{run}/config.yaml").decode()
            method = parse_config(text).method
            if not is_whole(text):
                check.report.add("altered", f"{run}/config.yaml", "is not what its last line says it was")
            elif fingerprint(method) != manifest["fingerprint"]:
                check.report.add("altered", f"{run}/config.yaml", f"is of the method {fingerprint(method)}")
        except (ConfigError, UnicodeDecodeError):
            check.report.add("altered", f"{run}/config.yaml", "is no configuration")
    for number, sha256 in enumerate(manifest["retries"]["sha256"], start=1):
        check.fetch(f"{run}/{round_path(number)}", sha256)
    for path in check.files:
        if path.startswith(f"{run}/seals/") and path.endswith("/_SUCCESS"):
            generation = int(PurePosixPath(path).parts[3])
            if generation < manifest["generation"]:
                check.named.add(path)
                _check_older(check, f"{run}/seals/{generation}")


def _check_older(check: Check, folder: str) -> None:
    if not check.present(f"{folder}/manifest.json"):
        return
    try:
        manifest = json.loads(check.output.read(f"{folder}/manifest.json"))
        entries = [entry for kind in SHARD_FOLDERS for entry in manifest[kind] if entry["path"] not in check.named]
        check.fetch(f"{folder}/parts.parquet", manifest["parts"]["sha256"], manifest["parts"]["bytes"])
        for entry in entries:
            check.fetch(entry["path"], entry["sha256"], entry["bytes"])
    except (ValueError, KeyError, TypeError):
        check.report.add("altered", f"{folder}/manifest.json", "is no manifest")


def check_extra(check: Check, manifest: Manifest, chunk_ids: Collection[str]) -> None:
    """Files that nothing names. What an interrupted run may leave, and the next one or `gc` takes away, is a note."""
    run = f"runs/{manifest['fingerprint']}/"
    others, leftovers = set(), 0
    for path in sorted(check.files.keys() - check.named):
        parts = path.split("/")
        if parts[0] == "runs" and len(parts) > 2 and not path.startswith(run):
            others.add(parts[1])
        elif parts[0] == "leases" or _waits(path.removeprefix(run), chunk_ids):
            continue
        elif _left_over(parts, path.removeprefix(run), check.files):
            leftovers += 1
        else:
            check.report.add("extra", path, "nothing names it; `relabel gc` tells what can go")
    if others:
        check.report.notes.append(f"results of other methods are not checked: {', '.join(sorted(others))}")
    if leftovers:
        check.report.notes.append(f"{leftovers} files of an interrupted run; the next run or `relabel gc` removes them")


def _waits(path: str, chunk_ids: Collection[str]) -> bool:
    """A part that is not sealed yet, or no longer; a retry round that began after the seal."""
    folder, _, name = path.partition("/")
    part = PART_NAME.fullmatch(name)
    if folder == "parts":
        return part is not None and part["chunk"] in chunk_ids
    return folder == "retries" and PurePosixPath(name).stem.isdigit()


def _left_over(parts: list[str], path: str, files: Collection[str]) -> bool:
    """Of an increment that was never committed, or of a seal that never became current."""
    if parts[0] == "plan" and len(parts) == 3:
        return f"plan/{parts[1]}/_COMMITTED" not in files
    return path.startswith("seals/")


def _is_retry(path: str) -> bool:
    name = PART_NAME.fullmatch(PurePosixPath(path).name)
    return name is not None and name["round"] is not None
