"""Planning on real files: increments, chunks, what is new, what changed, what was interrupted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import JobError, RefusedError
from pipeline.planning import spill
from pipeline.planning.draft import cut
from pipeline.planning.increment import ChunkLimits, Planned, plan, read_chunk, read_plan
from pipeline.sources import PlannedImage, PlannedMask
from pipeline.storage import Store, StoredFile

LIMITS = ChunkLimits(images=4, decoded_bytes=1 << 30)


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def image(number: int, masks: int = 1, salt: str = "") -> PlannedImage:
    name = f"{number:04d}.jpg"
    found = [PlannedMask(f"{number}-{i}", 1, "thing", json.dumps([[0, 0, 5, 0, 5, i, salt]])) for i in range(masks)]
    return PlannedImage(name, str(number), (10, 20), found)


def listing(numbers: Iterator[int] | range, size: int = 100) -> dict[str, StoredFile]:
    return {f"{n:04d}.jpg": StoredFile(f"{n:04d}.jpg", size, None) for n in numbers}


def rows(output: Store) -> list[dict]:
    """Live rows of the whole plan, in chunk order."""
    planned = read_plan(output)
    found = [row for chunk in planned.chunks for row in read_chunk(output, chunk).to_pylist()]
    return [row for row in found if (row["chunk_id"], row["image_id"]) not in planned.superseded]


def test_every_image_and_mask_is_planned_once_in_fixed_chunks(output: Store) -> None:
    planned = plan(output, (image(n, masks=n % 3) for n in reversed(range(10))), listing(range(10)), LIMITS)
    assert (planned.images, planned.masks, planned.chunks) == (10, 9, 3)
    found = rows(output)
    assert [row["image_id"] for row in found] == [f"{n:04d}.jpg" for n in range(10)]
    ids = [mask["mask_id"] for row in found for mask in row["masks"]]
    assert len(set(ids)) == len(ids) == 9
    assert [chunk.images for chunk in read_plan(output).chunks] == [4, 4, 2]
    assert len({chunk.chunk_id for chunk in read_plan(output).chunks}) == 3


def test_the_same_source_gives_the_same_plan_in_any_order(tmp_path: Path) -> None:
    chunks = []
    for order in (range(50), reversed(range(50))):
        output = Store(str(tmp_path / str(len(chunks))))
        plan(output, (image(n) for n in order), listing(range(50)), LIMITS)
        chunks.append([(chunk.chunk_id, chunk.row_start, chunk.images) for chunk in read_plan(output).chunks])
    assert chunks[0] == chunks[1]


def test_nothing_new_adds_no_increment(output: Store) -> None:
    plan(output, (image(n) for n in range(5)), listing(range(5)), LIMITS)
    again = plan(output, (image(n) for n in range(5)), listing(range(5)), LIMITS)
    assert again == Planned(None, unchanged=5)
    assert read_plan(output).increments == 1


def test_a_grown_and_changed_corpus_adds_only_what_differs(output: Store) -> None:
    plan(output, (image(n) for n in range(6)), listing(range(6)), LIMITS)
    changed = listing(range(8)) | {"0003.jpg": StoredFile("0003.jpg", 999, None)}
    grown = [image(n, salt="new mask" if n == 1 else "") for n in range(8)]
    planned = plan(output, iter(grown), changed, LIMITS)
    assert (planned.images, planned.superseded, planned.unchanged) == (4, 2, 4)
    found = rows(output)
    assert sorted(row["image_id"] for row in found) == [f"{n:04d}.jpg" for n in range(8)]
    assert read_plan(output).images == 8
    assert {row["image_id"] for row in found if row["chunk_id"].startswith("0001-")} == {
        f"{n:04d}.jpg" for n in (1, 3, 6, 7)
    }


def test_removed_images_stay_unless_pruned(output: Store) -> None:
    plan(output, (image(n) for n in range(6)), listing(range(6)), LIMITS)
    plan(output, (image(n) for n in range(4)), listing(range(4)), LIMITS)
    assert read_plan(output).images == 6
    pruned = plan(output, (image(n) for n in range(4)), listing(range(4)), LIMITS, prune=True)
    assert pruned.superseded == 2
    assert sorted(row["image_id"] for row in rows(output)) == [f"{n:04d}.jpg" for n in range(4)]
    back = plan(output, (image(n) for n in range(5)), listing(range(5)), LIMITS)
    assert back.images == 1
    assert read_plan(output).images == 5


def test_a_chunk_that_was_wholly_replaced_is_no_longer_work(output: Store) -> None:
    plan(output, (image(n) for n in range(8)), listing(range(8)), LIMITS)
    plan(output, (image(n, salt="x" if n < 4 else "") for n in range(8)), listing(range(8)), LIMITS)
    assert [chunk.chunk_id[:4] for chunk in read_plan(output).chunks] == ["0000", "0001"]
    assert len(rows(output)) == read_plan(output).images == 8


def test_an_interrupted_increment_is_discarded(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(output, (image(n) for n in range(3)), listing(range(3)), LIMITS)

    def dies_before_the_marker(self: Store, path: str, data: bytes) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "create", dies_before_the_marker)
    with pytest.raises(KeyboardInterrupt):
        plan(output, (image(n) for n in range(9)), listing(range(9)), LIMITS)
    monkeypatch.undo()
    assert [file.path for file in output.list("plan") if "/1/" in file.path]  # left behind
    assert read_plan(output).images == 3
    assert plan(output, (image(n) for n in range(5)), listing(range(5)), LIMITS).images == 2
    assert len(rows(output)) == 5
    assert len({file.path.split("/")[2] for file in output.list("plan/1")}) == 2  # one attempt, and what names it


def test_an_increment_that_only_had_to_be_named_is_planned_again(
    output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Store.create

    def dies_before_the_name(self: Store, path: str, data: bytes) -> bool:
        if path.endswith("_COMMITTED"):
            raise KeyboardInterrupt
        return create(self, path, data)

    monkeypatch.setattr(Store, "create", dies_before_the_name)
    with pytest.raises(KeyboardInterrupt):
        plan(output, (image(n) for n in range(3)), listing(range(3)), LIMITS)
    monkeypatch.undo()
    assert read_plan(output).images == 0
    assert plan(output, (image(n) for n in range(1, 5)), listing(range(5)), LIMITS).images == 4
    assert read_plan(output).images == 4
    assert len({file.path.split("/")[2] for file in output.list("plan/0")}) == 2


def test_an_increment_whose_name_was_lost_is_named_again(output: Store) -> None:
    for count in (3, 6):
        plan(output, (image(n) for n in range(count)), listing(range(count)), LIMITS)
    chunks = list(read_plan(output).chunks)
    output.delete("plan/0/_COMMITTED")
    with pytest.raises(JobError, match=r"plan/0/_COMMITTED is not there, and later increments are"):
        read_plan(output)
    assert plan(output, (image(n) for n in range(6)), listing(range(6)), LIMITS).unchanged == 6
    assert list(read_plan(output).chunks) == chunks


def test_large_corpora_spill_and_are_bucketed(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.disk_table.HELD_CHARACTERS", 20_000)
    monkeypatch.setattr(spill, "BUCKET_ROWS", 100)
    plan(output, (image(n) for n in range(500)), listing(range(500)), LIMITS)
    assert len([file for file in output.list("plan") if "bucket-" in file.path]) >= 5
    assert sorted(row["image_id"] for row in rows(output)) == [f"{n:04d}.jpg" for n in range(500)]
    monkeypatch.setattr(spill, "BUCKET_ROWS", 300)  # other buckets: what is known is found all the same
    assert plan(output, (image(n) for n in range(510)), listing(range(510)), LIMITS).images == 10


def test_chunks_are_capped_by_decoded_bytes(output: Store) -> None:
    limits = ChunkLimits(images=100, decoded_bytes=2 * 10 * 20 * 3)
    plan(output, (image(n) for n in range(5)), listing(range(5)), limits)
    assert [chunk.images for chunk in read_plan(output).chunks] == [2, 2, 1]


def test_chunks_are_capped_by_pixels_as_they_travel(output: Store) -> None:
    """4,096 photographs of 12 megapixels, four of which fill a chunk at their own size."""
    row = {"height": 3000, "width": 4000}
    plain, reduced = (ChunkLimits(64, 160 << 20, side) for side in (0, 1024))
    assert plain.bytes_of(row) == 3000 * 4000 * 3
    assert reduced.bytes_of(row) == 768 * 1024 * 3
    assert reduced.bytes_of({"height": None, "width": None}) == 0
    assert [plain.decoded_bytes // plain.bytes_of(row), reduced.decoded_bytes // reduced.bytes_of(row)] == [4, 71]
    for_crops = ChunkLimits(64, 160 << 20, 2048, at_most=True)
    assert for_crops.bytes_of(row) == 1536 * 2048 * 3
    assert for_crops.bytes_of({"height": 300, "width": 400}) == 300 * 400 * 3
    limits = ChunkLimits(images=100, decoded_bytes=2 * 5 * 10 * 3, side=10)  # of 20 by 10 pixels: twice as many
    plan(output, (image(n) for n in range(5)), listing(range(5)), limits)
    assert [chunk.images for chunk in read_plan(output).chunks] == [2, 2, 1]


def test_chunks_of_millions_of_small_images_are_larger() -> None:
    limits = ChunkLimits(64, 160 << 20, 1024, most=512)
    assert limits.of_plan(1_000_000) is limits
    assert [limits.of_plan(count).images for count in (2_000_000, 4_000_000, 10_000_000, 10**9)] == [122, 244, 512, 512]
    large = limits.of_plan(10**7)
    unknown, photograph, small = ({"height": h, "width": w, "masks": []} for h, w in ((None, None), (3, 4), (1, 1000)))
    assert large.bytes_of(unknown) * 64 == large.decoded_bytes
    assert large.bytes_of(photograph) == 768 * 1024 * 3
    rows = [
        {**small, "image_id": f"{n:04d}", "masks_digest": "", "masks": [{}] * (n // 600 * 100)} for n in range(1200)
    ]
    assert [chunk.images for chunk in cut(rows, large)] == [512, 169, 81, 81, 81, 81, 81, 81, 33]


def test_an_image_named_twice_is_one_row_with_all_masks(output: Store) -> None:
    plan(output, iter([image(1, masks=2), image(1, masks=2), image(2)]), listing(range(3)), LIMITS)
    found = {row["image_id"]: row for row in rows(output)}
    assert len(found["0001.jpg"]["masks"]) == 4
    assert len({mask["mask_id"] for mask in found["0001.jpg"]["masks"]}) == 4


def test_names_that_are_no_text_are_written_out(output: Store) -> None:
    """Names of files may be any bytes (surrogates stand for them in Python), and JSON may hold any code."""
    masks = [
        PlannedMask("id \udcff", 1, "caf\udce9", json.dumps({"file": "\udcff.png"})),
        PlannedMask("ü", 1, "ü", "[]"),
    ]
    names = ["\udcff.jpg", "ü.jpg"]
    listed = {name: StoredFile(name, 100, None) for name in names}
    plan(output, [PlannedImage(name, name, None, masks, problem=None) for name in names], listed, LIMITS)
    found = {row["image_id"]: row for row in rows(output)}
    assert found.keys() == {"\\udcff.jpg", "ü.jpg"}
    assert [row["size_bytes"] for row in found.values()] == [100, 100]
    assert [(mask["source_mask_id"], mask["category"]) for mask in found["ü.jpg"]["masks"]] == [
        ("id \\udcff", "caf\\udce9"),
        ("ü", "ü"),
    ]


def test_nothing_matched_is_refused(output: Store) -> None:
    with pytest.raises(RefusedError, match="no image matched"):
        plan(output, iter([]), {}, LIMITS)
