"""Results of an earlier commit (917d5b7) under the code as it is: they open, verify, resume and grow.

Whoever has ten million refined masks must not refine them again because this project was put in order. A change of the
method is no excuse here: plans do not depend on it, and the stored results that are run again refine nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import pipeline
from pipeline.calibration import files
from pipeline.models import weights
from pipeline.output.seal import ROW_GROUP_ROWS
from pipeline.storage import parquet_bytes
from schemas import config, layout
from schemas.records import MASKS
from tests.compat.make import fingerprints
from tests.compat.stored import DATA, Stored, command, image_rows, increments, mask_rows, planned_ids, unpack
from tests.conftest import Cli, RayHead, ray_head

SOURCES = (
    *("coco", "coco-results", "coco-panoptic", "lvis", "png", "instances", "voc", "class-maps", "cam", "yolo"),
    *("parquet", "webdataset", "result"),
)
STATES = ("retried", "two-generations", "changed")
SEALED = (*SOURCES, *STATES, "limited")


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as found:
        yield found


@pytest.fixture(autouse=True)
def calibrated_as_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calibration that the results were sealed by: one makes the same shards for good.

    It belongs to a generation, not to the method, and a newer one of the package makes another generation.
    """
    folder = tmp_path / "calibrations"
    folder.mkdir()
    packed = (DATA / "balanced.calibration.json.gz").read_bytes()
    (folder / "lite-balanced.calibration.json").write_bytes(gzip.decompress(packed))
    monkeypatch.setattr(files, "PACKAGED_FOLDER", folder)


def is_as_described(stored: Stored, described: dict[str, Any]) -> None:
    assert mask_rows(stored.output) == described["masks"]
    assert image_rows(stored.output) == described["images"]


def is_sound(output: Path) -> None:
    report = json.loads(command("verify", output, "--json"))
    assert report["sound"], report["findings"]


def has_the_shards(stored: Stored, before: Stored, described: dict[str, Any]) -> None:
    """The result's shards are those described, to the byte where the same pyarrow writes the same columns.

    before: the result as it was stored, with the shards themselves, if they are among its files.
    """
    result = pipeline.open(str(stored.output))
    for kind, hashes in described["shards"].items():
        assert len(result.files(kind)) == len(hashes)
        for path, sha256 in zip(result.files(kind), hashes, strict=True):
            [old] = before.output.glob(f"runs/*/{kind}/{sha256[:32]}.parquet")
            was, found = pq.read_table(old), pq.read_table(stored.output / path)
            assert found.select(was.column_names).equals(was)
            if stored.expected["pyarrow"] == pa.__version__ and found.column_names == was.column_names:
                assert (stored.output / path).read_bytes() == old.read_bytes()


def as_it_was(shard: pa.Table) -> str:
    """SHA-256 of a shard of masks as commit 917d5b7 would have written it: without the columns added since."""
    schema = pa.schema([field for field in MASKS if field.name not in ("detail", "crowd", "extra", "trial_iou")])
    rows = [{name: row[name] for name in schema.names} for row in shard.to_pylist()]
    return hashlib.sha256(parquet_bytes(pa.Table.from_pylist(rows, schema), ROW_GROUP_ROWS)).hexdigest()


@pytest.mark.parametrize("name", SEALED)
def test_it_opens_and_is_sound(name: str, tmp_path: Path) -> None:
    stored = unpack(name, tmp_path)
    is_as_described(stored, stored.expected["result"])
    is_sound(stored.output)
    files = [Path(line) for line in command("files", stored.output).splitlines()]
    assert sum(pq.read_metadata(path).num_rows for path in files) == len(stored.expected["result"]["masks"])


@pytest.mark.parametrize("name", [*SEALED, "half-done"])
def test_the_same_input_holds_nothing_new(name: str, tmp_path: Path) -> None:
    stored = unpack(name, tmp_path)
    command("plan", *stored.words())
    assert increments(stored.output) == stored.expected["increments"]
    command("plan", *stored.words(tmp_path / "again"))
    assert planned_ids(tmp_path / "again") == stored.expected["planned"]


@pytest.mark.parametrize("name", SOURCES)
def test_one_image_more_is_one_new_image(name: str, tmp_path: Path) -> None:
    stored = unpack(name, tmp_path)
    stored.grow()
    command("plan", *stored.words())
    before, added = stored.expected["increments"], increments(stored.output)
    assert added[:-1] == before
    assert (added[-1]["images"], added[-1]["superseded"]) == (1, 0)
    assert added[-1]["unchanged"] == len(stored.expected["planned"])
    assert planned_ids(stored.output) == stored.expected["planned"] | stored.expected["grown"]


@pytest.mark.parametrize("name", [*SOURCES, *STATES])
def test_the_same_parts_are_sealed_to_the_same_shards(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a loss of all that sealing writes; no image is refined, so no cluster is needed."""
    before, stored = unpack(name, tmp_path / "before"), unpack(name, tmp_path / "now")
    [run] = (stored.output / "runs").iterdir()
    if name == "two-generations":  # refined by the default method, which is another one by now: under its name of then
        sha256 = yaml.safe_load((run / layout.CONFIG).read_text())["method"]["weights_sha256"]
        monkeypatch.setattr(config, "METHOD_VERSION", 3)
        monkeypatch.setattr(weights, "hash_weights", lambda *_: sha256)
    for written in ("masks", "images", "seals"):
        shutil.rmtree(run / written)
    (stored.output / "current.json").unlink()
    command("run", *stored.words(), "--max-failed-share", "1")
    assert list((stored.output / "runs").iterdir()) == [run]
    described = stored.expected.get("first", stored.expected["result"])
    is_as_described(stored, described)
    has_the_shards(stored, before, described)
    is_sound(stored.output)


def test_another_gate_over_two_generations(tmp_path: Path) -> None:
    """Back to the first gate: the shards of then are those of now, and the generation between keeps its own."""
    before, stored = unpack("two-generations", tmp_path / "before"), unpack("two-generations", tmp_path / "now")
    second = stored.expected["result"]
    assert {row["decision"] for row in second["masks"]} == {"review", "failed"}
    command("seal", stored.output, "--review-below", "0.5")
    is_as_described(stored, stored.expected["first"])
    has_the_shards(stored, before, stored.expected["first"])
    kept = {path.stem for path in stored.output.glob("runs/*/masks/*.parquet")}
    assert kept >= {sha256[:32] for sha256 in second["shards"]["masks"]}
    is_sound(stored.output)


def test_what_was_killed_is_finished(tmp_path: Path, head: RayHead, relabel: Cli) -> None:
    stored = unpack("half-done", tmp_path)
    parts = list(stored.output.glob("runs/*/parts/*.parquet"))
    refine(stored, head, relabel)
    whole = stored.expected["whole"]
    is_as_described(stored, whole)
    is_sound(stored.output)
    are_as_they_were(parts)
    if stored.expected["pyarrow"] == pa.__version__:
        shards = [pq.read_table(stored.output / path) for path in pipeline.open(str(stored.output)).files()]
        assert [as_it_was(shard) for shard in shards] == whole["shards"]["masks"]


def test_what_was_limited_grows(tmp_path: Path, head: RayHead, relabel: Cli) -> None:
    """Three images were done, of the second chunk only the first one; now all are wanted, and one has come."""
    stored = unpack("limited", tmp_path)
    parts = [path for path in stored.output.glob("runs/*/parts/*.parquet") if ".first" not in path.name]
    stored.grow()
    refine(stored, head, relabel)
    found = {row["mask_id"]: row for row in mask_rows(stored.output)}
    new = [found.pop(mask_id) for ids in stored.expected["grown"].values() for mask_id in ids]
    assert [row["decision"] for row in new] == ["refined"]
    assert list(found.values()) == stored.expected["whole"]["masks"]
    is_sound(stored.output)
    are_as_they_were(parts)


def are_as_they_were(parts: Sequence[Path]) -> None:
    """The archive's files are of 1970."""
    assert parts
    assert {path.stat().st_mtime for path in parts} == {0}, "a finished part was written again"


def refine(stored: Stored, head: RayHead, relabel: Cli) -> None:
    """`relabel run`, on a cluster."""
    done = relabel("run", *stored.words(), "--address", head.address, "--actors", "1", "--max-failed-share", "1")
    assert done.returncode == 0, done.stderr


def test_methods_keep_their_fingerprints() -> None:
    """METHOD_VERSION is raised with what a method computes, and then these are written anew (make.py)."""
    assert fingerprints() == json.loads((DATA / "fingerprints.json").read_text())


def test_a_version_leaves_the_fingerprints_of_refiners_that_it_does_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = fingerprints()
    monkeypatch.setattr(config, "METHOD_VERSION", 3)
    then = fingerprints()
    changed = {name.split()[2] for name in now if now[name] != then[name]}
    assert changed == {"samrefiner", "sam-box"}
