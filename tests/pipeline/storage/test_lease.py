"""The lease with real processes, on disk and on an S3 server: one at a time, dead owners lapse, late ones fail."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import s3fs

from pipeline.errors import JobError, RefusedError
from pipeline.storage import Access, Store
from pipeline.storage.lease import Patience, check_store, held
from tests.conftest import ROOT

QUICK = Patience(ttl_s=0.6, wait_s=20)

COUNT = """
import sys, time
from pipeline.storage.lease import Patience, held
from pipeline.storage import Access, Store
store = Store(sys.argv[1], Access(sys.argv[2] or None))
for _ in range(int(sys.argv[3])):
    with held(store, Patience(wait_s=200)) as fence:
        before = int(store.read("counter"))
        time.sleep(0.05)
        fence()
        store.put("counter", str(before + 1).encode())
"""

KEEP = """
import sys, time
from pipeline.storage.lease import Patience, held
from pipeline.storage import Access, Store
with held(Store(sys.argv[1], Access(sys.argv[2] or None)), Patience()):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return Store(str(tmp_path))
    endpoint = request.getfixturevalue("s3_endpoint")
    return Store(f"s3://{request.getfixturevalue('bucket')}/out", Access(endpoint))


def process(script: str, store: Store, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, store.uri, store.access.endpoint_url or "", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_file_is_created_once(store: Store) -> None:
    assert store.create("x", b"first")
    assert not store.create("x", b"second")
    assert store.create("x", b"first")  # the answer to the first try was lost
    assert store.read("x") == b"first"
    assert [file.path for file in store.list()] == ["x"]


def test_processes_hold_it_one_at_a_time(store: Store) -> None:
    store.put("counter", b"0")
    both = [process(COUNT, store, "6") for _ in range(2)]
    assert [one.wait(300) for one in both] == [0, 0]
    assert store.read("counter") == b"12"
    assert [file.path for file in store.list("leases")] == ["leases/11.json"]


def test_a_killed_owner_of_this_machine_is_known_to_be_dead(store: Store) -> None:
    owner = process(KEEP, store)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(JobError, match="another run") as refused, held(store, Patience(wait_s=0.5)):
        pass
    assert str(owner.pid) in str(refused.value)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    started = time.monotonic()
    with held(store, Patience()):  # does not wait for the 60 s of a stranger
        assert time.monotonic() - started < 30


def stranger(store: Store, number: int = 0) -> None:
    """A lease of a process somewhere else, that never stirs again."""
    with held(store, QUICK):
        pass
    [file] = store.list("leases")
    owner = json.loads(store.read(file.path)) | {"host": "another boot", "released": False}
    store.delete(file.path)
    store.put(f"leases/{number}.json", json.dumps(owner).encode())


def test_a_silent_owner_elsewhere_lapses_by_the_waiters_own_clock(store: Store) -> None:
    stranger(store, 7)
    said: list[str] = []
    started = time.monotonic()
    with held(store, QUICK, said.append) as fence:
        assert time.monotonic() - started > QUICK.ttl_s
        fence()
    assert len(said) == 1
    assert "waiting for another run" in said[0]
    assert [file.path for file in store.list("leases")] == ["leases/8.json"]


def test_a_living_owner_is_waited_for_and_then_said_to_be_in_the_way(store: Store) -> None:
    """Its heart beats, so waiting far longer than the time to live does not help."""
    with held(store, QUICK):
        with pytest.raises(JobError, match="Run again when it has ended"), held(store, Patience(0.6, wait_s=3)):
            pass
        with pytest.raises(JobError, match="waited 0 s"), held(store, Patience(0.6, wait_s=0)):
            pass


def test_an_owner_that_was_taken_over_is_fenced(store: Store) -> None:
    with held(store, Patience()) as fence:
        fence()
        [file] = store.list("leases")
        assert store.create("leases/1.json", store.read(file.path) + b" ")
        with pytest.raises(JobError, match="took over"):
            fence()


def test_a_store_without_conditional_writes_is_refused(
    s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"s3://{bucket}", Access(s3_endpoint))
    check_store(store)
    real = s3fs.S3FileSystem._pipe_file

    async def ignores_the_condition(self: object, path: str, data: bytes, **options: object) -> object:
        options.pop("mode", None)
        return await real(self, path, data, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", ignores_the_condition)
    monkeypatch.setattr(s3fs.S3FileSystem, "cachable", False)  # one made before would go on as it was
    with pytest.raises(RefusedError, match="--assume-exclusive"):
        check_store(Store(store.uri, store.access))
    assert store.list(temporary=True) == store.list() == []


def test_an_output_that_takes_no_file_is_not_said_to_lack_conditional_writes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match=r"cannot write to the output .*file is a file; name a folder"):
        check_store(Store(str(tmp_path / "file")))
    with pytest.raises(RefusedError, match=r"^cannot write to the output /proc/1/nothing"):
        check_store(Store("/proc/1/nothing"))


def test_disks_have_conditional_writes(tmp_path: Path) -> None:
    check_store(Store(str(tmp_path / "new")))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
