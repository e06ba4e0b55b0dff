"""Hours and cost from a sample: the sample is spread, the arithmetic is right, the interval is that of the spread."""

from pathlib import Path

import pytest

from pipeline.errors import RefusedError
from pipeline.models import Model
from pipeline.models.weights import Weights
from pipeline.planning.increment import Chunk, ChunkLimits, plan, read_plan
from pipeline.refining.chunk import Inputs, Job, Task
from pipeline.sources import SourceInput, scan
from pipeline.speed.estimate import GROUPS, Group, Machine, measure, project, spread
from pipeline.storage import Access, Store
from schemas.config import Method
from tests.conftest import DEMO
from tests.fakes import FakeModel


def tasks(chunks: int, images: int) -> list[Task]:
    return [Task(Chunk(f"{number}", "", 0, images, 2 * images), images) for number in range(chunks)]


def fake(_name: str, _weights: Weights, _device: str, _threads: int) -> Model:
    return FakeModel()


@pytest.mark.parametrize(
    ("chunks", "images", "wanted", "sampled"),
    [(1000, 64, 32, 32), (1000, 64, 3, 3), (2, 3, 32, 6), (5, 64, 16, 20), (1, 1, 1, 1)],
)
def test_the_sample_is_spread_over_the_plan(chunks: int, images: int, wanted: int, sampled: int) -> None:
    all_tasks = tasks(chunks, images)
    chosen = spread(all_tasks, wanted)
    assert sum(task.images for task in chosen) == sampled
    places = [int(task.chunk.chunk_id) for task in chosen]
    assert len(set(places)) == len(places) <= GROUPS
    gaps = [after - before for before, after in zip([-1, *places], [*places, chunks], strict=True)]
    assert max(gaps) <= chunks / len(places) + 1, "no stretch of the plan is left out"


def test_a_steady_corpus_has_a_narrow_interval() -> None:
    groups = [Group(4, 8, 0.1, 0.4, 1.6)] * 5
    found = project(groups, 7200, 14400, Machine(cores=2, gpus=0), 3, 0.5)
    # (0.4 + 1.6) / 2 cores / 4 images = 0.25 s an image
    assert found["hours"] == pytest.approx(7200 * 0.25 / 3600 / 3)
    assert found["hours_low"] == pytest.approx(found["hours"]) == pytest.approx(found["hours_high"])
    assert found["device_hours"] == pytest.approx(0.5)
    assert found["cost"] == pytest.approx(0.25)
    assert found["images_per_s"] == pytest.approx(12)
    assert found["sample"]["refine_s_per_image"] == pytest.approx(0.4)
    assert found["device"] == "machine"


def test_a_corpus_that_varies_has_a_wide_one_and_a_single_chunk_says_nothing() -> None:
    uneven = [Group(4, 8, 0, 0, 1.0), Group(4, 8, 0, 0, 3.0)]
    found = project(uneven, 3600, 7200, Machine(1, 0), 1, 1.0)
    assert found["hours"] == pytest.approx(0.5)
    assert found["hours_low"] == pytest.approx(0)
    assert found["hours_high"] == pytest.approx(1.0)
    alone = project(uneven[:1], 3600, 7200, Machine(1, 0), 1, 1.0)
    assert alone["hours_low"] == pytest.approx(0)


def test_a_gpu_waits_where_the_cores_beside_it_decode_too_slowly() -> None:
    groups = [Group(10, 20, 0.0, 4.0, 1.0)] * 2
    enough = project(groups, 36_000, 72_000, Machine(cores=8, gpus=1), 1, 2.0)
    assert enough["hours"] == pytest.approx(1.0)
    short = project(groups, 36_000, 72_000, Machine(cores=8, gpus=8), 1, 2.0)
    assert short["hours"] == pytest.approx(4.0)
    assert short["cores_per_gpu"] == pytest.approx(4.0)
    assert short["device"] == "gpu"


def test_nothing_pending_is_refused() -> None:
    with pytest.raises(RefusedError, match="no image is pending"):
        project([], 0, 0, Machine(2, 0), 1, 0.0)


def test_the_sample_is_loaded_and_refined(tmp_path: Path) -> None:
    output, images = Store(str(tmp_path / "out")), Store(str(DEMO / "images"))
    listed = {file.path: file for file in images.list()}
    source = scan("coco", SourceInput(str(DEMO / "coarse.json"), Access(), listed))
    plan(output, source, listed, ChunkLimits(2, 1 << 30))
    pending = [Task(chunk, chunk.images) for chunk in read_plan(output).chunks]
    method, weights = Method(), Weights("", "", Access())
    job = Job(output, output, Inputs(images, None), method, weights, 1024, 1, 2, "cpu", None, loader=fake)
    seen: list[int] = []
    groups = measure(spread(pending, 3), job, seen.append)
    assert [group.images for group in groups] == seen == [1, 1, 1]
    assert all(group.masks > 0 and min(group.decode_s, group.refine_s) > 0 for group in groups)
    assert not output.list("parts"), "a sample is thrown away"
