"""Operating an output with the command line: retry what failed, verify, killed half-way or not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.dataset import open_result
from pipeline.storage import Access, Store
from pipeline.verify.check import verify
from tests.conftest import ROOT, Cli
from tests.jobs.test_recovery import Corpus, interrupted, shard_hashes, tripled_demo

BROKEN = 6
pytestmark = pytest.mark.slow  # a dozen runs of the whole command


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tripled_demo(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def broken(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, relabel: Cli) -> Path:
    """A result for which some photographs could not be read; they are whole again."""
    output = tmp_path_factory.mktemp("broken") / "out"
    photos = sorted(corpus.images.iterdir())[:BROKEN]
    whole = {photo: photo.read_bytes() for photo in photos}
    for photo, data in whole.items():
        rewritten(photo, bytes(len(data)))
    done = relabel(*corpus.arguments(output, "--actors", "2"))
    assert done.returncode == 3, done.stderr
    for photo, data in whole.items():
        rewritten(photo, data)
    return output


def rewritten(photo: Path, data: bytes) -> None:
    """Of the same size and time: planning does not take it for another image."""
    written = photo.stat()
    photo.write_bytes(data)
    os.utime(photo, ns=(written.st_atime_ns, written.st_mtime_ns))


def test_a_retry_killed_half_way_goes_on_and_ends_in_the_same_bytes(
    corpus: Corpus, broken: Path, tmp_path: Path, relabel: Cli
) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for copy in (undisturbed, disturbed):
        shutil.copytree(broken, copy)
    done = relabel(*corpus.arguments(undisturbed, "--actors", "1", "--retry-failed"))
    assert done.returncode == 0, done.stderr
    assert f"retry: round 1, {BROKEN} images left" in done.stderr
    images = open_result(str(undisturbed)).images().to_pylist()
    assert sum(row["attempt"] == 1 for row in images) == BROKEN
    assert all(row["status"] == "ok" for row in images)

    arguments = corpus.arguments(disturbed, "--actors", "1", "--retry-failed")
    assert interrupted(arguments, disturbed, 15 + 2, signal.SIGKILL) == -signal.SIGKILL
    started = list(disturbed.glob("runs/*/retries/*.json"))
    assert relabel(*arguments).returncode == 0
    assert list(disturbed.glob("runs/*/retries/*.json")) == started  # no second round
    assert shard_hashes(disturbed) == shard_hashes(undisturbed)

    sound = relabel("verify", disturbed, "--json")
    assert sound.returncode == 0, sound.stdout
    report = json.loads(sound.stdout)
    assert (report["sound"], report["done"], report["failed"]) == (
        True,
        {"images": 15, "masks": 30},
        {"images": 0, "masks": 0},
    )
    again = relabel(*arguments)
    assert again.returncode == 0
    assert "retry: no failed row" in again.stderr


def test_verify_says_what_is_wrong_in_a_line_and_exits_with_1(broken: Path, tmp_path: Path, relabel: Cli) -> None:
    output = tmp_path / "out"
    shutil.copytree(broken, output)
    shard = next(output.glob("runs/*/masks/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    done = relabel("verify", output)
    assert done.returncode == 1
    name = shard.relative_to(output)
    assert any(line.startswith(f"truncated: {name}: ") for line in done.stdout.splitlines())
    assert "Traceback" not in done.stderr
    nothing = relabel("verify", tmp_path)
    assert nothing.returncode == 2
    assert "nothing to verify" in nothing.stderr


def test_reasons_to_retry_are_checked(corpus: Corpus, broken: Path, relabel: Cli) -> None:
    done = relabel(*corpus.arguments(broken, "--retry-failed", "--retry-reasons", "bad_luck"))
    assert done.returncode == 2
    assert "unknown reason 'bad_luck'" in done.stderr


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_two_runs_at_once_on_one_output_both_end_right(
    place: str, corpus: Corpus, broken: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Everything is refined and nothing sealed: both have only to plan and to seal, at the same time."""
    output, more = str(tmp_path / "out"), []
    shutil.copytree(broken, output)
    shutil.rmtree(next((tmp_path / "out").glob("runs/*/seals")))
    (tmp_path / "out" / "current.json").unlink()
    access = Access()
    if place == "s3":
        endpoint, bucket = request.getfixturevalue("s3_endpoint"), request.getfixturevalue("bucket")
        access, more = Access(endpoint), ["--endpoint-url", endpoint]
        local, output = Store(output), f"s3://{bucket}/out"
        for file in local.list():
            Store(output, access).put(file.path, local.read(file.path))
    command = [sys.executable, "-m", "jobs.cli", *map(str, corpus.arguments(output, *more))]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=500)[1] for run in both]
    assert [run.returncode for run in both] == [3, 3], said  # some rows failed
    assert "Traceback" not in "".join(said)
    report = verify(output, access)
    assert report.findings == []
    assert (report.generation, report.planned["images"]) == (0, 15)
    [lease] = Store(output, access).list("leases")
    assert int(Path(lease.path).stem) >= 5  # taken for the broken result at least twice; then for two plans, two seals


def test_gc_lists_and_removes(broken: Path, tmp_path: Path, relabel: Cli) -> None:
    output = tmp_path / "out"
    shutil.copytree(broken, output)
    orphan = next(output.glob("runs/*/masks")) / f"{'0' * 32}.parquet"
    orphan.write_bytes(b"of a killed seal")
    listed = relabel("gc", output, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert f"{orphan.relative_to(output)}: no kept generation lists it" in listed.stdout
    assert orphan.exists()
    assert relabel("verify", output).returncode == 1
    assert "removed 1 file," in relabel("gc", output).stdout
    assert not orphan.exists()
    assert relabel("verify", output).returncode == 0
    assert relabel("gc", tmp_path / "nothing").returncode == 2
