"""A share of a result, checked by itself: all shares together find what the whole check finds in shards."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline.errors import RefusedError
from pipeline.storage import Access
from pipeline.verify.check import verify
from pipeline.verify.files import Report
from pipeline.verify.sample import Share, verify_share
from tests.conftest import Cli
from tests.pipeline.outputs import Output

CORPUS = {number: (number % 3, "") for number in range(1, 41)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Three increments, with replaced and pruned images, and a pair of shards for each few chunks."""
    made = Output(tmp_path_factory.mktemp("sound") / "out")
    made.plan(CORPUS)
    made.refine(made.pending(limit=35))
    made.plan({**CORPUS, 1: (2, "changed"), 50: (1, "")})
    made.refine(made.pending(limit=38))
    grown = {**CORPUS, 1: (2, "changed"), 51: (1, "")}
    made.plan({number: masks for number, masks in grown.items() if number != 7}, prune=True)
    made.refine(made.pending(limit=39))
    made.seal(shard_bytes=6000)
    return made


@pytest.fixture
def output(sound: Output, tmp_path: Path) -> Output:
    """A copy to damage."""
    shutil.copytree(sound.folder, tmp_path / "out")
    return Output(tmp_path / "out")


def check(output: Output, *share: float) -> Report:
    return verify_share(str(output.folder), Access(), Share(*share))  # type: ignore[arg-type]


def shards(output: Output, kind: str) -> list[Path]:
    return [output.folder / path for path in pipeline.open(str(output.folder)).files(kind)]


def test_all_parts_together_are_the_whole(sound: Output) -> None:
    whole = verify(str(sound.folder), Access())
    parts = [check(sound, 1.0, number, 3) for number in (1, 2, 3)]
    assert [report.findings for report in parts] == [[], [], []]
    for state in ("done", "failed"):
        counted = [getattr(report, state) for report in parts]
        assert {kind: sum(numbers[kind] for numbers in counted) for kind in ("images", "masks")} == getattr(
            whole, state
        )
    assert whole.findings == []
    assert check(sound).done == whole.done


def test_a_sample_says_what_it_tells(sound: Output) -> None:
    pairs = len(shards(sound, "masks"))
    assert pairs >= 6
    report = check(sound, 0.5)
    [note] = report.notes
    assert f"checked {(pairs + 1) // 2} of {pairs} pairs of shards" in note
    assert f"had more than {1 - 0.05 ** (1 / ((pairs + 1) // 2)):.2%} of all pairs been" in note
    assert "none is unsound. Totals" in check(sound).notes[0]
    assert check(sound, 0.5, 1, 1, 0).done == report.done
    assert 0 < report.done["images"] < 40


@pytest.mark.parametrize("kind", ["masks", "images"])
def test_what_is_wrong_is_found_by_the_part_that_has_it(kind: str, output: Output) -> None:
    shard = shards(output, kind)[2]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    found = [len(check(output, 1.0, number, 4).findings) for number in (1, 2, 3, 4)]
    assert sorted(found) == [0, 0, 0, 1]
    [finding] = check(output).findings
    assert (finding.kind, output.folder / finding.path) == ("altered", shard)


def test_rows_that_are_not_the_plans_are_found(output: Output) -> None:
    bucket = next(output.folder.glob("plan/0/*/bucket-*"))
    table = pq.read_table(bucket)
    pq.write_table(table.slice(0, table.num_rows - 1), bucket)
    assert {finding.kind for finding in check(output).findings} >= {"altered"}
    shutil.rmtree(output.folder / "runs")
    assert {finding.kind for finding in check(output).findings} == {"missing"}


def test_the_command(sound: Output, tmp_path: Path, relabel: Cli) -> None:
    done = relabel("verify", sound.folder, "--sample", "0.3", "--part", "1/1")
    assert (done.returncode, "none is unsound" in done.stdout) == (0, True), done.stderr
    refused = relabel("verify", sound.folder, "--part", "3/2")
    assert (refused.returncode, "K/N" in refused.stderr) == (2, True)
    with pytest.raises(RefusedError, match="nothing to verify"):
        check(Output(tmp_path / "none"))
