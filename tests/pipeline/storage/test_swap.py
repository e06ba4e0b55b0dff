"""A file is replaced only while it is what it was: on disk, on an S3 server, on emulators of Azure and Google."""

import importlib.util
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3fs

from pipeline.errors import RefusedError, StorageError
from pipeline.storage import Access, Store, atomic, file_systems
from pipeline.storage.lease import check_store
from tests.conftest import _wait_for, free_ports

AZURITE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6"
    "IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
)
"""The emulator's own account and key, which are everybody's."""


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an emulator of Azure answers, the same for all tests: a file system is kept for the whole process."""
    if importlib.util.find_spec("adlfs") is None or shutil.which("azurite-blob") is None:
        pytest.skip("the extra `azure` or azurite (npm) is not installed")
    [port] = free_ports(1)
    command = ["azurite-blob", "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", str(port)]
    server = subprocess.Popen([*command, "--location", tmp_path_factory.mktemp("azurite")])
    try:
        _wait_for(port, server)
        yield AZURITE.format(port=port)
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def azure(azurite: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    import adlfs

    box = f"box-{uuid.uuid4().hex}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite)
    adlfs.AzureBlobFileSystem(connection_string=azurite).mkdir(box)
    return Store(f"az://{box}/out", Access(tries=2))


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Store:
    """On an emulator that keeps preconditions, as Google's own storage-testbench does."""
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST")
    if importlib.util.find_spec("gcsfs") is None or endpoint is None:
        pytest.skip("the extra `gcs` is not installed, or STORAGE_EMULATOR_HOST names no server")
    import gcsfs

    box = f"box-{uuid.uuid4().hex}"
    monkeypatch.setenv("FSSPEC_GCS_TOKEN", "anon")
    gcsfs.GCSFileSystem(project="relabel", token="anon", endpoint_url=endpoint).mkdir(box)
    return Store(f"gs://{box}/out", Access(tries=2))


@pytest.fixture(params=["disk", "s3", "azure", "google"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return Store(str(tmp_path / "out"))
    if request.param in ("azure", "google"):
        found: Store = request.getfixturevalue(request.param)
        return found
    endpoint = request.getfixturevalue("s3_endpoint")
    return Store(f"s3://{request.getfixturevalue('bucket')}/out", Access(endpoint))


def test_only_the_version_that_was_read_is_replaced(store: Store) -> None:
    assert store.swap("x", b"first", None)
    assert not store.swap("x", b"other", None)
    data, version = store.versioned("x")
    assert data == b"first"
    assert store.swap("x", b"second", version)
    assert not store.swap("x", b"third", version)
    assert store.read("x") == b"second"
    assert store.swap("x", b"second", version), "the answer to the first try may have been lost"
    assert not store.swap("gone", b"data", version)
    with pytest.raises(FileNotFoundError):
        store.versioned("gone")
    assert [file.path for file in store.list()] == ["x"]
    check_store(store)


def test_a_store_that_nobody_else_writes_needs_no_conditions(store: Store) -> None:
    alone = Store(store.uri, Access(store.access.endpoint_url, exclusive=True))
    assert alone.create("x", b"first")
    assert not alone.create("x", b"second")
    assert alone.swap("x", b"third", "any version")
    assert alone.read("x") == b"third"


def test_of_many_that_count_at_once_none_is_lost(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("counter", b"0")

    def add(number: int) -> None:
        while True:
            data, version = store.versioned("counter")  # and who wrote it: two that write the same both have done so
            if store.swap("counter", b"%d by %d" % (int(data.split()[0]) + 1, number), version):
                return

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(add, number) for number in range(40)]:
            done.result(60)
    assert store.read("counter").split()[0] == b"40"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_a_lock_that_another_one_keeps_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "LOCK_WAIT_S", 0.05)
    store = Store(str(tmp_path), Access(tries=1))
    store.put("x", b"1")
    _, version = store.versioned("x")
    with atomic._locked(tmp_path / "x"), pytest.raises(StorageError, match="another process keeps the lock"):
        store.swap("x", b"2", version)
    assert store.swap("x", b"2", version)


def test_without_links_a_file_is_still_created_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    store, won = Store(str(tmp_path)), []
    threads = [
        threading.Thread(target=lambda number=number: won.append(store.create("x", b"%d" % number)))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    assert len(store.read("x")) == 1


def test_a_store_that_forgets_the_condition_is_told_in_one_line(
    s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As s3fs does with an option that its botocore does not know."""
    store = Store(f"s3://{bucket}", Access(s3_endpoint))
    kept = s3fs.S3FileSystem._get_s3_method_kwargs

    def forgets(self: object, method: object, *given: object, **options: object) -> object:
        options.pop("IfMatch", None)
        return kept(self, method, *given, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_get_s3_method_kwargs", forgets)
    with pytest.raises(RefusedError, match="replace a file that has changed since") as refused:
        check_store(store)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "failed"),
    [
        ({"response": {"ResponseMetadata": {"HTTPStatusCode": 412}}}, True),
        ({"response": {"ResponseMetadata": {"HTTPStatusCode": 409}}}, False),
        ({"status_code": 412}, True),
        ({"code": "412"}, True),
        ({"status": 503}, False),
        ({}, False),
    ],
)
def test_a_refusal_is_told_by_its_code(values: dict[str, object], failed: bool) -> None:
    """In the words of no client: their exceptions carry it in one of these ways, and s3fs wraps them."""

    class AnswerError(Exception):
        pass

    answer, wrapped = AnswerError("precondition, in any words"), OSError("words")
    vars(answer).update(values)
    wrapped.__cause__ = answer
    assert file_systems.condition_failed(wrapped) == failed
