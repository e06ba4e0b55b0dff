"""A source read file by file: what comes of it does not depend on how many files are read together, or where."""

import json
import pickle
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.errors import RefusedError
from pipeline.planning import spill
from pipeline.planning.coverage import content
from pipeline.planning.flow import Flow, one_by_one
from pipeline.planning.scanning import Pieces, pieces, read_pieces, read_whole
from pipeline.planning.shuffle import Shuffle
from pipeline.sources import SourceInput
from pipeline.sources.containers import Piece
from pipeline.sources.coverage import MAX_CATEGORIES, Coverage
from pipeline.storage import Access, Store
from schemas import layout
from tests.pipeline.planning.pieced import make_source, plan_source


def elsewhere(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
    """As in another process: function, items and results are pickled."""
    sent = cloudpickle.dumps(function)
    for item in items:
        yield from map(_sent, cloudpickle.loads(sent)(_sent(item)))


def _sent(what: Any) -> Any:
    return pickle.loads(pickle.dumps(what))


def test_a_plan_from_pieces_is_that_of_the_whole(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in")
    wanted = plan_source(source, tmp_path / "whole")
    increments = {name.split("/")[1] for name in wanted if name.startswith(layout.PLAN)}
    assert increments == {"0", "1", "2", "3"}
    assert plan_source(source, tmp_path / "pieces", elsewhere) == wanted
    assert plan_source(source, tmp_path / "pieces", elsewhere) == wanted, "and again, there is nothing new"
    [scan] = [json.loads(data) for name, data in wanted.items() if name.endswith(".json") and "scans" in name]
    assert scan["unread"] == 2
    assert len(scan["categories"]) == 18


def ahead(count: int) -> Flow:
    """As by tasks: so many items are taken before the first of them is done."""

    def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        pending: deque[Any] = deque()
        for item in items:
            pending.append(item)
            if len(pending) >= count:
                yield from elsewhere(function, [pending.popleft()])
        yield from elsewhere(function, pending)

    return flow


@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_plan_does_not_depend_on_how_much_is_at_work(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(tmp_path / "in")
    wanted = plan_source(source, tmp_path / "whole")
    monkeypatch.setattr(spill, "FILES_AT_ONCE", count)
    assert plan_source(source, tmp_path / "ahead", ahead(count)) == wanted


def test_an_increment_from_pieces_is_that_of_the_whole(tmp_path: Path) -> None:
    outputs = {"whole": None, "pieces": elsewhere}
    for files in (range(6), range(8)):
        source = make_source(tmp_path / "in", files)
        first, second = (plan_source(source, tmp_path / name, flow) for name, flow in outputs.items())
        assert first == second


def test_tars_are_read_one_by_one(tmp_path: Path) -> None:
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for name, data in ((f"{number}.jpg", b"x"), (f"{number}.json", b'{"annotations": []}'), ("odd.txt", b"")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    (tmp_path / "3.tar").write_bytes(b"no tar" * 500)
    given = [SourceInput(str(tmp_path), Access(), {}) for _ in range(2)]
    whole = list(sources.scan("webdataset", given[0]))
    found = sources.pieces("webdataset", given[1]) or []
    assert [image for piece in found for image in sources.scan_piece("webdataset", given[1], piece)] == whole
    assert content(given[0].coverage, "") == content(given[1].coverage, "")
    assert len(found) == 4
    assert len(whole) == 3


def test_a_fault_of_the_whole_is_one_of_the_pieces(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": ["0.jpg"]}), tmp_path / "0.parquet")
    given = SourceInput(str(tmp_path), Access(), {})
    found = pieces("parquet", given)
    assert found is not None
    for rows in (
        read_whole("parquet", given, max_unread=0, prune=False),
        read_pieces(found, given, Shuffle(Store(str(tmp_path / "out")), elsewhere), max_unread=0, prune=False),
    ):
        with pytest.raises(RefusedError, match="has no column of masks"):
            list(rows)
    whole = SourceInput("x.json", Access(), {})
    assert pieces("coco", whole) is None
    with pytest.raises(RefusedError, match="read as a whole"):
        sources.scan_piece("coco", whole, Piece("x.json", 1, None))


def test_a_coverage_travels_with_all_that_it_holds() -> None:
    whole, merged = Coverage(["*.txt"]), Coverage(["*.txt"])
    for start in (0, MAX_CATEGORIES - 3, 0):
        part = merged.fresh()
        for one in (whole, part):
            for number in range(start, start + 6):
                one.category(number, "thing")
                one.take(f"{number}.png")
                one.leave(f"{number}.txt", "no mask")
                one.leave(f"{number}.x\ud800", "no mask")
        if not start:
            for number in range(MAX_CATEGORIES - 4):
                whole.category(number, "thing")
                part.category(number, "thing")
        merged.merge(_sent(part))
    assert content(merged, "") == content(whole, "")
    assert list(merged.left()) == list(whole.left())
    assert (-1, "(others)") in whole.categories


def test_only_large_sources_of_several_files_are_read_elsewhere() -> None:
    piece = Piece("a", 1 << 30, None)
    assert Pieces(iter, [[piece], [piece]]).are_many
    assert not Pieces(iter, [[piece, piece]]).are_many
    assert not Pieces(iter, [[piece._replace(size=1)], [piece._replace(size=1)]]).are_many
    assert list(one_by_one(range, [2, 3])) == [0, 1, 0, 1, 2]
