"""What stays and what goes: increments beside old shards, kept generations, other methods, and gc."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import open_result, read_current
from pipeline.errors import JobError
from pipeline.output import garbage
from pipeline.output.garbage import Garbage, collect, find_garbage
from pipeline.output.manifest import KEEP_ONE, Retention
from pipeline.storage import Access, Store
from pipeline.storage.lease import Fence, unguarded
from pipeline.verify.check import verify
from schemas.config import Gate, Method
from tests.pipeline.outputs import Output

CORPUS = dict.fromkeys(range(9), (2, ""))  # three chunks of three
STRICT = Gate(min_quality_gain=0.99)
WARY = Gate(min_coarse_iou=1.0)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    made = Output(tmp_path / "out")
    made.plan(CORPUS)
    made.refine(made.pending())
    made.seal()
    return made


def shards(output: Output) -> dict[str, tuple[bytes, int]]:
    """Every shard in every run's folder: bytes and time of writing."""
    files = [path for kind in ("masks", "images") for path in output.folder.glob(f"runs/*/{kind}/*.parquet")]
    return {str(path.relative_to(output.folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def gc(output: Output, retention: Retention = KEEP_ONE, other_methods: bool = False) -> list[Garbage]:
    return collect(output.store, unguarded, retention, other_methods=other_methods).garbage


def sound(output: Output) -> bool:
    report = verify(str(output.folder), Access())
    assert report.findings == []
    return report.notes == []


def test_an_increment_adds_shards_and_leaves_the_old_files_alone(output: Output) -> None:
    before = shards(output)
    time.sleep(0.02)  # a file written again would show it
    output.plan({**CORPUS, 9: (1, ""), 10: (3, "")})
    tasks = output.pending()
    assert [task.images for task in tasks] == [2]  # only what is new
    output.refine(tasks)
    output.seal()
    after = shards(output)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    assert open_result(str(output.folder)).masks().num_rows == 18 + 4
    assert sound(output)


def test_a_changed_image_rewrites_only_the_shard_that_held_it(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.plan(CORPUS)
    output.refine(output.pending())
    output.seal(shard_bytes=1)  # a shard a chunk
    before = shards(output)
    output.plan({**CORPUS, 4: (3, "redrawn")})
    output.refine(output.pending())
    output.seal(shard_bytes=1)
    after = shards(output)
    assert len(before) == 6
    assert len(before.keys() - after.keys()) == 2  # masks and images of the second chunk
    assert all(after[path] == before[path] for path in before.keys() & after.keys())
    result = open_result(str(output.folder))
    assert (result.images().num_rows, result.masks().num_rows) == (9, 19)
    assert sound(output)


def test_a_seal_reads_only_parts_that_the_last_one_did_not(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = Store.read

    def noted(store: Store, path: str, size_bytes: int | None = None) -> bytes:
        reads.append(path)
        return read(store, path, size_bytes)

    def sealed_from(gate: Gate | None = None, shard_bytes: int = 1) -> int:
        """How many parts a seal reads, whose result is sound."""
        reads.clear()
        output.seal(gate, shard_bytes=shard_bytes)
        count = sum(path.startswith("parts/") for path in reads)
        assert sound(output)
        return count

    monkeypatch.setattr(Store, "read", noted)
    assert sealed_from() == 3  # in other groups than the fixture's
    assert sealed_from() == 0
    output.plan({**CORPUS, 9: (1, "")})
    output.refine(output.pending())
    assert sealed_from() == 1
    before = read_current(output.store)
    shard = output.folder / next(path for path in shards(output) if "/masks/" in path)
    held = shard.read_bytes()
    shard.unlink()
    assert sealed_from() == 1
    assert shard.read_bytes() == held
    assert read_current(output.store) == before
    assert sealed_from(STRICT) == 4
    part = next(output.folder.glob("runs/*/parts/*.parquet"))
    os.utime(part, (1, 1))  # written by somebody else
    assert sealed_from(STRICT) == 1
    output.plan({**CORPUS, 9: (1, ""), 4: (3, "redrawn")})
    output.refine(output.pending())
    assert sealed_from(STRICT) == 1 + 1 + 1  # the new part, the one that lost a row, the one with another time


def test_a_changed_method_stands_beside_the_old_result(output: Output) -> None:
    before = shards(output)
    old = read_current(output.store)
    other = Output(output.folder, method=Method(iterations=2))
    other.refine(other.pending())
    other.seal()
    assert before.items() <= shards(output).items()
    assert read_current(output.store) != old
    report = verify(str(output.folder), Access())
    assert report.findings == []
    assert output.run.uri.rpartition("/")[2] in report.notes[0]
    assert find_garbage(output.store, Retention()).garbage == []
    everything = find_garbage(output.store, Retention(), other_methods=True).garbage
    assert {one.path.split("/")[1] for one in everything} == {output.run.uri.rpartition("/")[2]}
    gc(output, other_methods=True)
    assert output.run.list() == []
    assert sound(output)


def generations(output: Output) -> set[str]:
    return {file.path.split("/")[1] for file in output.run.list("seals")}


def test_one_generation_is_kept_unless_more_are_wanted(output: Output) -> None:
    first = shards(output)
    output.seal(STRICT, Retention(keep_generations=2))
    both = shards(output)
    assert first.items() <= both.items()
    assert len(both) > len(first)
    assert sound(output)  # shards of a kept generation are not extra
    output.seal(WARY, Retention(keep_generations=2))
    third = shards(output)
    assert not {path for path in first if "/masks/" in path} & third.keys()
    assert generations(output) == {"1", "2"}
    output.seal(WARY)  # nothing new, but only one is to be kept
    assert generations(output) == {"2"}
    assert sound(output)


def test_a_replaced_generation_keeps_its_shards_through_its_grace(output: Output) -> None:
    first = shards(output)
    output.seal(STRICT, Retention(grace_s=3600))
    assert first.items() <= shards(output).items()
    assert find_garbage(output.store, Retention(grace_s=3600)).garbage == []
    age(output.folder, 7200)
    gone = {one.path for one in find_garbage(output.store, Retention(grace_s=3600)).garbage}
    assert {path for path in first if "/masks/" in path} <= gone
    gc(output, Retention(grace_s=3600))
    assert sound(output)


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_gc_takes_what_killed_runs_left_and_nothing_else(output: Output) -> None:
    assert find_garbage(output.store, Retention()).garbage == []
    before = {path: path.read_bytes() for path in output.folder.rglob("*") if path.is_file()}
    left = {
        "plan/1/bucket-0000-1023.parquet": "an increment that was never committed",
        f"runs/{output.run.uri.rpartition('/')[2]}/masks/{'0' * 32}.parquet": "no kept generation lists it",
        f"runs/{output.run.uri.rpartition('/')[2]}/seals/7/manifest.json": "no kept generation lists it",
        "plan/0/.tmp-1234": "an unfinished write",
    }
    for path in left:
        output.store.put(path, b"left behind")
    young = output.folder / "runs" / ".tmp-young"
    young.write_bytes(b"being written")
    age(output.folder / "plan", 2 * garbage.TEMPORARY_AGE_S)
    found = find_garbage(output.store, Retention()).garbage
    assert {one.path: one.why for one in found} == left
    gc(output)
    young.unlink()
    pointer = output.folder / "current.json"
    now = {path: path.read_bytes() for path in output.folder.rglob("*") if path.is_file()}
    assert json.loads(now.pop(pointer))["given_up"] == [path for path in left if "/masks/" in path]
    assert "null" in now.pop(output.folder / output.run.uri / "seals/7/_SUCCESS").decode()  # nobody can complete it now
    assert now == {path: data for path, data in before.items() if path != pointer}
    assert sound(output)


def test_parts_go_when_their_chunk_was_replaced_and_the_result_no_longer_needs_them(output: Output) -> None:
    output.plan({number: (2, "redrawn" if number < 3 else "") for number in CORPUS})
    assert find_garbage(output.store, Retention()).garbage == []  # the current result was sealed from them
    output.refine(output.pending())
    output.seal()
    [part] = find_garbage(output.store, Retention()).garbage
    assert part.why == "a part of no use"
    assert "/parts/0000-0000000-" in part.path
    gc(output)
    assert sound(output)
    assert output.pending() == []
    assert not output.seal().changed


def test_cut_parts_go_when_there_is_a_whole_one(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.plan(CORPUS)
    for limit in (1, 2, None):
        output.refine(output.pending(limit))
        output.seal()
    assert sorted(Path(one.path).name.partition(".")[2] for one in find_garbage(output.store, Retention()).garbage) == [
        "first1.parquet",
        "first2.parquet",
    ]
    gc(output)
    assert sound(output)


def test_who_lost_the_lease_switches_and_removes_nothing(output: Output) -> None:
    def lost() -> None:
        raise JobError("another run took over")

    before, current = shards(output), read_current(output.store)

    @contextmanager
    def hold() -> Iterator[Fence]:
        yield lost

    with pytest.raises(JobError, match="took over"):
        output.seal(STRICT, hold=hold)
    assert read_current(output.store) == current
    assert before.items() <= shards(output).items()
    gc(output)
    assert shards(output) == before
    assert sound(output)


def dies_before_write(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be killed before its write of that number, from 0."""
    left = number

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(*arguments)

        return write

    for method in ("put", "create", "swap"):
        monkeypatch.setattr(Store, method, dying(getattr(Store, method)))


def test_a_seal_killed_anywhere_is_cured_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at each of its writes in turn."""
    undisturbed = Output(tmp_path / "undisturbed")
    undisturbed.plan(CORPUS)
    undisturbed.refine(undisturbed.pending())
    undisturbed.seal()
    writes = 0
    while True:
        output = Output(tmp_path / f"killed-{writes}")
        output.plan(CORPUS)
        output.refine(output.pending())
        dies_before_write(writes, monkeypatch)
        try:
            output.seal()
        except KeyboardInterrupt:
            writes += 1
        else:
            break
        finally:
            monkeypatch.undo()
        output.seal()
        assert {p: data for p, (data, _) in shards(output).items()} == {
            p: data for p, (data, _) in shards(undisturbed).items()
        }
        assert sound(output)
    assert writes == 7  # two shards, parts.parquet, manifest.json, _SUCCESS, current.json (a swap that creates it)
