"""Finished parts in columns: in plan order however they are listed, the longest of each chunk, with its retries."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.planning.chunks import Chunk, Chunks
from pipeline.planning.increment import Plan
from pipeline.refining import parts as parts_module
from pipeline.refining.parts import FinishedPart, Stretch, find_parts
from pipeline.refining.pending import pending, take_on
from pipeline.storage import Access, Store
from schemas import layout
from schemas.records import CHUNKS


def planned(counts: list[int], increments: dict[int, int] | None = None) -> Plan:
    """increments: of some of the chunks, by their number; else they are of the first."""
    of = increments or {}
    rows = [
        vars(Chunk(layout.chunk_id(of.get(number, 0), number, f"{number:012x}"), "plan/0/bucket", 0, images, 2))
        for number, images in enumerate(counts)
    ]
    table = pa.Table.from_pylist(rows, CHUNKS)
    return Plan(Chunks(table.set_column(1, "file", table["file"].combine_chunks().dictionary_encode())), frozenset(), 1)


def test_parts_are_found_in_plan_order(tmp_path: Path) -> None:
    plan, run = planned([4, 4, 4, 4]), Store(str(tmp_path))
    ids = [chunk.chunk_id for chunk in plan.chunks]
    other = layout.chunk_id(0, 1, "f" * 12)
    sizes = {
        layout.part(ids[3], 1): 3,
        layout.part(ids[3], 3): 5,
        layout.part(ids[0]): 7,
        layout.part(ids[0], None, 2): 11,
        layout.part(ids[0], None, 1): 13,
        layout.part(ids[2], None, 1): 17,  # of no base
        layout.part(other): 19,
    }
    for path, size in sizes.items():
        run.put(path, b"x" * size)
    parts = find_parts(run, plan)
    assert [(part.chunk.chunk_id, part.images, part.size) for part in parts] == [(ids[0], 4, 31), (ids[3], 3, 5)]
    first, last = parts
    assert first.paths == tuple(layout.part(ids[0], None, number) for number in (0, 1, 2))
    assert [stamp.split(" ")[:2] for stamp in first.stamps] == [[path, str(sizes[path])] for path in first.paths]
    assert (last.path, last.retries, parts[1:]) == (layout.part(ids[3], 3), (), [last])
    assert parts.done.tolist() == [4, 0, 0, 3]


@pytest.mark.parametrize("stretches", [1, 2, 7, 50])
def test_a_long_listing_is_read_in_stretches(
    stretches: int, s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of three, from a real server: the parts are those of one listing, and each page is asked for once."""
    plan, run = planned([4] * 20), Store(f"s3://{bucket}/out/runs/method", Access(endpoint_url=s3_endpoint))
    for number, chunk in enumerate(plan.chunks):
        if number % 7:
            run.put(layout.part(chunk.chunk_id), b"x" * number)
            run.put(layout.part(chunk.chunk_id, None, 1), b"x")
    run.put(layout.part(layout.chunk_id(0, 99, "f" * 12)), b"of no chunk")
    run.put("parts2/x", b"")
    whole, asking, asked = list(find_parts(run, plan)), Store.asking, list[dict[str, Any]]()

    def in_threes(store: Store, folder: str) -> Any:
        ask = asking(store, folder)
        return ask and (lambda **told: asked.append(told) or ask(**told, MaxKeys=3))

    def elsewhere(function: Any, items: Any) -> Iterator[Any]:
        return (pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))(item))) for item in items)

    monkeypatch.setattr(Store, "asking", in_threes)
    monkeypatch.setattr(parts_module, "SPREAD_CHUNKS", 1)
    monkeypatch.setattr(parts_module, "SPREAD_STRETCHES", stretches)
    assert list(find_parts(run, plan, elsewhere)) == whole
    assert len(asked) <= 1 + 33 / 3 + 2 * min(stretches, 20)
    assert find_parts(Store(f"s3://{bucket}/none", run.access), plan, elsewhere).done.tolist() == [0] * 20


def test_stretches_are_in_the_order_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Increment 10,000 comes after 9,999, and its name before: every part is found once."""
    plan, run = planned([4] * 8, {number: 9_996 + number for number in range(8)}), Store(str(tmp_path))
    paths = sorted(layout.part(chunk.chunk_id, None, round_) for chunk in plan.chunks for round_ in (None, 1))
    for path in paths:
        run.put(path, b"x")

    def listed(_store: Store, _folder: str, after: str, before: str) -> Iterator[Any]:
        return (file for file in run.walk(layout.PARTS) if after < file.path and (not before or file.path < before))

    monkeypatch.setattr(parts_module, "SPREAD_CHUNKS", 1)
    monkeypatch.setattr(parts_module, "is_divisible", lambda *_: True)
    monkeypatch.setattr(parts_module, "between", listed)
    assert list(find_parts(run, plan, map)) == list(find_parts(run, plan))


def test_a_stretch_travels_as_its_parts(tmp_path: Path) -> None:
    plan, run = planned([1] * 6), Store(str(tmp_path))
    for chunk in plan.chunks:
        run.put(layout.part(chunk.chunk_id), b"x")
    stretch = Stretch(find_parts(run, plan), 2, 5)
    assert (len(stretch), stretch[0].chunk.chunk_id) == (3, plan.chunks[2].chunk_id)
    carried: list[FinishedPart] = pickle.loads(pickle.dumps(stretch))
    assert carried == list(stretch) == stretch[:]


def test_what_is_pending_is_cut_by_a_limit(tmp_path: Path) -> None:
    plan, run = planned([4, 4, 4]), Store(str(tmp_path))
    run.put(layout.part(plan.chunks[0].chunk_id), b"x")
    run.put(layout.part(plan.chunks[1].chunk_id, 2), b"x")
    assert [(task.chunk, task.images) for task in pending(plan, run, None)] == [(one, 4) for one in plan.chunks[1:]]
    assert [(task.chunk, task.images) for task in pending(plan, run, 7)] == [(plan.chunks[1], 3)]
    assert list(pending(plan, run, 6)) == []
    assert list(take_on(plan, 7).values()) == [4, 3, 0]
