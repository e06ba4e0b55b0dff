"""What an output says of itself, through the stores: refused where it is newer, one line where it is damaged."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline.errors import JobError, RefusedError
from pipeline.output.garbage import find_garbage
from pipeline.output.manifest import Retention
from pipeline.output.reseal import reseal
from pipeline.output.status import read_status
from pipeline.storage import Access, Store
from pipeline.storage.documents import find_increment, read_current, read_manifest, read_pointed, read_round, run_store
from pipeline.verify.check import verify
from schemas import layout
from schemas.manifest import PLAIN_VERSION, VERSION
from tests.compat.stored import Stored, unpack


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return unpack("retried", tmp_path)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


def test_every_document_of_a_result_is_read(stored: Stored) -> None:
    output = Store(str(stored.output))
    current = read_current(output)
    assert current is not None
    run = run_store(output, current.fingerprint)
    manifest = read_manifest(run, current.generation)
    assert manifest.retries.done == 1
    assert find_increment(output, 0).marker.images == manifest.planned.images
    assert sum(map(len, read_round(run, 1).images.values())) > 0
    assert read_current(Store(str(stored.folder / "elsewhere"))) is None


def test_a_reader_leaves_out_the_groups_of_a_manifest(stored: Stored) -> None:
    output = Store(str(stored.output))
    current = read_current(output)
    assert current is not None
    whole, read = read_pointed(output, current), read_pointed(output, current, groups=False)
    assert whole.groups
    assert read == whole.model_copy(update={"groups": []})
    [path] = stored.output.glob(f"runs/*/seals/{current.generation}/**/manifest.json")
    other = json.dumps(json.loads(path.read_bytes())).encode()  # as somebody else writes JSON
    path.write_bytes(other)
    again = current.model_copy(update={"manifest_sha256": hashlib.sha256(other).hexdigest()})
    assert read_pointed(output, again, groups=False) == whole


def test_a_newer_output_is_refused_whatever_is_done_to_it(stored: Stored) -> None:
    change(stored.output / layout.CURRENT, version=VERSION + 1)
    output, uri = Store(str(stored.output)), str(stored.output)
    doings = (
        lambda: pipeline.open(uri),
        lambda: verify(uri, Access()),
        lambda: read_status(uri, Access()),
        lambda: reseal(output, {}),
        lambda: find_garbage(output, Retention()),
    )
    for does in doings:
        with pytest.raises(RefusedError, match="newer relabel") as raised:
            does()
        assert uri in str(raised.value)


def test_a_damaged_pointer_is_one_line(stored: Stored) -> None:
    (stored.output / layout.CURRENT).write_text('{"fingerprint": ')
    with pytest.raises(JobError, match=r"current\.json is damaged: not valid JSON"):
        pipeline.open(str(stored.output))


def test_keys_that_a_later_version_added_stay_readable(stored: Stored) -> None:
    pointer = stored.output / layout.CURRENT
    current = json.loads(pointer.read_bytes())
    seal = layout.Seal(current["generation"])  # written before there were attempts
    path = stored.output / layout.in_run(current["fingerprint"], seal.manifest)
    change(path, of_tomorrow=[1])
    change(pointer, manifest_sha256=hashlib.sha256(path.read_bytes()).hexdigest(), of_tomorrow=2)
    result = pipeline.open(str(stored.output))
    assert result.manifest.as_dict()["of_tomorrow"] == [1]
    assert result.masks().num_rows > 0


def test_a_new_generation_of_an_old_result_has_the_pointer_s_version_and_the_manifest_s_keys(stored: Stored) -> None:
    output = Store(str(stored.output))
    before = read_current(output)
    assert before is not None
    run = run_store(output, before.fingerprint)
    [shard] = run.list("images")
    with run.open(shard.path) as file:
        if (writer := pq.read_metadata(file).created_by) != f"parquet-cpp-arrow version {pa.__version__}":
            pytest.skip(f"the stored shards are of {writer}: another one writes other bytes")
    keys = read_manifest(run, before.generation).as_dict().keys()
    widened = reseal(output, {})  # once: its shards get the columns that were added
    current = read_current(output)
    assert current is not None
    assert (widened.changed, current.generation, current.version) == (True, before.generation + 1, PLAIN_VERSION)
    unchanged = reseal(output, {})
    assert (unchanged.changed, read_current(output)) == (False, current)
    sealed = reseal(output, {"review_below": 0.99})
    assert (sealed.changed, sealed.generation) == (True, before.generation + 2)
    assert sealed.manifest.as_dict().keys() == keys
    assert verify(str(stored.output), Access()).findings == []
