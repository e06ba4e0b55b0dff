"""Whole runs whose storage, disk, head or nodes fail half-way: what is said, how it ends, and that it goes on."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.dataset import open_result
from pipeline.storage import Access, Store
from tests.chaos.runs import Corpus, cluster, make_corpus, parts, start, upload
from tests.conftest import ray_head, small_disk
from tests.fault_proxy import FaultProxy
from tests.killers import picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "corpus", count=12, chunk_images=2)


def ended(run: subprocess.Popen[bytes], timeout_s: float = 600) -> tuple[int, str]:
    said = run.communicate(timeout=timeout_s)[1].decode()
    assert "Traceback" not in said
    return run.returncode, said


def until_parts(output: str, count: int, run: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while parts(output, Access()) < count:
        assert run.poll() is None, ended(run)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_bucket_that_denies_writing_half_way(corpus: Corpus, s3_endpoint: str, bucket: str) -> None:
    with FaultProxy(s3_endpoint).running() as proxy:
        remote = upload(corpus, Store(f"s3://{bucket}/in", Access(s3_endpoint)))
        output = f"s3://{bucket}/out"
        command = remote.command(output, "--actors", "1", "--endpoint-url", proxy.url)
        proxy.endless, proxy.after = ("PUT .*/parts/", "403"), 3
        code, said = ended(start(command))
        assert code == 1
        assert "cannot write s3://" in said
        assert parts(output, Access(s3_endpoint)) == 3
        proxy.endless = None
        assert ended(start(command))[0] == 0
    assert open_result(output, Access(s3_endpoint)).images().num_rows == 12


def test_credentials_revoked_half_way_fail_no_image(corpus: Corpus, s3_endpoint: str, bucket: str) -> None:
    with FaultProxy(s3_endpoint).running() as proxy:
        remote = upload(corpus, Store(f"s3://{bucket}/in", Access(s3_endpoint)))
        output = f"s3://{bucket}/out"
        command = remote.command(output, "--actors", "1", "--endpoint-url", proxy.url)
        proxy.endless, proxy.after = ("GET .*/images/", "403"), 4
        code, said = ended(start(command))
        assert code == 1, said
        proxy.endless = None
        assert ended(start(command))[0] == 0
    assert set(open_result(output, Access(s3_endpoint)).images()["status"].to_pylist()) == {"ok"}


def test_a_full_disk(corpus: Corpus, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        ballast = disk / "ballast"
        ballast.touch()
        command = corpus.command(str(disk / "out"), "--actors", "1")
        run = start(command, KILLER_PAUSE_S="0.3")
        until_parts(str(disk / "out"), 1, run)
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        code, said = ended(run)
        assert code == 1
        assert "No space left on device" in said
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        assert ended(start(command))[0] == 0


def test_sigterm_while_planning_leaves_no_lease_and_no_temporary_files(
    corpus: Corpus, s3_endpoint: str, bucket: str, tmp_path: Path
) -> None:
    """A store that no longer answers is not waited for."""
    (tmp_path / "tmp").mkdir()
    with FaultProxy(s3_endpoint).running() as proxy:
        remote = upload(corpus, Store(f"s3://{bucket}/in", Access(s3_endpoint)))
        command = remote.command(f"s3://{bucket}/out", "--actors", "1", "--endpoint-url", proxy.url)
        for stalled in ("GET .*/coarse.json", "PUT .*/plan/"):  # reading a source, then writing under the lease
            proxy.endless, proxy.after = (stalled, "stalled"), 0
            run = start(command, TMPDIR=str(tmp_path / "tmp"))
            while not proxy.faults["stalled"]:
                assert run.poll() is None, ended(run)
                time.sleep(0.1)
            run.terminate()
            code, said = ended(run, timeout_s=30)
            assert (code, "terminated" in said) == (143, True), said
            assert list((tmp_path / "tmp").iterdir()) == []
            proxy.faults.clear()
        proxy.endless = None
        [lease] = Store(f"s3://{bucket}/out", Access(s3_endpoint)).list("leases")
        assert json.loads(Store(f"s3://{bucket}/out", Access(s3_endpoint)).read(lease.path))["released"]
        assert ended(start(command))[0] == 0


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_a_signal_to_all_its_processes_ends_the_run_in_one_line(
    number: signal.Signals, word: str, code: int, corpus: Corpus, tmp_path: Path
) -> None:
    """As a terminal sends Ctrl-C, and a service manager SIGTERM."""
    output = str(tmp_path / "out")
    run = start(corpus.command(output, "--actors", "1"), KILLER_PAUSE_S="0.5")
    until_parts(output, 1, run)
    os.killpg(run.pid, number)
    ended_with, said = ended(run, timeout_s=30)
    assert ended_with == code
    assert said.splitlines()[-1] == f"relabel: {word}; finished chunks are kept. Rerun the same command to resume"
    assert parts(output, Access()) < corpus.chunks


def test_sigterm_to_the_head_ends_the_run_soon(corpus: Corpus, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    with ray_head(RAY_AUTH_MODE="disabled", RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0") as head:
        run = start(corpus.command(output, "--actors", "1", "--address", head.address), KILLER_PAUSE_S="0.5")
        until_parts(output, 1, run)
        head.process.send_signal(signal.SIGTERM)
        code, said = ended(run, timeout_s=30)
        assert code == 1
        assert said.splitlines()[-1].startswith("relabel: the Ray head at ")
        assert parts(output, Access()) < corpus.chunks
    assert ended(start(corpus.command(output, "--actors", "1")))[0] == 0


def test_a_node_killed_beside_a_killer_blames_only_the_killer(corpus: Corpus, tmp_path: Path) -> None:
    picture(99, "segfault").save(Path(corpus.images) / "0000005.png")
    output = str(tmp_path / "out")
    with cluster(3) as nodes:
        command = corpus.command(output, "--actors", "2", "--address", nodes.address)
        run = start(command, KILLER_PAUSE_S="0.5")
        until_parts(output, 2, run)
        nodes.remove_node(sorted(nodes.worker_nodes, key=lambda node: str(node.unique_id))[0], allow_graceful=False)
        code, said = ended(run, 1200)
    assert code == 3, said
    images = open_result(output).images().to_pylist()
    assert {row["image_id"]: row["reason"] for row in images if row["reason"]} == {"0000005.png": "killed_worker"}
    assert len(images) == 12
