"""The JSON files of an output: read as they were written, kept as they are, refused where they are of a later day."""

import hashlib
import json
from pathlib import Path

import pytest

from schemas.manifest import (
    VERSION,
    ContractError,
    Counts,
    Manifest,
    Marker,
    NewerError,
    Pointer,
    RetryRound,
    parse,
    to_json,
)
from schemas.records import SCHEMA_VERSION
from tests.compat.stored import unpack
from tests.results import make_manifest


@pytest.mark.parametrize("name", ["coco", "retried", "two-generations"])
def test_stored_files_are_written_again_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    output = unpack(name, tmp_path).output
    manifests = list(output.glob("runs/*/seals/*/manifest.json"))
    assert manifests
    for path in manifests:
        assert parse(Manifest, path.read_bytes()).to_json() == path.read_bytes()
    for path in output.glob("plan/*/_COMMITTED"):
        assert to_json(parse(Marker, path.read_bytes())) == path.read_bytes()
    for path in output.glob("runs/*/retries/*.json"):
        assert to_json(parse(RetryRound, path.read_bytes())) == path.read_bytes()


def test_a_pointer_without_a_version_is_of_the_first_one(tmp_path: Path) -> None:
    output = unpack("coco", tmp_path).output
    pointer = parse(Pointer, (output / "current.json").read_bytes())
    assert pointer.version == 1
    manifest = output / f"runs/{pointer.fingerprint}/seals/{pointer.generation}/manifest.json"
    assert hashlib.sha256(manifest.read_bytes()).hexdigest() == pointer.manifest_sha256


def test_keys_of_other_versions_are_kept() -> None:
    content = {**make_manifest().as_dict(), "later": {"digest": "abc", "unused": 3}}
    manifest = parse(Manifest, json.dumps(content).encode())
    assert json.loads(manifest.to_json()) == content
    assert not manifest.says_the_same(make_manifest())


def test_manifests_that_differ_in_generation_and_groups_say_the_same() -> None:
    group = {"key": "0", "execution_classes": [], "counts": Counts(), "drift": {}, "files": 1}
    assert make_manifest(generation=3, groups=[group]).says_the_same(make_manifest())
    assert not make_manifest(images_root="/elsewhere").says_the_same(make_manifest())


def test_a_newer_version_is_told_before_anything_else_is_looked_at() -> None:
    """Its keys may be others."""
    with pytest.raises(NewerError, match=f"its version is {VERSION + 1}, this one knows {VERSION}"):
        parse(Pointer, json.dumps({"version": VERSION + 1, "whatever": 0}).encode())
    with pytest.raises(NewerError, match="schema_version"):
        parse(Manifest, json.dumps({"schema_version": SCHEMA_VERSION + 1}).encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "valid dictionary"),
        (b"{}", "fingerprint: Field required"),
        (b'{"fingerprint": "f", "generation": "x", "manifest_sha256": "0"}', "generation: "),
        (b'{"fingerprint": "f", "generation": 0, "manifest_sha256": "0", "version": "new"}', "version: "),
    ],
)
def test_what_is_damaged_is_told_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(ContractError, match=words) as raised:
        parse(Pointer, data)
    assert not isinstance(raised.value, NewerError)
    assert "\n" not in str(raised.value)


def test_failed_rows_are_counted() -> None:
    counts = Counts(images={"ok": 3, "failed": 1}, decisions={"refined": 5, "failed": 2})
    assert (counts.failed, counts.rows) == (3, 11)
    assert Counts().failed == 0
