"""Plans of many hash ranges: as many as the rows need, committed as they come, and read where they are asked for."""

from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import pytest

from pipeline.planning import earlier, increment, spill
from pipeline.planning.attempts import increments
from pipeline.planning.increment import ChunkLimits, Planned, plan, read_chunk, read_plan
from pipeline.planning.spill import hash_range
from pipeline.sources import PlannedImage, PlannedMask
from pipeline.storage import Store
from schemas import layout

LIMITS = ChunkLimits(images=4, decoded_bytes=1 << 30)


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def image(name: str, salt: str = "") -> PlannedImage:
    return PlannedImage(name, name, (10, 20), [PlannedMask("1", 1, "thing", f"[[0, 0, 5, 0, 5, 5]]{salt}")])


def numbered(numbers: Iterable[int]) -> Iterator[PlannedImage]:
    return (image(f"{number:04d}.jpg") for number in numbers)


def planned_ids(output: Store) -> list[str]:
    found = read_plan(output)
    rows = [row for chunk in found.chunks for row in read_chunk(output, chunk).to_pylist()]
    return sorted(row["image_id"] for row in rows if (row["chunk_id"], row["image_id"]) not in found.superseded)


def buckets(output: Store) -> list[layout.HashRange]:
    return [place for file in output.list(layout.PLAN) if (place := layout.bucket_range(file.path))]


def test_a_range_of_too_many_rows_is_divided_and_found_again(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n}.jpg" for n in range(80_000)]
    crowded = list(islice((name for name in names if hash_range(name) == 5), 60))
    monkeypatch.setattr(spill, "BUCKET_ROWS", 10)
    plan(output, map(image, crowded), {}, LIMITS)
    assert {place.ranges for place in buckets(output)} == {8192}
    assert len(buckets(output)) > 5
    assert planned_ids(output) == sorted(crowded)
    assert read_plan(output).ranges == 8192
    monkeypatch.setattr(spill, "BUCKET_ROWS", 1000)
    again = plan(output, map(image, [*crowded, "new.jpg"]), {}, LIMITS)
    assert (again.images, again.superseded, again.unchanged) == (1, 0, 60)
    pruned = plan(output, map(image, crowded[:50]), {}, LIMITS, prune=True)
    assert (pruned.images, pruned.superseded, pruned.unchanged) == (0, 11, 50)
    assert planned_ids(output) == sorted(crowded[:50])


def test_a_killed_plan_goes_on_from_the_ranges_that_are_committed(
    output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "BUCKET_ROWS", 50)
    monkeypatch.setattr(increment, "INCREMENT_ROWS", 100)
    create, named = Store.create, count(1)

    def dies_at_the_third(self: Store, path: str, data: bytes) -> bool:
        if path.endswith("_COMMITTED") and next(named) == 3:
            raise KeyboardInterrupt
        return create(self, path, data)

    monkeypatch.setattr(Store, "create", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        plan(output, numbered(range(500)), {}, LIMITS)
    monkeypatch.setattr(Store, "create", create)
    done = read_plan(output)
    assert (done.increments, done.images >= 200) == (2, True)
    rest = plan(output, numbered(range(500)), {}, LIMITS)
    assert (rest.images, rest.unchanged) == (500 - done.images, done.images)
    assert planned_ids(output) == [f"{n:04d}.jpg" for n in range(500)]
    assert plan(output, numbered(range(500)), {}, LIMITS) == Planned(None, unchanged=500)


def test_each_increment_says_which_hashes_it_is_about(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "BUCKET_ROWS", 50)
    monkeypatch.setattr(increment, "INCREMENT_ROWS", 100)
    planned = plan(output, numbered(range(500)), {}, LIMITS)
    spans = [one.marker.span for one in increments(output)]
    assert (planned.images, planned.increment) == (500, len(spans) - 1)
    assert [span[0] for span in spans if span] == [0, *(span[1] for span in spans[:-1] if span)]
    changed = plan(output, (image(f"{n:04d}.jpg", "x" if n % 3 == 0 else "") for n in range(500)), {}, LIMITS)
    assert (changed.images, changed.superseded, changed.unchanged) == (167, 167, 333)
    gone = plan(output, numbered(range(3)), {}, LIMITS, prune=True)
    assert (gone.images, gone.superseded) == (1, 498)  # image 0 changes back
    assert planned_ids(output) == ["0000.jpg", "0001.jpg", "0002.jpg"]
    assert plan(output, numbered(range(3)), {}, LIMITS, prune=True) == Planned(None, unchanged=3)


def test_a_few_new_images_read_a_few_row_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = Store(f"memory://{tmp_path.name}/large")
    monkeypatch.setattr(spill, "BUCKET_ROWS", 1500)
    plan(output, numbered(range(6000)), {}, ChunkLimits(64, 1 << 30))
    stored = sum(file.size for file in output.list(layout.PLAN) if layout.bucket_range(file.path))
    fetched: list[int] = []
    read_range = Store.read_range

    def counted(self: Store, path: str, start: int, length: int) -> bytes:
        data = read_range(self, path, start, length)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(Store, "read_range", counted)
    monkeypatch.setattr(earlier, "AHEAD_BYTES", 1)
    added = plan(output, numbered([5, 7, 9999]), {}, LIMITS)
    assert (added.images, added.unchanged) == (1, 2)
    assert 0 < sum(fetched) < stored / 2
