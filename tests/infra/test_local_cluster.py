"""`make cluster` as the page says: three nodes of processes, a run on them, a worker node that is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, Cli, free_ports
from tests.jobs.test_recovery import part_times, shard_hashes, tripled_demo

pytestmark = pytest.mark.slow
START_S = 300


@contextmanager
def local_cluster(log: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a cluster, and the script whose children are its nodes. What it says goes into `log`."""
    [port] = free_ports(1)
    with log.open("w") as written:
        script = subprocess.Popen(
            [ROOT / "infra" / "local-cluster.sh", sys.executable],
            env={**os.environ, "PORT": str(port)},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until(lambda: "three nodes" in log.read_text(), START_S, script)
        yield f"127.0.0.1:{port}", psutil.Process(script.pid)
    finally:
        script.terminate()
        script.wait(60)


def _wait_until(done: Callable[[], bool], seconds: float, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, f"ended too early: {process.args}"
        assert time.monotonic() < deadline, f"not within {seconds} s: {process.args}"
        time.sleep(0.05)


def worker_nodes(script: psutil.Process) -> list[int]:
    """Process groups of the nodes that compute; the head offers no CPU."""
    return [child.pid for child in script.children() if "--num-cpus=1" in child.cmdline()]


@contextmanager
def started(arguments: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`relabel` with these arguments, on a cluster without a token; ended with the context."""
    with log.open("w") as written:
        run = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def test_a_node_is_killed_and_the_bytes_are_the_same(tmp_path: Path, relabel: Cli) -> None:
    corpus = tripled_demo(tmp_path)
    alone = relabel(*corpus.arguments(tmp_path / "alone", "--actors", "1"))
    assert alone.returncode == 0, alone.stderr
    output, log = tmp_path / "out", tmp_path / "run.log"
    with local_cluster(tmp_path / "cluster.log") as (address, script):
        arguments = corpus.arguments(output, "--address", address, "--actors", "1:2")
        with started(arguments, log) as run:
            _wait_until(lambda: len(part_times(output)) >= 3, START_S, run)
            [first, _] = worker_nodes(script)
            os.killpg(first, signal.SIGKILL)
            assert len(part_times(output)) < corpus.rows[0], "killed too late: nothing was pending"
            assert run.wait(START_S) == 0, log.read_text()[-3000:]
        assert len(worker_nodes(script)) == 1
        assert f"node {first} ended" in (tmp_path / "cluster.log").read_text()
    assert shard_hashes(output) == shard_hashes(tmp_path / "alone")
