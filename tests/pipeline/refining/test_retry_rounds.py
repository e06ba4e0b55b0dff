"""Retry rounds on real parts: what is retried, what replaces what, and what an interruption leaves."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import open_result
from pipeline.errors import JobError
from pipeline.output.status import read_status
from pipeline.planning.increment import read_plan
from pipeline.refining import carried
from pipeline.refining.parts import find_parts
from pipeline.refining.retry_rounds import failed_images, read_rounds
from pipeline.storage import Access
from pipeline.verify.check import verify
from schemas.config import Method
from tests.pipeline.outputs import Output

CORPUS = dict.fromkeys(range(8), (2, ""))  # chunks of 3, 3 and 2
BROKEN = {"0001.jpg": 2, "0004.jpg": 1, "0007.jpg": 9}  # image -> attempts that fail


def fails(name: str, attempt: int) -> str | None:
    return "storage" if attempt < BROKEN.get(name, 0) else None


@pytest.fixture
def output(tmp_path: Path) -> Output:
    made = Output(tmp_path / "out")
    made.plan(CORPUS)
    made.refine(made.pending(), fails)
    made.seal()
    return made


def rows(output: Output) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in open_result(str(output.folder)).images().to_pylist()}


def failed(output: Output) -> set[str]:
    return {name for name, row in rows(output).items() if row["status"] == "failed"}


def retry(output: Output) -> list[str]:
    tasks = output.retry_tasks()
    output.refine(tasks, fails)
    output.seal()
    return [name for task in tasks for name in task.image_ids]


def test_each_round_holds_what_failed_and_nothing_else(output: Output) -> None:
    assert failed(output) == set(BROKEN)
    assert retry(output) == ["0001.jpg", "0004.jpg", "0007.jpg"]
    assert failed(output) == {"0001.jpg", "0007.jpg"}
    assert retry(output) == ["0001.jpg", "0007.jpg"]
    assert failed(output) == {"0007.jpg"}
    attempts = {name: row["attempt"] for name, row in rows(output).items()}
    assert attempts == {f"000{n}.jpg": 0 for n in range(8)} | {"0001.jpg": 2, "0004.jpg": 1, "0007.jpg": 2}
    assert len(open_result(str(output.folder)).masks()) == 16
    assert verify(str(output.folder), Access()).findings == []
    parts = {file.path for file in output.run.list("parts")}
    assert sum(".r1." in path for path in parts) == 3
    assert sum(".r2." in path for path in parts) == 2


def test_nothing_failed_is_no_round(output: Output) -> None:
    output.refine(output.retry_tasks())
    output.seal()
    assert failed(output) == set()
    assert output.retry_round() is None
    assert len(read_rounds(output.run)) == 1


def test_a_started_round_is_finished_before_another_one(output: Output) -> None:
    first, *left = output.retry_tasks()
    output.refine([first], fails)
    assert output.retry_tasks() == left
    output.seal()  # someone seals in between: the round is still unfinished
    assert output.retry_tasks() == left
    output.refine(left, fails)
    assert output.retry_tasks() == []  # finished and not sealed: no round 2 yet
    output.seal()
    assert [task.round for task in output.retry_tasks()] == [2, 2]


def test_an_interrupted_round_ends_in_the_same_shards(output: Output, tmp_path: Path) -> None:
    other = Output(tmp_path / "undisturbed")
    other.plan(CORPUS)
    other.refine(other.pending(), fails)
    other.seal()
    retry(other)
    output.refine(output.retry_tasks()[1:2], fails)
    retry(output)
    hashes = [
        [shard.sha256 for kind in ("masks", "images") for shard in open_result(str(one.folder)).manifest.shards(kind)]
        for one in (output, other)
    ]
    assert hashes[0] == hashes[1]


def test_a_retry_that_fares_worse_takes_nothing_away(tmp_path: Path) -> None:
    """One mask failed; in the retry the whole image does."""
    output = Output(tmp_path / "out")
    output.plan(CORPUS)
    broken = read_plan_masks(output)[0]
    output.refine(output.pending(), lambda name, _attempt: "mask_missing" if name == broken else None)
    output.refine(output.retry_tasks(), lambda name, _attempt: "storage" if name == "0000.jpg" else None)
    output.seal()
    assert failed(output) == set()
    decisions = open_result(str(output.folder)).masks()["decision"].to_pylist()
    assert decisions.count("failed") == 1


def read_plan_masks(output: Output) -> list[str]:
    [task, *_] = output.pending()
    return [mask["mask_id"] for row in task.rows(output.store).to_pylist() for mask in row["masks"]]


def test_reasons_restrict_what_is_retried(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.plan(CORPUS)
    why = {"0001.jpg": "storage", "0004.jpg": "image_unreadable"}
    output.refine(output.pending(), lambda name, _attempt: why.get(name))
    planned = read_plan(output.store)
    found = failed_images(output.run, planned, find_parts(output.run, planned), ["storage"])
    assert list(found.values()) == [["0001.jpg"]]
    assert [task.image_ids for task in output.retry_tasks(("storage",))] == [("0001.jpg",)]
    assert read_rounds(output.run)[0].reasons == ["storage"]


def test_superseded_images_are_not_retried(output: Output) -> None:
    output.plan({**CORPUS, 1: (1, "changed"), 4: (1, "changed")})
    output.refine(output.pending())
    assert [task.image_ids for task in output.retry_tasks()] == [("0007.jpg",)]


def test_status_counts_the_best_attempt_before_and_after_the_seal(output: Output) -> None:
    def failed_now() -> tuple[int, int]:
        [status] = read_status(str(output.folder), Access())
        return status.failed

    assert failed_now() == (3, 6)
    output.refine(output.retry_tasks(), fails)
    assert failed_now() == (2, 4)
    output.seal()
    assert failed_now() == (2, 4)


def test_a_retry_of_a_strange_image_is_refused(output: Output) -> None:
    tasks = output.retry_tasks()
    output.refine(tasks, fails)
    output.run.put(tasks[0].part, output.run.read(tasks[1].part))
    with pytest.raises(JobError, match="delete it and run again"):
        output.seal()


def test_a_retry_task_survives_its_way_through_the_stages(output: Output) -> None:
    for task in [*output.retry_tasks(), *Output(output.folder, method=Method(iterations=2)).pending()]:
        planned = task.rows(output.store)
        there = carried.from_row(carried.to_row(carried.Carried(task, planned, {"load_s": 0.0})))
        assert there.task == task
        assert there.images.to_pylist() == planned.to_pylist()
        assert there.images.num_rows == task.images
