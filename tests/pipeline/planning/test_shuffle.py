"""Rows by the store: what a killed step has read is not read again, and what is gone or damaged is never left out."""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import JobError
from pipeline.output.garbage import find_garbage
from pipeline.output.manifest import Retention
from pipeline.planning import sheets, spill
from pipeline.planning.coverage import content
from pipeline.planning.increment import ChunkLimits, plan, plan_rows
from pipeline.planning.scanning import encoded
from pipeline.planning.shuffle import Read, Shuffle, Work
from pipeline.planning.spill import Lines, hash_range
from pipeline.sources import parquet
from pipeline.sources.coverage import Coverage
from pipeline.storage import Store, StoredFile
from schemas import layout
from schemas.attempts import RANGES
from tests.pipeline.planning.pieced import files_of, make_source, plan_source
from tests.pipeline.planning.test_large_plans import buckets as planned_ranges
from tests.pipeline.planning.test_large_plans import image, planned_ids
from tests.pipeline.planning.test_pieces import elsewhere

FILES = 7  # that `make_source` makes by default, the damaged one included


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of the source that are read, one after another."""
    paths: list[str] = []
    scan = parquet.scan_piece

    def noted(given: Any, piece: Any) -> Any:
        paths.append(piece.path)
        return scan(given, piece)

    monkeypatch.setattr("pipeline.sources.scan_piece", lambda _source, given, piece: noted(given, piece))
    return paths


def shuffled(output: Path) -> list[str]:
    return sorted(path.name for path in (output / layout.SHUFFLE).rglob("*") if path.is_file())


def dies_after(count: int) -> Callable[..., Iterator[Any]]:
    """The command does, with so many answers of its tasks."""

    left = count

    def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        nonlocal left
        for answer in elsewhere(function, items):
            if not left:
                raise KeyboardInterrupt
            left -= 1
            yield answer

    return flow


def test_a_killed_step_reads_only_what_it_has_not_read(tmp_path: Path, scanned: list[str]) -> None:
    source = make_source(tmp_path / "in")
    wanted = plan_source(source, tmp_path / "whole")
    scanned.clear()
    with pytest.raises(KeyboardInterrupt):
        plan_source(source, tmp_path / "out", dies_after(20))
    before = list(scanned)
    assert 1 < len(before) < FILES
    assert plan_source(source, tmp_path / "out", elsewhere) == wanted
    assert len(scanned) - len(before) <= FILES - len(before) + 1, "of the file that it was at, some is read again"
    assert shuffled(tmp_path / "out") == []


def test_a_step_killed_while_it_compares_reads_nothing_again(tmp_path: Path, scanned: list[str]) -> None:
    source = make_source(tmp_path / "in")
    wanted = plan_source(source, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        plan_source(source, tmp_path / "out", dies_after(60))
    assert any(name.endswith(".parquet") for name in shuffled(tmp_path / "out"))
    scanned.clear()
    found = plan_source(source, tmp_path / "out", elsewhere)
    assert scanned == []
    scans = {name for name in wanted if name.startswith("scans")}
    assert {name: found[name] for name in scans} == {name: wanted[name] for name in scans}
    assert plan_source(source, tmp_path / "out", elsewhere) == found, "and there is nothing new"


def test_a_file_that_was_changed_meanwhile_is_read_again(tmp_path: Path, scanned: list[str]) -> None:
    source = make_source(tmp_path / "in")
    with pytest.raises(KeyboardInterrupt):
        plan_source(source, tmp_path / "out", dies_after(60))
    scanned.clear()
    os.utime(source / "masks" / "02.parquet", ns=(1, 1))
    plan_source(source, tmp_path / "out", elsewhere)
    assert scanned == ["02.parquet"]


def test_what_another_step_has_removed_is_read_again(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in")
    wanted = plan_source(source, tmp_path / "whole")
    output, calls = tmp_path / "out", 0

    def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        nonlocal calls
        calls += 1
        yield from elsewhere(function, items)
        if calls == 1:
            assert plan_source(source, output, elsewhere) == wanted, "it is done first"
            assert shuffled(output) == []

    assert plan_source(source, output, flow) == wanted
    assert calls == 3


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_lines_that_are_gone_or_damaged_end_the_step(damage: str, tmp_path: Path) -> None:
    source = make_source(tmp_path / "in")
    output, calls = tmp_path / "out", 0

    def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            for path in (output / layout.SHUFFLE).glob("*.lines"):
                data = path.read_bytes()
                path.write_bytes({"cut": data[:-9], "changed": bytes(len(data))}.get(damage, data))
                if damage == "gone":
                    path.unlink()
        yield from elsewhere(function, items)

    with pytest.raises(JobError, match=r"shuffle/\S+, .* was gone or damaged"):
        plan_source(source, output, flow)
    for _ in range(FILES):  # each try finds one of them
        with suppress(JobError):
            plan_source(source, output, elsewhere)
    assert shuffled(output) == []
    plan_source(source, tmp_path / "whole")
    assert planned_ids(Store(str(output))) == planned_ids(Store(str(tmp_path / "whole")))


def lines(*texts: str) -> Lines:
    return Lines({3: [f'[1,1,"{text}"]' for text in texts]}, {3: len(texts)}, len(texts), {"a.tar"})


def read(item: str) -> Iterator[Read]:
    for number in range(4):
        yield Read(lines(f"{item} {number}", "x" * 40))
    coverage = Coverage(["*.txt"])
    coverage.leave("a\udcff.png", "no mask")
    coverage.category(7, "thing")
    yield Read(Lines({}, {}, 0), coverage)


def test_work_that_is_begun_again_tells_what_it_told_before(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "SHEET_CHARACTERS", 100)
    work = Work(output, "", "0", read, str)
    first, again = list(work("a")), list(work("a"))
    assert [told.entries for told in first] == [2, 2, 2, 2, 0, 0]
    assert pickle.dumps(first[-1].sheets) == pickle.dumps(again[-1].sheets)
    assert [told[:2] for told in first] == [told[:2] for told in again]
    told, kept = (one[-1].coverage for one in (first, again))
    assert told is not None
    assert kept is not None
    assert content(told, "") == content(kept, "")
    assert [one.name for one in kept.left()] == ["a\udcff.png"]
    assert len(first[-1].sheets) == 2
    output.delete(first[-1].sheets[1].path)
    assert [told.entries for told in work("a")] == [2, 2, 2, 2, 0, 0]
    assert output.exists(first[-1].sheets[1].path), "what is not all there is done again"


def test_work_that_nobody_can_tell_apart_is_done_by_every_step(output: Store) -> None:
    one, other = (Work(output, "", apart, read, lambda _item: None).key("a") for apart in "01")
    assert one != other
    assert Work(output, "", "0", read, str).key("a") == Work(output, "", "1", read, str).key("a")
    assert Work(output, "", "0", read, str).key("a") != Work(output, "other code", "0", read, str).key("a")


def test_a_piece_that_does_not_come_back_is_told(output: Store) -> None:
    def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        yield from elsewhere(function, list(items)[1:])

    with pytest.raises(JobError, match="1 of 2 pieces"):
        list(Shuffle(output, flow).each(read, str, ["a", "b"]))


def test_secrets_of_addresses_are_not_kept(output: Store) -> None:
    def tells(_item: str) -> Iterator[Read]:
        coverage = Coverage()
        coverage.leave("https://user:pass@host/a.png?X-Amz-Signature=0123456789abcdef", "no mask")
        yield Read(lines("a"), coverage)

    list(Work(output, "", "0", tells, str)("a"))
    [name] = [file.path for file in output.walk(layout.SHUFFLE) if file.path.endswith(".json")]
    assert b"0123456789abcdef" not in output.read(name)
    assert b"user:pass" not in output.read(name)


def test_what_a_step_left_long_ago_goes_and_what_is_fresh_stays(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in")
    with pytest.raises(KeyboardInterrupt):
        plan_source(source, tmp_path / "out", dies_after(60))
    left = shuffled(tmp_path / "out")
    output = Store(str(tmp_path / "out"))
    assert not [one for one in find_garbage(output, Retention()).garbage if one.path.startswith(layout.SHUFFLE)]
    for path in (tmp_path / "out" / layout.SHUFFLE).rglob("*"):
        os.utime(path, (1, 1))
    found = [one for one in find_garbage(output, Retention()).garbage if one.path.startswith(layout.SHUFFLE)]
    assert len(found) == len(left)
    plan_source(source, tmp_path / "out")
    assert shuffled(tmp_path / "out") == []


def test_a_range_of_too_many_rows_is_divided_where_it_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.jpg" for number in range(80_000)]
    crowded = [*islice((name for name in names if hash_range(name) == 5), 60), "other.jpg"]
    monkeypatch.setattr(spill, "BUCKET_ROWS", 10)
    monkeypatch.setattr(spill, "FILES_AT_ONCE", 3)
    files = {name: StoredFile(name, number, f"tag {number}") for number, name in enumerate(names[::400] + crowded)}
    limits, outputs = ChunkLimits(images=4, decoded_bytes=1 << 30), [Store(str(tmp_path / name)) for name in ("a", "b")]
    coverages = [Coverage(), Coverage()]
    plan(outputs[0], map(image, crowded), files, limits, coverage=coverages[0])
    shuffle = Shuffle(outputs[1], elsewhere)
    rows = shuffle.each(lambda some: map(Read, encoded(map(image, some))), list, [tuple(crowded)])
    plan_rows(outputs[1], rows, files, limits, coverage=coverages[1], shuffle=shuffle)
    assert any(place.ranges > RANGES for place in planned_ranges(outputs[1]))
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert content(coverages[0], "") == content(coverages[1], "")
    assert list(coverages[0].left()) == list(coverages[1].left())


def dies_once_all_is_read() -> Callable[..., Iterator[Any]]:
    """The command does, before it compares anything."""
    calls = 0

    def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        yield from elsewhere(function, items)

    return flow


def test_masks_in_files_that_rows_name_are_read_again(tmp_path: Path) -> None:
    """A mask file that was mended while nobody planned: the Parquet files are the same, and their rows are not."""
    source = make_source(tmp_path / "in", range(3))
    names = [f"{number:05d}.jpg" for number in range(20)]
    table = pa.table({"image_uri": names, "mask_path": [f"masks/{name}.png" for name in names]})
    pq.write_table(table, source / "masks" / "09.parquet")
    for name in names:
        write_mask(source / "masks" / "masks" / f"{name}.png", 1)
    with pytest.raises(KeyboardInterrupt):
        plan_source(source, tmp_path / "out", dies_once_all_is_read())
    for name in names:
        write_mask(source / "masks" / "masks" / f"{name}.png", 3)
    assert plan_source(source, tmp_path / "out", elsewhere) == plan_source(source, tmp_path / "whole")


def write_mask(path: Path, value: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20) // 100 * value).save(path)


def test_two_steps_at_once_plan_everything_once(tmp_path: Path) -> None:
    """The second begins, and ends, at every answer that the first one gets."""
    source = make_source(tmp_path / "in", range(2))
    wanted = plan_source(source, tmp_path / "whole")
    for place in range(0, 40, 3):
        output, left = tmp_path / f"out-{place}", place

        def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
            nonlocal left
            for answer in elsewhere(function, items):
                left -= 1
                if left == 0:
                    plan_source(source, output, elsewhere)  # noqa: B023
                yield answer

        with suppress(JobError):  # another one has committed meanwhile: no lease here keeps it out
            plan_source(source, output, flow)
        plan_source(source, output, elsewhere)
        assert sorted(planned_ids(Store(str(output)))) == sorted(planned_ids(Store(str(tmp_path / "whole"))))
        assert shuffled(output) == []
    assert wanted


@pytest.mark.parametrize("change", ["ignore", "images", "options", "files gone", "all unread"])
def test_what_is_changed_between_kill_and_resume_counts(change: str, tmp_path: Path) -> None:
    """The plan is that of a step that was never killed."""
    source = make_source(tmp_path / "in", range(3))
    with pytest.raises(KeyboardInterrupt):
        plan_source(source, tmp_path / "out", dies_once_all_is_read())
    how: dict[str, Any] = {}
    if change == "ignore":
        how = {"ignore": ("03x.parquet", "notes.txt")}
    elif change == "images":
        (source / "images").rename(source / "other")
        how = {"images": "other"}
    elif change == "options":
        how = {"source": "parquet:image=image_uri"}
    elif change == "files gone":
        (source / "masks" / "01.parquet").unlink()
        (source / "images" / "00003.jpg").unlink()
    else:
        (source / "masks" / "02.parquet").write_bytes(b"PAR1, and no more")
    resumed = plan_source(source, tmp_path / "out", elsewhere, **how)
    assert resumed == plan_source(source, tmp_path / "whole", **how)
    assert len(planned_ids(Store(str(tmp_path / "out")))) == len(set(planned_ids(Store(str(tmp_path / "out")))))


def test_names_that_are_no_utf8_survive(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in", range(2))
    (source / "masks" / "01.parquet").rename(source / "masks" / os.fsdecode(b"01\xff.parquet"))
    (source / "images" / os.fsdecode(b"\xfe.jpg")).touch()
    with pytest.raises(KeyboardInterrupt):
        plan_source(source, tmp_path / "out", dies_once_all_is_read())
    assert plan_source(source, tmp_path / "out", elsewhere) == plan_source(source, tmp_path / "whole")
