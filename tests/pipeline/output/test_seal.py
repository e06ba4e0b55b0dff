"""Parts to shards with a deterministic model and no cluster: accounting, order, the switch."""

import json
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline import dataset
from pipeline.errors import JobError, RefusedError, StorageError
from pipeline.masks import binary
from pipeline.output import shard_groups
from pipeline.output.manifest import Sealed
from pipeline.output.seal import SealRequest, seal
from pipeline.planning.increment import Chunk, read_chunk, read_plan
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Inputs, Task
from pipeline.storage import Store
from pipeline.storage.documents import run_store
from schemas.config import Gate, Method
from schemas.manifest import PlannedTotals, SealedTotals
from schemas.records import IMAGES, MASKS
from tests.conftest import DEMO
from tests.fakes import FakeModel
from tests.pipeline.whole import plan_demo

FINGERPRINT = "feedc0ffee00"
SHARD_BYTES = 1 << 20


@pytest.fixture
def planned(tmp_path: Path) -> Store:
    """The demo's five photographs and ten masks, in three chunks."""
    output = Store(str(tmp_path / "out"))
    plan_demo(output, chunk_images=2)
    return output


def finish(output: Store, chunk: Chunk, images: int | None = None) -> None:
    task = Task(chunk, images or chunk.images)
    inputs = Inputs(Store(str(DEMO / "images")), None)
    loaded = chunk_work.load(read_chunk(output, chunk).slice(0, task.images), inputs, Method(), 1024, 2)
    part = chunk_work.refine(loaded, FakeModel(), Method(iterations=1))
    chunk_work.write(part, task, run_store(output, FINGERPRINT), "test; 1 threads")


def sealed(output: Store, gate: Gate | None = None, shard_bytes: int = SHARD_BYTES) -> Sealed:
    request = SealRequest(
        output=output,
        fingerprint=FINGERPRINT,
        gate=gate or Gate(),
        calibration=None,
        shard_bytes=shard_bytes,
        images_root="/photos",
    )
    return seal(request)


def finish_all(output: Store) -> None:
    for chunk in read_plan(output).chunks:
        finish(output, chunk)


def test_shards_hold_every_planned_mask_once_in_the_documented_schema(planned: Store) -> None:
    finish_all(planned)
    manifest = sealed(planned).manifest
    assert manifest.sealed == SealedTotals(images=5, masks=10, chunks=3)
    result = dataset.open_result(planned.uri)
    table = result.masks()
    assert table.schema.equals(MASKS)
    assert result.images().schema.equals(IMAGES)
    expected = json.loads((DEMO / "coarse.json").read_text())
    assert sorted(table["source_mask_id"].to_pylist(), key=int) == [str(a["id"]) for a in expected["annotations"]]
    assert len(set(table["mask_id"].to_pylist())) == 10
    assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
    for row in table.to_pylist():
        pixels = binary.decode(row["mask_rle"])
        assert pixels.shape == (row["height"], row["width"])
        assert pixels.sum() == row["area"]
        assert row["bbox_xywh"] == binary.bbox_xywh(row["mask_rle"])
        assert row["mask_rle"] == row["refined_rle" if row["decision"] == "refined" else "coarse_rle"]
        chosen = "quality_refined" if row["decision"] == "refined" else "quality_coarse"
        assert row["quality"] == row[chosen]
    images = {row["image_id"]: row for row in result.images().to_pylist()}
    assert {name: row["masks"] for name, row in images.items()}["astronaut.jpg"] == 3
    assert "/photos" not in str(table.to_pylist())


def test_a_seal_repeated_changes_nothing_and_a_new_gate_is_a_new_generation(planned: Store) -> None:
    finish_all(planned)
    first = sealed(planned)
    assert not sealed(planned).changed
    other = sealed(planned, Gate(min_quality_gain=0.99))
    assert (other.changed, other.generation) == (True, first.generation + 1)
    assert other.manifest.counts.decisions == {"kept_coarse": 10}
    table = dataset.open_result(planned.uri).masks()
    assert set(table["reason"].to_pylist()) == {"refined_less_certain"}
    assert table["mask_rle"].to_pylist() == table["coarse_rle"].to_pylist()
    # A plain glob sees the current generation only.
    folder = Path(planned.uri) / "runs" / FINGERPRINT / "masks"
    assert ds.dataset(folder).to_table()["mask_id"].to_pylist() == table["mask_id"].to_pylist()


def test_shards_do_not_depend_on_the_order_in_which_chunks_finished(planned: Store, tmp_path: Path) -> None:
    finish_all(planned)
    hashes = [entry.sha256 for entry in sealed(planned).manifest.masks]
    for path in (Path(planned.uri) / "runs").rglob("parts/*"):
        path.unlink()
    for chunk in reversed(read_plan(planned).chunks):
        finish(planned, chunk)
    assert [entry.sha256 for entry in sealed(planned).manifest.masks] == hashes


def test_small_shards_split_between_chunks(planned: Store) -> None:
    finish_all(planned)
    manifest = sealed(planned, shard_bytes=1).manifest
    assert len(manifest.masks) == 3
    assert sum(entry.rows for entry in manifest.masks) == 10
    assert dataset.open_result(planned.uri).masks().num_rows == 10


def test_unfinished_work_is_counted_as_such(planned: Store) -> None:
    first, second, _ = read_plan(planned).chunks
    finish(planned, first)
    finish(planned, second, images=1)  # a limit cut it
    manifest = sealed(planned).manifest
    assert manifest.planned == PlannedTotals(images=5, chunks=3)
    assert manifest.sealed.images == 3
    finish(planned, second)  # now whole: the cut part no longer counts
    assert sealed(planned).manifest.sealed.images == 4


@pytest.mark.parametrize("damage", ["row lost", "row doubled", "mask lost"])
def test_a_part_that_does_not_fit_the_plan_is_refused(planned: Store, damage: str) -> None:
    finish_all(planned)
    path = next((Path(planned.uri) / "runs" / FINGERPRINT / "parts").iterdir())
    table = pq.read_table(path)
    rows = table.to_pylist()
    if damage == "row lost":
        rows = rows[1:]
    if damage == "row doubled":
        rows = [*rows, rows[0]]
    if damage == "mask lost":
        rows[0]["masks"] = rows[0]["masks"][1:]
    pq.write_table(table.from_pylist(rows, table.schema), path)
    with pytest.raises(JobError, match="does not hold what the plan has"):
        sealed(planned)
    assert dataset.read_current(planned) is None


def test_an_altered_manifest_is_noticed(planned: Store) -> None:
    finish_all(planned)
    sealed(planned)
    [path] = (Path(planned.uri) / "runs" / FINGERPRINT / "seals" / "0").glob("*/manifest.json")
    path.write_text(path.read_text() + " ")
    with pytest.raises(RefusedError, match="is not the manifest"):
        dataset.open_result(planned.uri)


def test_nothing_to_seal_and_nothing_to_open_are_refused(planned: Store) -> None:
    with pytest.raises(RefusedError, match="nothing to seal"):
        sealed(planned)
    with pytest.raises(RefusedError, match="no sealed result"):
        dataset.open_result(planned.uri)


def test_a_store_that_gives_nothing_stops_the_job(planned: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_chunk(planned, read_plan(planned).chunks[0])
    inputs, read = Inputs(Store(str(DEMO / "images")), None), Store.read

    def refuse(store: Store, path: str, size_bytes: int | None = None) -> bytes:
        if path in refused:
            raise StorageError("503 SlowDown")
        return read(store, path, size_bytes)

    monkeypatch.setattr(Store, "read", refuse)
    first, second = refused = rows["image_uri"].to_pylist()
    with pytest.raises(StorageError, match="gave none of the 2 images"):
        chunk_work.load(rows, inputs, Method(), 1024, 2)
    refused = [second]
    assert chunk_work.load(rows, inputs, Method(), 1024, 2)["reason"].to_pylist() == [None, "storage"], first


def test_a_shard_of_small_masks_ends_before_its_target_size(planned: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of who seals goes with rows, not with bytes."""
    finish_all(planned)
    assert len(sealed(planned).manifest.masks) == 1
    rows = [chunk.images + chunk.masks for chunk in read_plan(planned).chunks]
    monkeypatch.setattr(shard_groups, "SHARD_ROWS", rows[0] + rows[1])
    manifest = sealed(planned).manifest
    assert [entry.rows for entry in manifest.images] == [4, 1]
    assert sum(entry.rows for entry in manifest.masks) == 10
