"""Shared fixtures: real photographs, an S3 server as a process, and the command line as users run it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "jobs" / "demo_data"
DEV = ROOT.parent / "shared" / "data" / "dev"

Cli = Callable[..., subprocess.CompletedProcess[str]]

# Ray runs its workers at a lower priority; on a busy test machine they would starve.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so


@pytest.fixture
def dev_data() -> Path:
    """The development set; tests that need it say so where it is absent."""
    if not DEV.is_dir():
        pytest.skip(f"the development set is not at {DEV}")
    return DEV


@pytest.fixture(scope="session")
def relabel() -> Cli:
    """Run `relabel ...` in a process of its own, as a user would."""

    def run(*arguments: str | Path, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs.cli", *map(str, arguments)]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


class Demo(NamedTuple):
    """What `relabel demo` wrote, and how it ended."""

    folder: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, relabel: Cli) -> Demo:
    """One for all tests: read it, do not change it."""
    folder = tmp_path_factory.mktemp("demo")
    return Demo(folder, relabel("demo", "--output", folder))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """moto's server as a process; credentials for it stand in the environment."""
    [port] = free_ports(1)
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="written-nowhere", AWS_DEFAULT_REGION="us-east-1")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def bucket(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """The name of a fresh bucket."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def cluster(s3_endpoint: str) -> Iterator[dict[str, str]]:
    """A Ray cluster with token authentication that outlives the runs: the environment in which `relabel` uses it.

    It starts after the S3 server: its workers need the credentials, too.
    """
    authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5eed" * 16}
    with ray_head(**authentication) as head:
        yield {"RAY_ADDRESS": head.address, **authentication}


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own at `folder`. size: as `mount` takes it, such as 256k."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class RayHead(NamedTuple):
    """A running `ray start --head`."""

    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def ray_head(**env: str) -> Iterator[RayHead]:
    """A Ray head as a process, with a folder of its own: from the common one later drivers would take its address.

    Without a token unless `env` asks for one: left to itself it demands one wherever ~/.ray/auth_token exists, which
    every local cluster writes.
    """
    [port] = free_ports(1)
    folder = tempfile.mkdtemp(prefix="r")  # short: Ray's sockets lie below
    command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    head = subprocess.Popen(
        [*command, "--include-dashboard=false", f"--temp-dir={folder}"],
        env={"RAY_AUTH_MODE": "disabled", **os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(port, head)
        yield RayHead(f"127.0.0.1:{port}", head)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    """Ports of this machine on which nothing listens now."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, f"{server.args} ended"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{server.args} did not come up")
