"""Where a run's time went: sums of what chunks carry, and one word for what bounds it."""

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.planning.increment import ChunkLimits, plan, read_chunk, read_plan
from pipeline.progress.breakdown import ADVICE, Breakdown, ChunkFinished, Clock, add
from pipeline.refining import chunk
from pipeline.refining.chunk import Inputs
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
from schemas.config import Method
from tests.conftest import DEMO

CHUNK = ChunkFinished(
    *("0000-0000000-0123456789ab", 4, 9, 0, 0, {}, {}), load_s=2.0, fetch_s=0.5, wait_s=1.0, refine_s=3.0, write_s=0.25
)


def test_chunks_add_up_and_the_first_tells_the_start_up() -> None:
    first = add(Breakdown(), CHUNK, 10.0)
    assert first.start_up_s == pytest.approx(10 - 2 - 3 - 0.25)
    both = add(first, CHUNK, 12.0)._replace(wall_s=12.0)
    assert (both.chunks, both.images, both.masks) == (2, 8, 18)
    assert (both.fetch_s, both.decode_s, both.wait_s, both.refine_s, both.write_s) == (1.0, 3.0, 2.0, 6.0, 0.5)
    assert both.start_up_s == first.start_up_s
    assert both.as_dict()["images_per_s"] == pytest.approx(8 / 12)
    assert both.actors_busy == pytest.approx(0.75)


def test_a_chunk_that_came_sooner_than_its_own_seconds_took_no_start_up() -> None:
    assert add(Breakdown(), CHUNK, 1.0).start_up_s == 0


@pytest.mark.parametrize(
    ("seconds", "bound_by"),
    [
        ({"start_up_s": 60.0, "refine_s": 30.0}, "start-up"),
        ({"refine_s": 90.0, "wait_s": 10.0, "fetch_s": 500.0}, "model"),
        ({"refine_s": 50.0, "wait_s": 50.0, "fetch_s": 9.0, "decode_s": 1.0}, "storage"),
        ({"refine_s": 50.0, "wait_s": 50.0, "fetch_s": 1.0, "decode_s": 9.0}, "loading"),
    ],
)
def test_what_bounds_a_run(seconds: dict[str, Any], bound_by: str) -> None:
    spent = Breakdown(chunks=1, images=1, wall_s=100.0, **seconds)
    assert spent.bound_by == bound_by
    assert spent.lines()[-1] == f"refine: bound by {bound_by}: {ADVICE[bound_by]}"


def test_the_clock_counts_every_chunk() -> None:
    clock = Clock()
    clock.note(CHUNK)
    clock.note(CHUNK)
    spent = clock.stop()
    assert spent.images == 8
    assert spent.wall_s > 0


def test_waiting_for_files_is_told_apart_from_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, images = Store(str(tmp_path)), Store(str(DEMO / "images"))
    listed = {file.path: file for file in images.list()}
    plan(
        output, scan("coco", SourceInput(str(DEMO / "coarse.json"), Access(), listed)), listed, ChunkLimits(2, 1 << 30)
    )
    rows, read = read_chunk(output, read_plan(output).chunks[0]), Store.read

    def slow(store: Store, path: str, size_bytes: int | None = None) -> bytes:
        time.sleep(0.2)
        return read(store, path, size_bytes)

    monkeypatch.setattr(Store, "read", slow)
    waited: list[float] = []
    chunk.load(rows, Inputs(images, None), Method(), 1024, 1, on_wait=waited.append)
    assert sum(waited) >= 0.2
    assert len(waited) > rows.num_rows, "once for each file, and once for what lies in containers"
