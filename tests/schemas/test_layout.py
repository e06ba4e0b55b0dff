"""Where everything is: every path of a real output is one that the layout knows, and tells the same back."""

from pathlib import Path

import pytest

from schemas import layout
from tests.compat.stored import unpack

CHUNK = "0003-0000012-0123456789ab"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (layout.part(CHUNK), layout.PartName(CHUNK, None, None)),
        (layout.part(CHUNK, cut=7), layout.PartName(CHUNK, 7, None)),
        (layout.part(CHUNK, round_=2), layout.PartName(CHUNK, None, 2)),
        (layout.part(CHUNK, cut=7, round_=2), layout.PartName(CHUNK, None, 2)),
        (f"parts/{CHUNK}.parquet.tmp", None),
        (f"parts/{CHUNK[:-1]}.parquet", None),
        ("parts/notes.txt", None),
    ],
)
def test_the_name_of_a_part_tells_what_it_holds(path: str, name: layout.PartName | None) -> None:
    assert layout.part_name(path) == name


def test_a_chunk_is_named_after_its_place_and_its_rows() -> None:
    assert layout.chunk_id(3, 12, "0123456789ab") == CHUNK
    assert layout.increment_of(CHUNK) == "0003"
    assert layout.part_name(layout.part(layout.chunk_id(12345, 12_345_678, "0123456789ab"))) is not None


@pytest.mark.parametrize(
    ("folder", "path", "number"),
    [
        (layout.LEASES, layout.lease(11), 11),
        (layout.RETRIES, layout.retry_round(2), 2),
        (layout.PLAN, layout.Increment(4).marker, 4),
        (layout.SEALS, layout.Seal(5).manifest, 5),
        (layout.PLAN, layout.Seal(5).manifest, None),
        (layout.LEASES, "leases/.tmp-probe-1", None),
        (layout.LEASES, "leases/x.json", None),
        (layout.PLAN, "plan/notes.txt", None),
        (layout.PLAN, "plan/-1/chunks.parquet", None),
    ],
)
def test_numbers_come_back_and_strangers_have_none(folder: str, path: str, number: int | None) -> None:
    assert layout.numbered(folder, path) == number


def test_only_markers_commit() -> None:
    increment, seal = layout.Increment(4), layout.Seal(5)
    assert layout.committed_number(increment.marker) == 4
    assert layout.committed_number(increment.chunks) is None
    assert layout.sealed_number(seal.success) == 5
    assert layout.sealed_number(seal.manifest) is None


def test_attempts_lie_beside_what_names_them() -> None:
    increment, seal = layout.Increment(4, "a" * 32), layout.Seal(5, "b" * 32)
    assert layout.attempt_of(layout.PLAN, increment.marker) == (4, "a" * 32)
    assert layout.attempt_of(layout.SEALS, seal.parts) == (5, "b" * 32)
    assert layout.attempt_of(layout.PLAN, increment.choice) is None
    assert layout.committed_number(increment.choice) == 4
    assert layout.committed_number(increment.marker) is None
    assert layout.numbered(layout.PLAN, increment.chunks) == 4
    assert increment.said(increment.chunks) == layout.Increment(4).chunks


def test_names_that_were_given_up_are_not_used_again() -> None:
    first = layout.shard("masks", "c" * 64)
    second = layout.shard("masks", "c" * 64, {first}.__contains__)
    assert second == f"masks/{'c' * 32}-1.parquet"
    assert layout.is_shard(first)
    assert layout.is_shard(second)
    assert layout.method_folder("feedc0ffee00", set()) == "feedc0ffee00"
    assert layout.method_folder("feedc0ffee00", {"runs/feedc0ffee00", "runs/feedc0ffee00-1"}) == "feedc0ffee00-2"
    assert layout.used(layout.use("feedc0ffee00-1", "d" * 32)) == "feedc0ffee00-1"
    assert layout.used(layout.lease(3)) is None


def test_a_bucket_tells_its_range() -> None:
    files = layout.Increment(0)
    assert layout.bucket_range(files.bucket(0, 1023)) == layout.HashRange(0, 1023, 1024)
    assert files.bucket(0, 1023).endswith("/bucket-0000-1023.parquet")  # as earlier versions have it
    finer = layout.HashRange(65_534, 65_535, 65_536)
    assert layout.bucket_range(files.bucket(*finer)) == finer
    assert finer.span == range((1 << 32) - (1 << 17), 1 << 32)
    assert layout.bucket_range(layout.Increment(0).chunks) is None


def test_a_path_of_a_run_is_told_from_others() -> None:
    assert layout.split_run(layout.in_run("feedc0ffee00", "masks/1.parquet")) == ("feedc0ffee00", "masks/1.parquet")
    assert layout.split_run(layout.run("feedc0ffee00")) is None
    assert layout.split_run(layout.Increment(0).marker) is None


def is_known(path: str) -> bool:
    """Whether some function of the layout makes this very path, from what the layout reads out of it."""
    of_run = layout.split_run(path)
    if of_run is None:
        increment = layout.numbered(layout.PLAN, path)
        lease = layout.numbered(layout.LEASES, path)
        made = [layout.CURRENT] if lease is None else [layout.lease(lease)]
        if increment is not None:
            files = layout.Increment(increment, (layout.attempt_of(layout.PLAN, path) or (0, ""))[1])
            bucket = layout.bucket_range(path)
            made += [files.choice, files.marker, files.chunks, files.superseded]
            made += [files.bucket(*bucket)] if bucket else []
        return path in made
    fingerprint, within = of_run
    part, seal = layout.part_name(within), layout.numbered(layout.SEALS, within)
    round_, kind = layout.numbered(layout.RETRIES, within), within.partition("/")[0]
    made = [layout.CONFIG]
    made += [layout.part(*part)] if part else []
    made += [layout.retry_round(round_)] if round_ is not None else []
    made += [layout.shard(kind, Path(within).stem)] if kind in layout.SHARDS else []
    if seal is not None:
        sealed = layout.Seal(seal, (layout.attempt_of(layout.SEALS, within) or (0, ""))[1])
        made += [sealed.manifest, sealed.parts, sealed.success]
    return path in [layout.in_run(fingerprint, one) for one in made]


@pytest.mark.parametrize("name", ["changed", "limited", "retried", "two-generations"])
def test_every_file_of_a_stored_result_is_known(name: str, tmp_path: Path) -> None:
    output = unpack(name, tmp_path).output
    files = [path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path for path in files if not is_known(path)] == []
